"""A run of `sft` or `grpo` in its output_dir: is it finished, is it the run that is asked for, do its numbers hold?

transformers writes trainer_state.json of a checkpoint when the rest of it is there, and that of output_dir behind the
final model. It is what tells a whole checkpoint and a finished run from what a kill left.
"""

import json
import logging
import math
import shutil
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from mimigenrec.decoding.weights import WEIGHTS, check_finite
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.manifest import check_same_run

STATE = "trainer_state.json"
OVERWRITE = "overwrite_output_dir=true"

# What a folder of a checkpoint has besides WEIGHTS where an adapter, FSDP or DeepSpeed wrote it.
OTHER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_model_fsdp*", "global_step*")

# Keys of transformers' TrainingArguments on which no weight depends; all others must be those of the run that goes on.
FREE = frozenset(
    """
    output_dir overwrite_output_dir resume_from_checkpoint do_train do_eval do_predict
    save_total_limit save_on_each_node save_safetensors
    log_level log_level_replica log_on_each_node logging_dir logging_strategy logging_first_step logging_steps
    logging_nan_inf_filter report_to run_name project trackio_space_id disable_tqdm skip_memory_metrics
    include_tokens_per_second include_num_input_tokens_seen debug
    push_to_hub hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision
    push_to_hub_model_id push_to_hub_organization push_to_hub_token
    no_cuda use_cpu use_mps_device local_rank tpu_num_cores ddp_backend ddp_timeout ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_find_unused_parameters gradient_checkpointing gradient_checkpointing_kwargs
    torch_empty_cache_steps per_device_eval_batch_size eval_accumulation_steps
    dataloader_num_workers dataloader_prefetch_factor dataloader_pin_memory dataloader_persistent_workers
    """.split()
)

# Numbers of transformers' TrainingArguments: outside of these they would be refused late, below a traceback, or train
# on nothing without a word.
RANGES = {
    "gradient_accumulation_steps": {"least": 1},
    "weight_decay": {"least": 0},
    "max_grad_norm": {"least": 0},
    "warmup_ratio": {"least": 0, "most": 1},
    "warmup_steps": {"least": 0},
    "logging_steps": {"above": 0},
    "save_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "seed": {"least": 0, "most": 2**32 - 1},
}

# What may lie in a new output_dir: hidden files, and what users and shells put there.
HARMLESS = (".*", "*.log", "*.out", "*.err", "*.txt", "*.yaml", "runs", "wandb", "trainer_log.jsonl")

log = logging.getLogger(__name__)


def state_of(folder: str | Path) -> dict[str, Any] | None:
    """Its trainer_state.json; None where it is missing or was not written to its end."""
    path = Path(folder) / STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_bytes())
    except ValueError:
        return None
    return state if isinstance(state, dict) else None


def has_weights(folder: str | Path) -> bool:
    return any(any(Path(folder).glob(name)) for name in (*WEIGHTS, *OTHER_WEIGHTS))


def is_over(state: Mapping[str, Any]) -> bool:
    """Whether max_steps are done. state: the content of a trainer_state.json."""
    return state.get("global_step", 0) >= state.get("max_steps", math.inf)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [folder for folder in checkpoints(output_dir) if state_of(folder) is not None and has_weights(folder)]
    return whole[-1] if whole else None


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Oldest first."""
    folders = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.is_dir()]
    numbered = [folder for folder in folders if folder.name.rpartition("-")[2].isdecimal()]
    return sorted(numbered, key=lambda folder: int(folder.name.rpartition("-")[2]))


def remove_unfinished(output_dir: str | Path) -> None:
    """Removes checkpoints that a kill or a full disk left without state or weights: nothing can go on from them, and
    transformers, which deletes the oldest by its time, would keep one of them in place of a whole one."""
    for folder in checkpoints(output_dir):
        if state_of(folder) is None or not has_weights(folder):
            log.warning("%s is half-written or half-deleted; removing it", folder)
            shutil.rmtree(folder)


def remove_run(output_dir: str | Path) -> None:
    """Removes checkpoints, weights and state of the run before: nothing of it may pass for the one that begins."""
    for folder in checkpoints(output_dir):
        shutil.rmtree(folder)
    for name in (STATE, "*results.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "adapter_*"):
        for path in Path(output_dir).glob(name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def refuse_others(output_dir: str | Path, command: str) -> None:
    """Raises UserError if the folder holds what `command` did not write: nothing is trained over that."""
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir {folder} is a file; take another folder")
    manifest = folder / "manifest.json"
    if manifest.is_file():
        made_by = read_json(manifest, made_by=f"mimigenrec {command}", kind=dict).get("command")
        if made_by != command:
            raise UserError(
                f"output_dir {folder} holds what {made_by or 'another command'} wrote, which {command} will not "
                f"overwrite; take another folder"
            )
    elif folder.is_dir() and not checkpoints(folder):
        names = sorted(path.name for path in folder.iterdir())
        strange = [name for name in names if not any(fnmatch(name, pattern) for pattern in HARMLESS)]
        if strange:
            raise UserError(
                f"output_dir {folder} holds {', '.join(strange[:3])}, which {command} did not write; take another "
                f"folder, or move that away"
            )


def check_run(output_dir: str | Path, now: Mapping[str, Any], free: Collection[str], overwrite: bool) -> None:
    """Raises UserError if going on in output_dir, or replacing what it holds, would mix two runs.

    now         the manifest of the run that is asked for, with its "command"
    free        keys of its config that may differ
    overwrite   whether overwrite_output_dir is set: it replaces a run of the same command, and nothing else
    """
    folder = Path(output_dir)
    refuse_others(folder, now["command"])
    if not (checkpoints(folder) or has_weights(folder) or (folder / STATE).is_file()):
        return
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(
            f"output_dir {folder} holds checkpoints and no manifest.json, so nothing tells of which run they are; "
            f"take another folder"
        )
    if not overwrite:
        before = read_json(path, made_by=f"mimigenrec {now['command']}", kind=dict)
        compare(folder, before, now, free, OVERWRITE)


def check_named(named: str | None, overwrite: bool) -> None:
    """named: what resume_from_checkpoint names. Raises UserError if it is no whole checkpoint, or if overwrite, that
    is overwrite_output_dir, says to start anew."""
    if named and overwrite:
        raise UserError(f"resume_from_checkpoint {named} goes on, and {OVERWRITE} starts anew; leave one of them out")
    if isinstance(named, str) and (state_of(named) is None or not has_weights(named)):
        raise UserError(f"resume_from_checkpoint {named} is no whole checkpoint; name a folder checkpoint-N")


def compare(folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str], remedy: str):
    """Raises UserError if two manifests are of different runs; what an earlier version did not note is not asked."""
    unknown = {key for key in ("weights", "processes") if key not in before.get("config", {})}
    check_same_run(folder, before, now, {*free, *unknown}, remedy)


class LookFirst(TrainerCallback):
    """Ends a run that goes on from its own end, before transformers (4.57) takes a step and only then looks: all steps
    are done, or whatever stops a run early had stopped it when the checkpoint was written."""

    def __init__(self):
        self.over = False

    def on_train_begin(self, args, state, control, **kwargs):
        told = state.stateful_callbacks.get("TrainerControl", {})
        stopped = isinstance(told, dict) and told.get("args", {}).get("should_training_stop", False)
        self.over = state.global_step > 0 and (stopped or state.global_step >= state.max_steps)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if not self.over:
            return
        control.should_training_stop = True
        if isinstance(train_dataloader.dataset, IterableDataset):
            raise UserError(
                f"{args.output_dir}/checkpoint-{state.global_step} is the end of this training, and was killed before "
                f"its model was written there; with streaming, copy that checkpoint"
            )
        train_dataloader.set_sampler([])

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.over:  # what an epoch's end brings was done before the checkpoint was written
            control.should_evaluate = control.should_save = control.should_log = False


class SinceResume(TrainerCallback):
    """Keeps out of the logs what transformers (4.57) computes wrongly for a run that went on from a checkpoint: the
    loss and the speed since then, divided by the steps of the whole run."""

    WRONG = ("train_loss", "train_samples_per_second", "train_steps_per_second", "train_tokens_per_second")

    def __init__(self):
        self.first = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.first = state.global_step
        state.compute_steps(args, state.max_steps)  # those of the checkpoint would hold: logging_steps may differ

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.first and "train_loss" in (logs or {}):
            for told in (logs, state.log_history[-1]):
                for name in self.WRONG:
                    told.pop(name, None)


class StopIfNotFinite(TrainerCallback):
    """Stops a run that diverged, with its step, before anything of that step is saved.

    transformers logs a loss of NaN as the mean of those before, 0.0 at first, unless it is told not to.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        args.logging_nan_inf_filter = False

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_save or control.should_training_stop:
            self.look(args, state, control, model)

    on_epoch_end = on_step_end

    def look(self, args, state, control, model=None, **kwargs):
        try:
            check_finite(model, "the model")
        except UserError as error:
            raise diverged("its weights hold NaN or infinity", state.global_step, args) from error

    on_evaluate = on_train_end = look  # save_strategy best saves after an evaluation, whatever else at the end

    def on_log(self, args, state, control, logs=None, **kwargs):
        check_number("loss", (logs or {}).get("loss"), state.global_step, args)
        if not args.fp16:  # whose scaler leaves out a step with such a norm
            check_number("grad_norm", (logs or {}).get("grad_norm"), state.global_step, args)


def check_number(name: str, value: float | None, step: int, args) -> None:
    """Raises UserError if value is NaN or infinite. step: that which is computed, from 1; args: TrainingArguments."""
    if isinstance(value, float) and not math.isfinite(value):
        raise diverged(f"{name} is {value}", step, args)


def diverged(what: str, step: int, args) -> UserError:
    return UserError(
        f"training diverged: at step {step} {what}. The model was not saved; checkpoints from before stay in "
        f"{args.output_dir}. Take a smaller learning_rate (it is {args.learning_rate}), more warmup_steps, or bf16 in "
        f"place of fp16, and start with {OVERWRITE} or another output_dir"
    )
