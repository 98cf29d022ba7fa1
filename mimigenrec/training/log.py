"""A run's numbers: one line per event in rl_log.jsonl or LLaMA-Factory's trainer_log.jsonl, also after a resume."""

import json
from pathlib import Path

from transformers import TrainerCallback

from mimigenrec.files import writing
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


class CutLogBack(TrainerCallback):
    """LLaMA-Factory's log keeps the steps behind the checkpoint that a run goes on from, which are taken once more."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            cut_back(Path(args.output_dir) / "trainer_log.jsonl", state.global_step)


def cut_back(path: Path, step: int) -> None:
    """Leaves out of trainer_log.jsonl what comes behind a step."""
    if path.is_file():
        kept = [line for line in read_jsonl(path) if step and line.get("current_steps", 0) <= step]
        with writing(path) as out:
            out.writelines(json.dumps(line) + "\n" for line in kept)


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
