"""A run in its output_dir: is the folder its own, and is what lies there the run that is asked for?"""

import shutil
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mimigenrec.checkpoint import STATE, checkpoints, has_weights, is_whole
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.manifest import check_same_run

OVERWRITE = "overwrite_output_dir=true"

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

# What may lie in a new output_dir: hidden files, and what users and shells put there.
HARMLESS = (".*", "*.log", "*.out", "*.err", "*.txt", "*.yaml", "runs", "wandb", "trainer_log.jsonl")


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
    if isinstance(named, str) and not is_whole(named):
        raise UserError(f"resume_from_checkpoint {named} is no whole checkpoint; name a folder checkpoint-N")


def compare(folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str], remedy: str):
    """Raises UserError if two manifests are of different runs; what an earlier version did not note is not asked."""
    unknown = {key for key in ("weights", "processes") if key not in before.get("config", {})}
    check_same_run(folder, before, now, {*free, *unknown}, remedy)


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
