"""What happens beside training: numbers to rl_log.jsonl, checkpoints made self-contained, save steps checked."""

import json
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mimigenrec.decoding.model import copy_companions
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.grpo.checks import check_save_steps
from mimigenrec.logs import JsonlWriter, read_jsonl

LOG_FILE = "rl_log.jsonl"


class RunLog(TrainerCallback):
    """One line per log event: {"step", "epoch", "loss", "reward", "eval_ndcg@10", ...}.

    A resumed run first drops the lines behind the checkpoint it goes on from, so that no step stands there twice.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            path = Path(args.output_dir) / LOG_FILE
            kept = [event for event in read_jsonl(path) if event["step"] <= state.global_step] if path.exists() else []
            with writing(path) as out:
                out.writelines(json.dumps(event) + "\n" for event in (kept if state.log_history else []))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            with JsonlWriter(Path(args.output_dir) / LOG_FILE) as writer:
                writer.write({"step": state.global_step, **logs})


class SelfContained(TrainerCallback):
    """Copies id2sid.json, items.json, prompt_contract.json and the manifest from output_dir into each checkpoint."""

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            output = Path(args.output_dir)
            checkpoint = output / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            copy_companions(output, checkpoint)
            manifest = read_json(output / "manifest.json", made_by="mimigenrec grpo")
            write_json(checkpoint / "manifest.json", {**manifest, "step": state.global_step})


class SaveBetweenGenerations(TrainerCallback):
    """Refuses save steps that would fall inside a generation batch.

    TRL keeps the batch's rollouts in memory only, so a run resumed there would roll out anew and train on other rows
    than the run that was never stopped.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        every = {"steps": ("save_steps", state.save_steps), "best": ("eval_steps", state.eval_steps)}
        if args.save_strategy in every:
            check_save_steps(*every[args.save_strategy], args)
