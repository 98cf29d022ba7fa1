"""SFT checkpoint + rl/*.json -> RL checkpoint.

    mimigenrec grpo --model saves/x/sft --data data/x --rewards ranking_reward.rule_reward --output_dir rl_outputs/x

output_dir gets the model (stock Hugging Face files, or the LoRA adapter), id2sid.json, items.json and
prompt_contract.json, rl_log.jsonl, manifest.json and checkpoint-N/. Started again, the command goes on from the last
checkpoint if settings and data are those of manifest.json, and says so where the run is finished; with
overwrite_output_dir it starts anew.
"""

import logging
import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

from mimigenrec.environment.chain import exit_unless_imports

if __name__ == "__main__":
    exit_unless_imports("grpo", "trl", "peft", "mimigenrec.grpo.trainer")  # which the imports below need

import torch
from transformers import set_seed

from mimigenrec.catalog import check_same_catalogue
from mimigenrec.checkpoint import remove_unfinished
from mimigenrec.cli import arg, start
from mimigenrec.contract import choose_support, proven_tokenizer, read_contract
from mimigenrec.decoding.rollout import Rollout
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.decoding.weights import check_finite
from mimigenrec.grpo.callbacks import SelfContained
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.inputs import (
    as_dataset,
    checked_contract,
    data_folders,
    find_index,
    latest,
    read_usable_rows,
    row_files,
)
from mimigenrec.grpo.run import FREE, describe, finished, manifest_of, start_from, write_companions
from mimigenrec.grpo.start import check_model, check_places
from mimigenrec.grpo.stop_rule import breaks, hr_guard, stopped_at
from mimigenrec.grpo.trainer import BeamGRPOTrainer
from mimigenrec.lock import alone
from mimigenrec.rewarding import check_weights, load_rewards
from mimigenrec.sids.tokens import join_sid, read_index
from mimigenrec.training.launch import check_launch
from mimigenrec.training.log import RunLog, SinceResume
from mimigenrec.training.peft import check_targets, lora_config
from mimigenrec.training.run import OVERWRITE, check_run, remove_run

log = logging.getLogger(__name__)


@dataclass
class RunConfig:
    """RL from an SFT checkpoint. Everything about optimisation is a field of TRL's GRPOConfig."""

    model: str = arg("SFT checkpoint whose tokenizer knows the SID tokens")
    data: Path = arg("folder of preprocess_data_sft_rl.py, or its rl/ folder")
    rewards: list[str] = arg("file.function in rewards/, or pkg.mod:function; one or more, their scores add up")
    reward_args: dict = arg('parameters, {"file.function": {"name": value}}', factory=dict)
    index: Path | None = arg("id2sid.json (default: the data folder's, else the checkpoint's)", default=None)
    rollout: Rollout = arg("G beams of one search, G draws (all different: distinct), or half each", default="beam")
    support: Support | None = arg(
        "log-probabilities over the vocabulary or among the legal tokens (default: the checkpoint's)", default=None
    )
    # a slice of Amazon18 Industrial split by time, a third of its rows: docs/results.md
    latest_rows: int = arg(
        "train on so many rows of each task, those that come last in train.inter; 0: on all. Where data are split by "
        "time these are nearest to what comes",
        default=0,
        least=0,
    )
    eval_sample: int = arg("rows of valid.json that each evaluation takes, drawn with the seed", default=512, least=1)
    lora_r: int = arg("rank of a LoRA adapter; 0 trains the whole model", default=0, least=0)
    lora_alpha: int = arg("LoRA alpha", default=32, least=1)
    lora_dropout: float = arg("LoRA dropout", default=0.0, least=0, below=1)
    lora_target: list[str] = arg("LoRA module names, or all-linear", factory=lambda: ["all-linear"])


def main(run: RunConfig, args: RLConfig) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s")
    check_launch(os.environ, torch.cuda.is_available())
    check_model(run.model)
    rl, folder = data_folders(run.data)
    check_places(args.output_dir, run.model, folder, rl)
    if run.lora_r:
        check_targets(run.model, run.lora_target)
    run = replace(run, support=choose_support(run.support, read_contract(run.model), run.model))
    index = find_index(run.model, run.index, folder)
    rewards = load_rewards(run.rewards, run.reward_args)
    check_weights(args.reward_weights, run.rewards)
    now = manifest_of(run, args, rewards, [index, *row_files(rl, args)]) if args.should_save else {}
    if args.should_save:
        check_run(args.output_dir, now, FREE, args.overwrite_output_dir)
    if how := finished(args):
        if args.should_save:
            print(f"{args.output_dir} {how}: nothing to do; {OVERWRITE} starts anew")
        return
    checkpoint = start_from(args, now)
    set_seed(args.seed)
    tokenizer = proven_tokenizer(run.model, padding_side="left", truncation_side="left")
    sids = read_index(index)
    check_same_catalogue(sids, index, run.model)
    trie = SidTrie.from_sids(sids, tokenizer)
    contract = checked_contract(folder, run.model, tokenizer)
    targets = {join_sid(sid) for sid in sids.values()}
    train = read_usable_rows(rl / "train.json", targets, index, tokenizer, args.max_prompt_length)
    train = latest(train, run.latest_rows, rl / "train.json")
    valid = None
    if args.eval_strategy != "no":
        valid = read_usable_rows(rl / "valid.json", targets, index, tokenizer, args.max_prompt_length)
        valid = random.Random(args.seed).sample(valid, min(run.eval_sample, len(valid)))
    base = (run.model, now["config"]["weights"]) if run.lora_r and now else None
    trainer = BeamGRPOTrainer(
        run.model,
        rewards,
        args,
        trie=trie,
        rollout=run.rollout,
        support=run.support,
        processing_class=tokenizer,
        train_dataset=as_dataset(train, rl / "train.json"),
        eval_dataset=as_dataset(valid, rl / "valid.json") if valid else None,
        peft_config=lora_config(run.lora_r, run.lora_alpha, run.lora_dropout, run.lora_target),
        callbacks=[SinceResume(), RunLog(), SelfContained(base)],
    )
    check_finite(trainer.model, run.model)
    facts = {"contract": contract.hash if contract else None, "train_rows": len(train), "sids": trie.n_sids}
    with alone(Path(args.output_dir) / ".lock", "another run", args.should_save):
        if args.should_save:
            if args.overwrite_output_dir:
                remove_run(args.output_dir)
            remove_unfinished(args.output_dir)
            describe(args, checkpoint, now | facts, base)
            write_companions(args.output_dir, run.model, folder, sids, contract, tokenizer, run.support)
        if checkpoint is not None:
            log.warning("going on from %s", checkpoint)
            args.eval_on_start = False  # the log of the checkpoint holds what was measured at step 0
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model()
        trainer.save_state()
    if args.should_save:
        print(summary(trainer.state.log_history, args))


def summary(history: list[dict], args) -> str:
    """First, best and last HR and NDCG as lines of text; the best is one that kept the stop rule, if there is one."""
    guard = hr_guard(args)
    evals = [entry for entry in history if "eval_ndcg@10" in entry]
    lines = [f"saved to {args.output_dir}"]
    silent = [entry["groups_without_signal_share"] for entry in history if "groups_without_signal_share" in entry]
    if silent and min(silent) == 1 and not args.ce_coef:
        lines.append("no group had a signal at any logged step: rewards taught nothing (docs/rl.md says what helps)")
    if evals:
        kept = [entry for entry in evals if guard.drop is None or not breaks(entry[guard.metric], history, guard)]
        best = max(kept, key=lambda entry: entry["eval_ndcg@10"])
        for name, entry in (("first", evals[0]), ("best", best), ("last", evals[-1])):
            numbers = "  ".join(
                f"{key[5:]} {entry[key]:.4f}" for key in entry if key.startswith(("eval_hr", "eval_n"))
            )
            lines.append(f"{name:<5} step {entry['step']:<6} {numbers}")
    if (step := stopped_at(history, guard)) is not None:
        lines.append(
            f"stopped at step {step}: HR@50 more than {guard.drop:g} below the SFT checkpoint's {guard.patience} times"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, RunConfig, RLConfig)
