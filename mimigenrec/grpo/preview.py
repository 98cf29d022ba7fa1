"""Rewards and advantages of a few groups of a checkpoint, before anyone spends a night on them.

mimigenrec rewards-preview --model saves/x/sft --data data/x --rewards ranking_reward.rule_reward --groups 4

Prints one table a group, a line a rollout: its SID, each reward, their weighted sum and TRL's advantage. Then, over
all groups: how many have no signal (all sums equal), how many contain the target, and the mean advantage of the hit.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from mimigenrec.catalog import check_same_catalogue
from mimigenrec.chat import prompt_ids
from mimigenrec.cli import arg, start
from mimigenrec.contract import check_support, choose_support, proven_tokenizer, read_contract
from mimigenrec.decoding.model import load_model
from mimigenrec.decoding.rollout import Rollout, roll_out
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.grpo.checks import check_group_size
from mimigenrec.grpo.inputs import checked_contract, data_folders, find_index, read_usable_rows
from mimigenrec.grpo.start import check_folder
from mimigenrec.rewarding import (
    answer_chats,
    ask_rewards,
    check_spread,
    check_weights,
    checked,
    group_advantages,
    load_rewards,
    weighted_sums,
    without_signal,
)
from mimigenrec.sids.tokens import join_sid, read_index


@dataclass
class PreviewConfig:
    """Rewards and advantages of a few groups."""

    model: str = arg("SFT checkpoint whose tokenizer knows the SID tokens")
    data: Path = arg("folder of preprocess_data_sft_rl.py, or its rl/ folder")
    rewards: list[str] = arg("file.function in rewards/, or pkg.mod:function; one or more")
    reward_args: dict = arg('parameters, {"file.function": {"name": value}}', factory=dict)
    reward_weights: list[float] = arg("one per reward (default: 1 each)", factory=list)
    index: Path | None = arg("id2sid.json (default: the data folder's, else the checkpoint's)", default=None)
    rollout: Rollout = arg("G beams of one search, G draws (all different: distinct), or half each", default="beam")
    support: Support | None = arg(
        "log-probabilities over the vocabulary or among the legal tokens (default: the checkpoint's)", default=None
    )
    groups: int = arg("rows of train.json to roll out, drawn with the seed", default=4, least=1)
    num_generations: int = arg("G, rollouts per prompt", default=16, least=2)
    temperature: float = arg("temperature of the draws", default=1.0, above=0)
    max_prompt_length: int = arg("longest prompt allowed, in tokens", default=512, least=1)
    batch_size: int = arg("number of prompts per search", default=8, least=1)
    seed: int = arg("random seed of the choice of rows and of the draws", default=42, least=0, most=2**32 - 1)
    base: str | None = arg("folder of a LoRA adapter's base, if it no longer lies where it was trained", default=None)


def main(config: PreviewConfig) -> None:
    check_folder(config.model)
    set_seed(config.seed)
    G = config.num_generations
    rl, folder = data_folders(config.data)
    index = find_index(config.model, config.index, folder)
    tokenizer = proven_tokenizer(config.model)
    sids = read_index(index)
    check_same_catalogue(sids, index, config.model)
    checked_contract(folder, config.model, tokenizer)
    support = choose_support(config.support, read_contract(config.model), config.model)
    check_support(tokenizer, support)
    trie = SidTrie.from_sids(sids, tokenizer)
    check_weights(config.reward_weights, config.rewards)
    rewards = [checked(reward) for reward in load_rewards(config.rewards, config.reward_args)]
    weights = config.reward_weights or [1.0] * len(rewards)
    check_group_size(G, trie)
    targets = {join_sid(sid) for sid in sids.values()}
    rows = read_usable_rows(rl / "train.json", targets, index, tokenizer, config.max_prompt_length)
    rows = random.Random(config.seed).sample(rows, min(config.groups, len(rows)))
    model = load_model(config.model, base=config.base).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows])
    sampling = {"temperature": config.temperature, "top_k": 0}
    groups = roll_out(model, trie, prompts, G, config.rollout, support, sampling, config.batch_size)
    texts = [tokenizer.batch_decode(group, skip_special_tokens=True) for group in groups]
    scores = ask_rewards(
        rewards,
        [row for row in rows for _ in range(G)],
        answer_chats(text for group in texts for text in group),
        [ids for group in groups for ids in group],
        G,
    )
    scores = torch.tensor(scores).view(len(rows), G, len(rewards))
    total = weighted_sums(scores, torch.tensor(weights))  # (groups, G)
    check_spread(total)
    advantages = group_advantages(total)
    names = [reward.__name__ for reward in rewards]
    for i, row in enumerate(rows):
        print(table(row, texts[i], names, scores[i], total[i], advantages[i]))
    print(summary(rows, texts, total, advantages))


def table(row: dict, texts: list[str], names: list[str], scores: Tensor, total: Tensor, advantages: Tensor) -> str:
    target = row["reward_model"]["ground_truth"]
    width = max(map(len, texts))
    heads = [*names, "sum", "advantage"]
    titles = "  ".join(f"{head:>10}" for head in heads)
    lines = [f"\ntarget {target}", f"  {'rank':>4}  {'rollout':<{width}}  {titles}"]
    for rank, text in enumerate(texts):
        numbers = [*scores[rank].tolist(), total[rank].item(), advantages[rank].item()]
        cells = "  ".join(f"{x:>{max(10, len(h))}.3f}" for h, x in zip(heads, numbers, strict=True))
        lines.append(f"{'*' if text == target else ' '} {rank:>4}  {text:<{width}}  {cells}")
    return "\n".join(lines)


def summary(rows: list[dict], texts: list[list[str]], total: Tensor, advantages: Tensor) -> str:
    silent = without_signal(total)  # (groups,)
    targets = [row["reward_model"]["ground_truth"] for row in rows]
    hit = torch.tensor([[text == target for text in group] for target, group in zip(targets, texts, strict=True)])
    lines = [
        f"\ngroups {len(rows)}   without signal {int(silent.sum())} ({silent.float().mean():.0%})   "
        f"with the target {int(hit.any(dim=1).sum())}"
    ]
    if hit.any():
        means = advantages[hit].mean(), advantages[~hit].mean()
        lines.append(f"mean advantage of a hit {means[0]:.3f}, of the other rollouts {means[1]:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, PreviewConfig)
