"""SFT checkpoint + rl/*.json -> RL checkpoint.

    mimigenrec grpo --model saves/x/sft --data data/x --rewards ranking_reward.rule_reward --output_dir rl_outputs/x

output_dir gets the model (stock Hugging Face files, or the LoRA adapter), id2sid.json, items.json and
prompt_contract.json, rl_log.jsonl, manifest.json and checkpoint-N/. Started again, the command goes on from the last
checkpoint if settings and data are those of manifest.json, and says so where the run is finished; with
overwrite_output_dir it starts anew.
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
from pyarrow.lib import ArrowException
from transformers import set_seed

from mimigenrec.catalog import check_same_catalogue
from mimigenrec.cli import arg, start
from mimigenrec.contract import (
    Contract,
    check_same,
    check_template,
    choose_support,
    load_tokenizer,
    prompt_ids,
    read_contract,
)
from mimigenrec.decoding.adapter import identity, write_base
from mimigenrec.decoding.model import copy_companions
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.decoding.weights import check_finite
from mimigenrec.files import read_json, write_json
from mimigenrec.grpo.callbacks import RunLog, SelfContained, complete
from mimigenrec.grpo.checks import check_model, check_places, check_targets
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.load_reward import PASSED, Reward, check_weights, load_rewards
from mimigenrec.grpo.rollout import Rollout
from mimigenrec.grpo.stop_rule import HR, breaks, stopped_at
from mimigenrec.grpo.trainer import BeamGRPOTrainer
from mimigenrec.manifest import check_same_run, make_manifest
from mimigenrec.sids.tokens import join_sid, read_index, split_sid, write_index
from mimigenrec.training import (
    FREE,
    OVERWRITE,
    SinceResume,
    alone_in,
    check_run,
    has_weights,
    is_over,
    last_checkpoint,
    remove_run,
    remove_unfinished,
    state_of,
)

COMMAND = "grpo"

# Of our own settings and TRL's: paths, whose content is in the manifest, and what is written besides.
OURS_FREE = FREE | {
    "model",
    "data",
    "index",
    "log_completions",
    "num_completions_to_print",
    "wandb_log_unique_prompts",
}

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
    now = described(run, args, rewards, [index, *row_files(rl, args)]) if args.should_save else {}
    if args.should_save:
        check_run(args.output_dir, now, OURS_FREE, args.overwrite_output_dir)
    if how := finished(args):
        if args.should_save:
            print(f"{args.output_dir} {how}: nothing to do; {OVERWRITE} starts anew")
        return
    checkpoint = start_from(args, now)
    set_seed(args.seed)
    tokenizer = load_tokenizer(run.model, padding_side="left", truncation_side="left")
    sids = read_index(index)
    check_same_catalogue(sids, index, run.model)
    trie = SidTrie.from_sids(sids, tokenizer)
    contract = checked_contract(folder, run.model, tokenizer)
    targets = {join_sid(sid) for sid in sids.values()}
    train = read_rows(rl / "train.json", targets, index, tokenizer, args.max_prompt_length)
    train = latest(train, run.latest_rows, rl / "train.json")
    valid = None
    if args.eval_strategy != "no":
        valid = read_rows(rl / "valid.json", targets, index, tokenizer, args.max_prompt_length)
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
        peft_config=lora(run),
        callbacks=[SinceResume(), RunLog(), SelfContained(base)],
    )
    check_finite(trainer.model, run.model)
    if args.should_save:
        if args.overwrite_output_dir:
            remove_run(args.output_dir)
        remove_unfinished(args.output_dir)
        write_companions(args.output_dir, run.model, folder, sids, contract, tokenizer, run.support)
        if base:
            write_base(args.output_dir, *base)
        if checkpoint is None or args.resume_from_checkpoint:
            facts = {"contract": contract.hash if contract else None, "train_rows": len(train), "sids": trie.n_sids}
            write_json(Path(args.output_dir) / "manifest.json", now | facts)
        else:
            complete(args.output_dir, checkpoint.name, base)  # a kill may have come between its state and these
    if checkpoint is not None:
        log.warning("going on from %s", checkpoint)
        args.eval_on_start = False  # the log of the checkpoint holds what was measured at step 0
    with alone_in(args.output_dir, args.should_save):
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model()
        trainer.save_state()
    if args.should_save:
        print(summary(trainer.state.log_history, args))


def described(run: RunConfig, args: RLConfig, rewards: list[Reward], files: list[Path]) -> dict[str, Any]:
    """The manifest of the run that is asked for: settings, and hashes of everything it reads.

    The weights are in the config, so that a base that was moved is the same and one that was trained again is not. So
    is the number of processes: each takes its own part of the groups, in an order of its own.
    """
    config = asdict(run) | {"trl": json.loads(args.to_json_string())}
    config |= {"weights": identity(run.model, "--model"), "processes": args.world_size}
    read = dict.fromkeys([*files, *(Path(reward.file) for reward in rewards if reward.file)])
    return make_manifest(config, read, args.seed, command=COMMAND)


def row_files(rl: Path, args) -> list[Path]:
    """Raises FileNotFoundError if one is missing."""
    files = [rl / "train.json", *([rl / "valid.json"] if args.eval_strategy != "no" else [])]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; it comes from preprocess_data_sft_rl.py")
    return files


def finished(args) -> str | None:
    """How a run in output_dir came to its end, in words; None where none did."""
    state = state_of(args.output_dir)
    if args.overwrite_output_dir or args.resume_from_checkpoint or state is None or not has_weights(args.output_dir):
        return None
    if (step := stopped_at(state.get("log_history", []), args.stop_hr50_drop, args.stop_patience)) is not None:
        return f"was ended by stop_hr50_drop at step {step}"
    return f"is finished at step {state['global_step']}" if is_over(state) else None


def start_from(args, now: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from: the one that resume_from_checkpoint names, else the last whole one of output_dir.

    now      the manifest of the run that is asked for; empty on processes that save nothing
    raises   UserError if the one that is named is none, or of another run, or lacks what training needs to go on
    """
    named = args.resume_from_checkpoint
    if not named:
        checkpoint = None if args.overwrite_output_dir else last_checkpoint(args.output_dir)
    elif args.overwrite_output_dir:
        raise UserError(f"resume_from_checkpoint {named} goes on, and {OVERWRITE} starts anew; leave one of them out")
    elif state_of(named) is None or not has_weights(named):
        raise UserError(f"resume_from_checkpoint {named} is no whole checkpoint; name a folder checkpoint-N")
    else:
        checkpoint = Path(named)
        if now:
            before = read_json(checkpoint / "manifest.json", made_by="mimigenrec grpo", kind=dict)
            check_same_run(checkpoint, before, now, OURS_FREE, "leave out resume_from_checkpoint")
    if checkpoint is not None and not is_over(state_of(checkpoint)):
        if not any(any(checkpoint.glob(name)) for name in ("optimizer*", "global_step*")):
            raise UserError(
                f"{checkpoint} holds no state of the optimizer (save_only_model), so its training cannot go on from "
                f"there; {OVERWRITE} starts anew"
            )
    return checkpoint


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

    Raises UserError naming file and row: no rows, a row without prompt messages or target, of other columns than the
    first or with a column that the trainer fills in itself, a target that is no SID of the catalogue, a prompt of more
    than max_length tokens.
    """
    rows = read_json(path, made_by="preprocess_data_sft_rl.py", kind=list)
    if not rows:
        raise UserError(f"{path} must be a list of rows and hold at least one")
    for i, row in enumerate(rows):
        if not is_row(row):
            raise UserError(
                f"{path}, row {i}: needs 'prompt', a list of messages with role and content, and 'reward_model' with "
                f"the text 'ground_truth'; found {str(row)[:200]}"
            )
        if row.keys() != rows[0].keys():
            raise UserError(f"{path}, row {i}: has the columns {sorted(row)}, row 0 has {sorted(rows[0])}")
        target = row["reward_model"]["ground_truth"]
        if join_sid(split_sid(target)) not in targets:
            raise UserError(
                f"{path}, row {i}: the target {target!r} is no SID of {index}, so no rollout could ever hit it; data "
                f"and index are from different catalogues"
            )
    if taken := sorted(rows[0].keys() & set(PASSED)):
        raise UserError(f"{path}: the trainer fills in {', '.join(taken)} itself; give that column another name")
    try:
        prompt_ids(tokenizer, [row["prompt"] for row in rows], max_length)
    except UserError as error:
        raise UserError(f"{path}: {error} (--max_prompt_length)") from error
    return rows


def is_row(row: Any) -> bool:
    """Whether it has prompt messages and a target."""
    if not isinstance(row, dict):
        return False
    prompt, target = row.get("prompt"), row.get("reward_model")
    asked = isinstance(prompt, list) and prompt and all(isinstance(message, dict) for message in prompt)
    texts = asked and [message.get(key) for message in prompt for key in ("role", "content")]
    told = isinstance(target, dict) and isinstance(target.get("ground_truth"), str)
    return bool(asked and told and all(isinstance(text, str) for text in texts))


def as_dataset(rows: list[dict[str, Any]], path: Path) -> Dataset:
    """Raises UserError for a column whose values are of several types."""
    try:
        return Dataset.from_list(rows)
    except (ArrowException, OverflowError) as error:
        raise UserError(f"{path}: a column holds values of several types ({error}); build the data again") from error


def latest(rows: list[dict[str, Any]], count: int, path: Path) -> list[dict[str, Any]]:
    """The `count` rows of each task with the highest extra_info.index, in the order of the file; 0 keeps all.

    Raises UserError for a row that does not tell its task and index.
    """
    if not count:
        return rows
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        told = row.get("extra_info")
        known = isinstance(told, dict) and isinstance(told.get("index"), int) and isinstance(told.get("task"), str)
        if not known:
            raise UserError(f"{path}, row {i}: --latest_rows needs extra_info with task and index, found {told}")
        places.setdefault(told["task"], []).append(told["index"])
    first = {task: sorted(indexes)[-count:][0] for task, indexes in places.items()}
    return [row for row in rows if row["extra_info"]["index"] >= first[row["extra_info"]["task"]]]


def lora(run: RunConfig):
    """LoRA's settings, or None. The embeddings stay as SFT left them: they hold the SIDs already."""
    if not run.lora_r:
        return None
    from peft import LoraConfig

    target = "all-linear" if run.lora_target == ["all-linear"] else run.lora_target
    return LoraConfig(
        r=run.lora_r,
        lora_alpha=run.lora_alpha,
        lora_dropout=run.lora_dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )


def write_companions(
    output_dir: str, model: str, folder: Path, sids: dict, contract, tokenizer, support: Support
) -> None:
    """What makes a checkpoint self-contained, into output_dir: the data's own, else what the SFT checkpoint had."""
    copy_companions(model, output_dir)
    copy_companions(folder, output_dir)
    write_index(Path(output_dir) / "id2sid.json", sids)
    trained = read_contract(model)
    if contract:
        golden = trained.golden if trained else ()
        contract = replace(contract, chat_template=tokenizer.chat_template, golden=golden)
    if contract := contract or trained:
        replace(contract, support=support).write(output_dir)


def summary(history: list[dict], args) -> str:
    """First, best and last HR and NDCG as lines of text; the best is one that kept the stop rule, if there is one."""
    drop = args.stop_hr50_drop
    evals = [entry for entry in history if "eval_ndcg@10" in entry]
    lines = [f"saved to {args.output_dir}"]
    silent = [entry["groups_without_signal_share"] for entry in history if "groups_without_signal_share" in entry]
    if silent and min(silent) == 1 and not args.ce_coef:
        lines.append("no group had a signal at any logged step: rewards taught nothing (docs/rl.md says what helps)")
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
