"""Is the run of an output folder new, interrupted, finished, or another one? Answered before a model is loaded.

Its manifest.json, in output_dir from the first step on and in each checkpoint, says with which settings, data and base
the run began. A run that goes on keeps it. Settings in FREE, and where folders lie, may differ between its starts.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimigenrec.checkpoint import checkpoints, has_weights, remove_unfinished
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.lock import alone
from mimigenrec.training.run import FREE as FREE_IN_TRAINING
from mimigenrec.training.run import OVERWRITE, check_named, check_run, compare, refuse_others, remove_run

COMMAND = "sft"

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
    raises   UserError for an output_dir that holds another run, the result of another command, or a run at work
    Half-written checkpoints, which are of no use, are removed. What overwrite_output_dir replaces stays until the
    training begins (clear).
    """
    out, overwrite = Path(args["output_dir"]), bool(args.get("overwrite_output_dir"))
    refuse_others(out, COMMAND)
    if not args.get("do_train"):
        if checkpoints(out) or has_weights(out):
            raise UserError(f"{out} holds a trained run, whose results would be written over; take another output_dir")
        return True
    check_resume(args, now)
    with alone(out / ".lock", "another run"):
        check_run(out, now, FREE, overwrite)
        if overwrite:
            return True
        if is_finished(out):
            print(f"{out} is finished: nothing to do; {OVERWRITE} starts anew")  # noqa: T201
            return False
        remove_unfinished(out)
        if has_weights(out) and not checkpoints(out):
            raise UserError(
                f"{out} holds a model, and no checkpoint to go on from; take another output_dir, or {OVERWRITE} to "
                f"replace the model"
            )
    return True


def check_resume(args: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError if resume_from_checkpoint names a folder that is no whole checkpoint, or of another run."""
    named = args.get("resume_from_checkpoint")
    check_named(named, bool(args.get("overwrite_output_dir")))
    if named is True and not checkpoints(args["output_dir"]):
        raise UserError(
            f"resume_from_checkpoint is true, and {args['output_dir']} holds no checkpoint; leave it out: a run goes "
            f"on by itself where there is one"
        )
    if not isinstance(named, str):
        return
    if not (Path(named) / "manifest.json").is_file():
        log.warning("nothing tells with which settings %s was trained; going on from it", named)
        return
    before = read_json(Path(named) / "manifest.json", made_by="mimigenrec sft", kind=dict)
    compare(named, before, now, FREE, "leave out resume_from_checkpoint")


def clear(args: Mapping[str, Any]) -> None:
    """Removes the run that overwrite_output_dir replaces, so that nothing of it passes for the new one's. Last of all:
    a command that is refused has lost nothing."""
    if args.get("do_train") and args.get("overwrite_output_dir"):
        remove_run(args["output_dir"])


def going_on(args: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest to write: that of the run in output_dir where these settings go on with it, else this run's own."""
    manifest = Path(args["output_dir"]) / "manifest.json"
    if args.get("overwrite_output_dir") or not manifest.is_file() or not checkpoints(args["output_dir"]):
        return dict(now)
    before = read_json(manifest, made_by="mimigenrec sft", kind=dict)
    return {**now, **{key: value for key, value in before.items() if key not in ("step", "ended")}}


def is_finished(out: Path) -> bool:
    """Whether all was written: the model, trainer_state.json, and "ended" in manifest.json, which one of an earlier
    version has not."""
    manifest = out / "manifest.json"
    if not manifest.is_file() or not (out / "trainer_state.json").is_file() or not has_weights(out):
        return False
    return read_json(manifest, made_by="mimigenrec sft", kind=dict).get("ended", True)
