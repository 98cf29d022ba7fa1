"""Is the RL run of output_dir new, interrupted, finished, or another one? And what describes it there.

manifest.json says with which settings, data, rewards and weights a run began. It is written once; a run that goes on
must fit it, but for the settings in FREE.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mimigenrec.checkpoint import copy_companions, has_weights, is_over, last_checkpoint, state_of
from mimigenrec.contract import Contract, read_contract
from mimigenrec.decoding.adapter import identity, write_base
from mimigenrec.decoding.search import Support
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.grpo.callbacks import complete
from mimigenrec.grpo.stop_rule import hr_guard, stopped_at
from mimigenrec.manifest import make_manifest
from mimigenrec.rewarding import Reward
from mimigenrec.sids.tokens import write_index
from mimigenrec.training.run import FREE as FREE_IN_TRAINING
from mimigenrec.training.run import OVERWRITE, check_named, compare

COMMAND = "grpo"

# Of our own settings and TRL's: paths, whose content is in the manifest, and what is written besides.
FREE = FREE_IN_TRAINING | {
    "model",
    "data",
    "index",
    "log_completions",
    "num_completions_to_print",
    "wandb_log_unique_prompts",
}


def manifest_of(run, args, rewards: list[Reward], files: list[Path]) -> dict[str, Any]:
    """The manifest of the run that is asked for: settings (RunConfig, RLConfig), and hashes of everything it reads.

    The weights are in the config, so that a base that was moved is the same and one that was trained again is not. So
    is the number of processes: each takes its own part of the groups, in an order of its own.
    """
    config = asdict(run) | {"trl": json.loads(args.to_json_string())}
    config |= {"weights": identity(run.model, "--model"), "processes": args.world_size}
    read = dict.fromkeys([*files, *(Path(reward.file) for reward in rewards if reward.file)])
    return make_manifest(config, read, args.seed, command=COMMAND)


def finished(args) -> str | None:
    """How a run in output_dir came to its end, in words; None where none did."""
    state = state_of(args.output_dir)
    if args.overwrite_output_dir or args.resume_from_checkpoint or state is None or not has_weights(args.output_dir):
        return None
    if (step := stopped_at(state.get("log_history", []), hr_guard(args))) is not None:
        return f"was ended by stop_hr50_drop at step {step}"
    return f"is finished at step {state['global_step']}" if is_over(state) else None


def start_from(args, now: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from: the one that resume_from_checkpoint names, else the last whole one of output_dir.

    now      the manifest of the run that is asked for; empty on processes that save nothing
    raises   UserError if the one that is named is none, or of another run, or lacks what training needs to go on
    """
    named = args.resume_from_checkpoint
    check_named(named, args.overwrite_output_dir)
    if not named:
        checkpoint = None if args.overwrite_output_dir else last_checkpoint(args.output_dir)
    else:
        checkpoint = Path(named)
        if now:
            before = read_json(checkpoint / "manifest.json", made_by="mimigenrec grpo", kind=dict)
            compare(checkpoint, before, now, FREE, "leave out resume_from_checkpoint")
    if checkpoint is not None and not is_over(state_of(checkpoint)):
        if not any(any(checkpoint.glob(name)) for name in ("optimizer*", "global_step*")):
            raise UserError(
                f"{checkpoint} holds no state of the optimizer (save_only_model), so its training cannot go on from "
                f"there; {OVERWRITE} starts anew"
            )
    return checkpoint


def describe(args, checkpoint: Path | None, now: dict[str, Any], base: tuple[str, str] | None) -> None:
    """Writes the manifest of a run that begins. That of one that goes on stays, and what a kill may have kept from the
    checkpoint is put there."""
    if checkpoint is None or args.resume_from_checkpoint:
        write_json(Path(args.output_dir) / "manifest.json", now)  # first: it tells whose folder this is
    else:
        complete(args.output_dir, checkpoint.name, base)
    if base:
        write_base(args.output_dir, *base)


def write_companions(
    output_dir: str, model: str, folder: Path, sids: dict, contract: Contract | None, tokenizer, support: Support
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
