"""Is the run of an output folder new, interrupted, finished, or another one? Answered before a model is loaded.

Its manifest.json, in output_dir from the first step on and in each checkpoint, says with which settings, data and base
the run began. A run that goes on keeps it. Settings in FREE, and where folders lie, may differ between its starts.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.manifest import check_same_run
from mimigenrec.training import FREE as FREE_IN_TRAINING
from mimigenrec.training import OVERWRITE, checkpoints, has_weights, refuse_others

COMMAND = "sft"
MODEL_FILES = ("config.json", "adapter_config.json", "model.safetensors", "pytorch_model.bin")
OF_A_RUN = ("trainer_state.json", "manifest.json", "*results.json", "*model*.safetensors*", "pytorch_model*.bin*")

# Besides those of transformers, LLaMA-Factory's keys and ours on which the trained weights do not depend. Of the
# folders, the content is compared.
FREE = FREE_IN_TRAINING | frozenset(
    """
    plot_loss include_effective_tokens_per_second print_param_status low_cpu_mem_usage
    use_swanlab swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_logdir
    preprocessing_num_workers overwrite_cache data_shared_file_system tokenized_path cache_dir
    model_name_or_path dataset_dir media_dir base_cache add_tokens_list
    """.split()
)
SECRET = ("hf_hub_token", "ms_hub_token", "om_hub_token", "hub_token", "push_to_hub_token", "swanlab_api_key")

log = logging.getLogger(__name__)


def is_to_run(args: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether there is something to train; False, and a line that says so, for a run that is finished.

    now      the manifest of what is asked for
    raises   UserError for an output_dir that holds another run, or the result of another command
    With overwrite_output_dir what an earlier run left there is removed.
    """
    if not args.get("do_train"):
        return True
    out = Path(args["output_dir"])
    refuse_others(out, COMMAND)
    before = manifest_before(args)
    if args.get("overwrite_output_dir"):
        if before is not None:
            clear(out)
        return True
    if not checkpoints(out) and not any((out / name).is_file() for name in MODEL_FILES):
        return True  # whatever was begun here, nothing is left of it
    if before is None:
        if checkpoints(out):
            log.warning("nothing tells with which settings the checkpoints in %s were trained; going on", out)
            return True
        raise UserError(
            f"{out} holds a model, and no checkpoint to go on from; take another output_dir, or {OVERWRITE} to "
            f"replace the model"
        )
    check_same_run(out, comparable(before, now), comparable(now, before), FREE, OVERWRITE)
    if not is_finished(out):
        return True
    print(f"{out} is finished: nothing to do; {OVERWRITE} starts anew")  # noqa: T201
    return False


def manifest_before(args: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the run that these settings go on with; None if nothing tells of one."""
    out, asked = Path(args["output_dir"]), args.get("resume_from_checkpoint")
    places = [Path(asked)] if isinstance(asked, str) and Path(asked).is_dir() else [*reversed(checkpoints(out)), out]
    for place in places:
        if (place / "manifest.json").is_file():
            return read_json(place / "manifest.json", made_by="mimigenrec sft", kind=dict)
    return None


def going_on(args: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest to write: that of the run whose checkpoint these settings go on from, else this run's own."""
    before = None
    if not args.get("overwrite_output_dir") and checkpoints(Path(args["output_dir"])):
        before = manifest_before(args)
    return {**now, **{key: value for key, value in (before or {}).items() if key not in ("step", "ended")}}


def is_finished(out: Path) -> bool:
    """Whether all was written: the model, trainer_state.json, and "ended" in manifest.json, which one of an earlier
    version has not."""
    manifest = out / "manifest.json"
    if not manifest.is_file() or not (out / "trainer_state.json").is_file() or not has_weights(out):
        return False
    return read_json(manifest, made_by="mimigenrec sft", kind=dict).get("ended", True)


def comparable(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the facts that must be the same, too; those alone that the other one knows."""
    config, inputs = dict(manifest["config"]), dict(manifest["inputs"])
    if "base_weights" in manifest and "base_weights" in other:
        inputs["the base's weights"] = manifest["base_weights"]
    if "processes" in manifest and "processes" in other:
        config["processes (they share out the rows)"] = manifest["processes"]
    return {"config": config, "inputs": inputs}


def clear(out: Path) -> None:
    """Removes what an earlier run left, so that nothing of it is taken for the new one's, or gone on from."""
    for folder in [*checkpoints(out), *out.glob("unfinished-checkpoint-*")]:
        shutil.rmtree(folder)
    for pattern in OF_A_RUN:
        for path in out.glob(pattern):
            path.unlink()


def set_unfinished_aside(out: Path) -> None:
    """Renames the checkpoint that a kill or a full disk left half-written, so that the run goes on from a whole one.

    The trainer writes trainer_state.json last (transformers 4.57). One that was set aside before gives way.
    """
    for folder in checkpoints(out):
        state = folder / "trainer_state.json"
        whole = state.is_file() and state.read_bytes().rstrip().endswith(b"}")
        if whole and has_weights(folder):
            continue
        log.warning("%s is half-written; set aside as unfinished-%s", folder, folder.name)
        aside = folder.with_name(f"unfinished-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
