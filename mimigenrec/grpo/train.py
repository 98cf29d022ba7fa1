"""SFT checkpoint + rl/*.json -> RL checkpoint.

    mimigenrec grpo --model saves/x/sft --data data/x --rewards ranking_reward.rule_reward --output_dir rl_outputs/x

output_dir gets the model (stock Hugging Face files, or the LoRA adapter), id2sid.json, items.json and
prompt_contract.json, rl_log.jsonl, manifest.json and checkpoint-N/. Started again, the command goes on from the last
checkpoint; overwrite_output_dir starts anew.
"""

import json
import logging
import os
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mimigenrec.environment.chain import exit_unless_imports
from mimigenrec.errors import UserError

if __name__ == "__main__":
    exit_unless_imports("grpo", "trl", "mimigenrec.grpo.trainer")  # which the imports below need

import torch
from datasets import Dataset
from transformers import set_seed

from mimigenrec.catalog import check_same_catalogue
from mimigenrec.cli import arg, start
from mimigenrec.contract import Contract, check_same, check_template, load_tokenizer, prompt_ids, read_contract
from mimigenrec.decoding.model import copy_companions
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.files import read_json
from mimigenrec.grpo.callbacks import RunLog, SelfContained
from mimigenrec.grpo.checks import check_model
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.load_reward import load_rewards
from mimigenrec.grpo.rollout import Rollout
from mimigenrec.grpo.stop_rule import HR, breaks, stopped_at
from mimigenrec.grpo.trainer import BeamGRPOTrainer
from mimigenrec.manifest import write_manifest
from mimigenrec.sids.tokens import join_sid, read_index, split_sid, write_index

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
    support: Support = arg("log-probabilities over the vocabulary or among the legal tokens", default="vocab")
    # a slice of Amazon18 Industrial split by time, a third of its rows: docs/results.md
    latest_rows: int = arg(
        "train on so many rows of each task, those that come last in train.inter; 0: on all. Where data are split by "
        "time these are nearest to what comes",
        default=0,
    )
    eval_sample: int = arg("rows of valid.json that each evaluation takes, drawn with the seed", default=512)
    lora_r: int = arg("rank of a LoRA adapter; 0 trains the whole model", default=0)
    lora_alpha: int = arg("LoRA alpha", default=32)
    lora_dropout: float = arg("LoRA dropout", default=0.0)
    lora_target: list[str] = arg("LoRA module names, or all-linear", factory=lambda: ["all-linear"])


def main(run: RunConfig, args: RLConfig) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s")
    check_launch(os.environ, torch.cuda.is_available())
    check_model(run.model)
    if (step := already_stopped(args)) is not None:
        if args.should_save:
            print(f"{args.output_dir} was ended by stop_hr50_drop at step {step}; overwrite_output_dir starts anew")
        return
    set_seed(args.seed)
    rl, folder = data_folders(run.data)
    index = find_index(run.model, run.index, folder)
    tokenizer = load_tokenizer(run.model, padding_side="left", truncation_side="left")
    sids = read_index(index)
    check_same_catalogue(sids, index, run.model)
    trie = SidTrie.from_sids(sids, tokenizer)
    contract = checked_contract(folder, run.model, tokenizer)
    rewards = load_rewards(run.rewards, run.reward_args)
    targets = {join_sid(sid) for sid in sids.values()}
    train = read_rows(rl / "train.json", targets, index, tokenizer, args.max_prompt_length)
    train = latest(train, run.latest_rows, rl / "train.json")
    valid = None
    if args.eval_strategy != "no":
        valid = read_rows(rl / "valid.json", targets, index, tokenizer, args.max_prompt_length)
        valid = random.Random(args.seed).sample(valid, min(run.eval_sample, len(valid)))
    checkpoint = args.resume_from_checkpoint or last_checkpoint(args)
    if checkpoint:
        log.warning("going on from %s", checkpoint)
        args.eval_on_start = False  # the log of the checkpoint holds what was measured at step 0
    trainer = BeamGRPOTrainer(
        run.model,
        rewards,
        args,
        trie=trie,
        rollout=run.rollout,
        support=run.support,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(valid) if valid else None,
        peft_config=lora(run),
        callbacks=[RunLog(), SelfContained()],
    )
    if args.should_save:
        write_companions(args.output_dir, run.model, folder, sids, contract, tokenizer)
        inputs = [index, *(path for path in (rl / "train.json", rl / "valid.json") if path.is_file())]
        facts = {"contract": contract.hash if contract else None, "train_rows": len(train), "sids": trie.n_sids}
        config = asdict(run) | {"trl": json.loads(args.to_json_string())}
        write_manifest(args.output_dir, config, inputs, args.seed, **facts)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    if args.should_save:
        print(summary(trainer.state.log_history, args))


def check_launch(environment, has_gpu: bool) -> None:
    """Raises ValueError if `accelerate launch` was asked for several processes where it silently starts one.

    Without a GPU its simple launcher only sets MASTER_ADDR and CCL_WORKER_COUNT for them, and no WORLD_SIZE.
    """
    if not has_gpu and "CCL_WORKER_COUNT" in environment and "WORLD_SIZE" not in environment:
        raise UserError(
            "accelerate was asked for several processes on a machine without a GPU and started one; use "
            "torchrun --nproc_per_node N -m mimigenrec.grpo.train ..., as trl_trainer.sh does, or --num_processes 1"
        )


def data_folders(data: Path) -> tuple[Path, Path]:
    """The folder of train.json and valid.json, and the one above it with id2sid.json."""
    return (data / "rl", data) if (data / "rl").is_dir() else (data, data.parent)


def find_index(model: str, index: Path | None, folder: Path) -> Path:
    places = [index] if index else [folder / "id2sid.json", Path(model) / "id2sid.json"]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"no SIDs: {' and '.join(map(str, places))} missing; name an id2sid.json with --index")


def checked_contract(folder: Path, model: str, tokenizer) -> Contract | None:
    """The data's prompt contract; None, with a warning, where data or checkpoint have none.

    Raises ValueError if the two differ, or the tokenizer's chat template is another than theirs.
    """
    data, checkpoint = read_contract(folder), read_contract(model)
    for contract, path in ((data, folder), (checkpoint, model)):
        if contract is not None:
            check_template(contract, tokenizer, path)
    if data and checkpoint:
        check_same(data, checkpoint, folder, model)
    if not data or not checkpoint or data.wording == "classic":
        missing = [str(where) for where, there in ((folder, data), (model, checkpoint)) if not there]
        reason = f"no prompt_contract.json in {' and '.join(missing)}" if missing else "the classic wording"
        log.warning("%s: nothing says that RL asks in the words of SFT and evaluation", reason)
    return data


def read_rows(path: Path, targets: set[str], index: Path, tokenizer, max_length: int | None) -> list[dict[str, Any]]:
    """RL rows, all of them usable.

    Raises ValueError naming file and row: no rows, a row without prompt messages or target, a target that is no SID
    of the catalogue, a prompt of more than max_length tokens.
    """
    rows = read_json(path, made_by="preprocess_data_sft_rl.py")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} must be a list of rows and hold at least one")
    for i, row in enumerate(rows):
        try:
            question, target = row["prompt"][-1]["content"], row["reward_model"]["ground_truth"]
            sid = join_sid(split_sid(target))
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{path}, row {i}: needs 'prompt', a list of messages, and 'reward_model' with 'ground_truth'; "
                f"found {str(row)[:200]}"
            ) from error
        if sid not in targets or not isinstance(question, str):
            raise UserError(
                f"{path}, row {i}: the target {target!r} is no SID of {index}, so no rollout could ever hit it; data "
                f"and index are from different catalogues"
            )
    try:
        prompt_ids(tokenizer, [row["prompt"] for row in rows], max_length)
    except ValueError as error:
        raise UserError(f"{path}: {error} (--max_prompt_length)") from error
    return rows


def latest(rows: list[dict[str, Any]], count: int, path: Path) -> list[dict[str, Any]]:
    """The `count` rows of each task with the highest extra_info.index, in the order of the file; 0 keeps all.

    Raises ValueError for a negative count, or a row that does not tell its task and index.
    """
    if count < 0:
        raise UserError(f"--latest_rows {count} must be a number of rows, or 0 for all")
    if not count:
        return rows
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        told = row.get("extra_info") or {}
        if not isinstance(told.get("index"), int) or "task" not in told:
            raise UserError(f"{path}, row {i}: --latest_rows needs extra_info with task and index, found {told}")
        places.setdefault(told["task"], []).append(told["index"])
    first = {task: sorted(indexes)[-count:][0] for task, indexes in places.items()}
    return [row for row in rows if row["extra_info"]["index"] >= first[row["extra_info"]["task"]]]


def last_checkpoint(args) -> str | None:
    """The newest whole checkpoint of output_dir: trainer_state.json is written last, so it is there to its end."""
    if args.overwrite_output_dir:
        return None
    states = Path(args.output_dir).glob("checkpoint-*/trainer_state.json")
    whole = [path for path in states if path.read_text(encoding="utf-8").rstrip().endswith("}")]
    return max((str(path.parent) for path in whole), key=lambda name: int(name.rpartition("-")[2]), default=None)


def lora(run: RunConfig):
    """LoRA's settings, or None. The embeddings stay as SFT left them: they hold the SIDs already."""
    if not run.lora_r:
        return None
    from peft import LoraConfig

    target = run.lora_target[0] if len(run.lora_target) == 1 else run.lora_target
    return LoraConfig(
        r=run.lora_r,
        lora_alpha=run.lora_alpha,
        lora_dropout=run.lora_dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )


def write_companions(output_dir: str, model: str, folder: Path, sids: dict, contract, tokenizer) -> None:
    """What makes a checkpoint self-contained, into output_dir: the data's own, else what the SFT checkpoint had."""
    copy_companions(model, output_dir)
    copy_companions(folder, output_dir)
    write_index(Path(output_dir) / "id2sid.json", sids)
    if contract:
        trained = read_contract(model)
        golden = trained.golden if trained else ()
        replace(contract, chat_template=tokenizer.chat_template, golden=golden).write(output_dir)


def already_stopped(args) -> int | None:
    """The step at which the stop rule ended a run in output_dir that came to its end; None where none did."""
    state = Path(args.output_dir) / "trainer_state.json"  # written last
    if args.overwrite_output_dir or not state.is_file():
        return None
    history = read_json(state, made_by="mimigenrec grpo")["log_history"]
    return stopped_at(history, args.stop_hr50_drop, args.stop_patience)


def summary(history: list[dict], args) -> str:
    """First, best and last HR and NDCG as lines of text; the best is one that kept the stop rule, if there is one."""
    drop = args.stop_hr50_drop
    evals = [entry for entry in history if "eval_ndcg@10" in entry]
    lines = [f"saved to {args.output_dir}"]
    if evals:
        kept = [entry for entry in evals if drop is None or not breaks(entry[HR], history, drop)]
        best = max(kept, key=lambda entry: entry["eval_ndcg@10"])
        for name, entry in (("first", evals[0]), ("best", best), ("last", evals[-1])):
            numbers = "  ".join(
                f"{key[5:]} {entry[key]:.4f}" for key in entry if key.startswith(("eval_hr", "eval_n"))
            )
            lines.append(f"{name:<5} step {entry['step']:<6} {numbers}")
    if (step := stopped_at(history, drop, args.stop_patience)) is not None:
        lines.append(
            f"stopped at step {step}: HR@50 more than {drop:g} below the SFT checkpoint's {args.stop_patience} times"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, RunConfig, RLConfig)
