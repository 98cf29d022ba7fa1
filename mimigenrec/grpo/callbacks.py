"""What happens beside training: numbers to rl_log.jsonl, checkpoints made self-contained, save steps checked."""

import json
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mimigenrec.decoding.adapter import write_base
from mimigenrec.decoding.model import copy_companions
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.grpo.checks import check_save_steps
from mimigenrec.logs import JsonlWriter, read_jsonl

LOG_FILE = "rl_log.jsonl"


class RunLog(TrainerCallback):
    """One line per log event: {"step", "epoch", "loss", "reward", "eval_ndcg@10", ...}.

    A resumed run first drops the lines behind the checkpoint it goes on from, and the summary of an end that was not
    reached, so that nothing stands there twice.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            path = Path(args.output_dir) / LOG_FILE
            events = read_jsonl(path) if path.exists() and state.log_history else []
            kept = [event for event in events if event["step"] <= state.global_step and "train_runtime" not in event]
            with writing(path) as out:
                out.writelines(json.dumps(event) + "\n" for event in kept)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            with JsonlWriter(Path(args.output_dir) / LOG_FILE) as writer:
                writer.write({"step": state.global_step, **logs})


class SelfContained(TrainerCallback):
    """Completes each checkpoint when it is written. base: see complete."""

    def __init__(self, base: tuple[str, str] | None):
        self.base = base

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            complete(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", self.base)


def complete(output_dir: str, name: str, base: tuple[str, str] | None) -> None:
    """Copies id2sid.json, items.json, prompt_contract.json and the manifest of output_dir into its checkpoint `name`.

    base     of a LoRA adapter, the model that RL started from and its identity; base.json then says where that lies
    """
    output, checkpoint = Path(output_dir), Path(output_dir) / name
    copy_companions(output, checkpoint)
    manifest = read_json(output / "manifest.json", made_by="mimigenrec grpo", kind=dict)
    write_json(checkpoint / "manifest.json", {**manifest, "step": int(name.rpartition("-")[2])})
    if base:
        write_base(checkpoint, *base)


class SaveBetweenGenerations(TrainerCallback):
    """Refuses save steps that would fall inside a generation batch.

    TRL keeps the batch's rollouts in memory only, so a run resumed there would roll out anew and train on other rows
    than the run that was never stopped.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        every = {"steps": ("save_steps", state.save_steps), "best": ("eval_steps", state.eval_steps)}
        if args.save_strategy in every:
            check_save_steps(*every[args.save_strategy], args)
