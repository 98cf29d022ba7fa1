"""A run's numbers: one line per event in rl_log.jsonl or LLaMA-Factory's trainer_log.jsonl, also after a resume."""

from pathlib import Path

from transformers import TrainerCallback

from mimigenrec.logs import JsonlWriter, cut_back

LOG_FILE = "rl_log.jsonl"


class RunLog(TrainerCallback):
    """One line per log event: {"step", "epoch", "loss", "reward", "eval_ndcg@10", ...}.

    A resumed run first drops the lines behind the checkpoint it goes on from, and the summary of an end that was not
    reached, so that nothing stands there twice.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            last = state.global_step if state.log_history else -1
            cut_back(Path(args.output_dir) / LOG_FILE, "step", last, summary="train_runtime")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            with JsonlWriter(Path(args.output_dir) / LOG_FILE) as writer:
                writer.write({"step": state.global_step, **logs})


class CutLogBack(TrainerCallback):
    """LLaMA-Factory's log keeps the steps behind the checkpoint that a run goes on from, which are taken once more."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            cut_back(Path(args.output_dir) / "trainer_log.jsonl", "current_steps", state.global_step or -1)


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
