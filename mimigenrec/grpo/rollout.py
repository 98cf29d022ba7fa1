"""The G completions of a prompt: beams of one constrained search, draws from the constrained policy, or half each."""

from collections.abc import Sequence
from typing import Literal

import torch
from transformers import GenerationConfig

from mimigenrec.decoding.plain import left_pad
from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.search import Support, search_sids
from mimigenrec.decoding.trie import SidTrie

Rollout = Literal["beam", "sample", "mixed"]


def roll_out(
    model,
    tokenizer,
    trie: SidTrie,
    prompts: Sequence[list[int]],
    group_size: int,
    rollout: Rollout,
    support: Support,
    sampling: dict,
    batch_size: int,
) -> list[list[list[int]]]:
    """group_size completions per prompt: the token ids of a SID of the catalogue, closed by EOS.

    rollout     "beam"    the group_size best SIDs, best first, all different
                "sample"  group_size independent draws from the policy among the legal tokens, in the order drawn; the
                          likely ones come again and again
                "mixed"   the best group_size - group_size // 2 SIDs, best first, then group_size // 2 draws
    support     how beams are scored (decoding.search); draws are always among the legal tokens
    sampling    temperature, top_p, top_k, min_p, repetition_penalty; beams do not look at it
    batch_size  prompts in one forward
    """
    draws = {"beam": 0, "sample": group_size, "mixed": group_size // 2}[rollout]
    groups: list[list[list[int]]] = [[] for _ in prompts]
    if draws < group_size:
        found = search_sids(model, tokenizer, trie, prompts, group_size - draws, support, batch_size)
        groups = [[[*sid, trie.eos_id] for sid, _ in ranked] for ranked in found]
    for start in range(0, len(prompts) if draws else 0, batch_size):
        drawn = sample_sids(model, trie, prompts[start : start + batch_size], draws, sampling)
        for group, more in zip(groups[start : start + batch_size], drawn, strict=True):
            group += more
    return groups


@torch.no_grad()
def sample_sids(
    model, trie: SidTrie, prompts: Sequence[list[int]], draws: int, sampling: dict
) -> list[list[list[int]]]:
    """`draws` completions per prompt, each a SID and EOS, drawn token by token among the legal ones."""
    ids, mask = left_pad(prompts, trie.pad_id, model.device)  # (B, P)
    settings = GenerationConfig(
        do_sample=True,
        num_return_sequences=draws,
        max_new_tokens=trie.depth + 1,
        eos_token_id=trie.eos_id,
        pad_token_id=trie.pad_id,
        **sampling,
    )
    out = model.generate(
        inputs=ids,
        attention_mask=mask,
        generation_config=settings,
        use_model_defaults=False,  # or the checkpoint's own temperature and top-p come back
        logits_processor=[TrieLogitsProcessor(trie.to(model.device), ids.shape[1])],
    )
    written = out[:, ids.shape[1] :].tolist()  # (B * draws, at most depth + 1)
    closed = [tokens[: tokens.index(trie.eos_id) + 1] for tokens in written]
    return [closed[i : i + draws] for i in range(0, len(closed), draws)]
