"""HR@50 of the SFT checkpoint as the line that RL must not fall below: a warning, and a rule that stops the run.

RL with a ranking reward can raise NDCG@10 by throwing out what it does not believe in: the list narrows and HR@50
falls. Step 0 measures the SFT checkpoint; every later evaluation is compared with it, by the log alone, so a resumed
run judges as one that was never stopped. min_gain asks of the step that is chosen to be better by more than chance.
"""

import logging

from transformers import TrainerCallback

from mimigenrec.errors import UserError

HR = "eval_hr@50"

log = logging.getLogger(__name__)


def sft_hr(history: list[dict]) -> float | None:
    """HR@50 of step 0; None where the log does not hold it."""
    return next((entry[HR] for entry in history if entry["step"] == 0 and HR in entry), None)


def breaks(hr: float, history: list[dict], drop: float) -> bool:
    """Is this HR@50 below the SFT checkpoint's by more than drop? Raises UserError if the log does not tell that."""
    start = sft_hr(history)
    if start is None:
        raise UserError(
            f"stop_hr50_drop={drop} has nothing to compare with: the log holds no {HR} of step 0. Start anew with "
            f"overwrite_output_dir and eval_on_start, or leave stop_hr50_drop out"
        )
    return hr < start - drop


def gains(metrics: dict, history: list[dict], name: str, least: float) -> bool:
    """Is this evaluation above that of the SFT checkpoint by more than least? name: the metric, higher is better."""
    start = next(entry[name] for entry in history if entry["step"] == 0 and name in entry)
    return metrics[name] - start > least


def stopped_at(history: list[dict], drop: float | None, patience: int) -> int | None:
    """The step of the last evaluation if it and the patience - 1 before it break the rule, else None."""
    later = [entry for entry in history if HR in entry and entry["step"] > 0][-patience:]
    stop = drop is not None and len(later) == patience and all(breaks(entry[HR], history, drop) for entry in later)
    return later[-1]["step"] if stop else None


class StopRule(TrainerCallback):
    """Warns of each evaluation below the SFT checkpoint; stops after `patience` in a row that break the rule."""

    def __init__(self, drop: float | None, patience: int):
        self.drop, self.patience = drop, patience

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        start, hr = sft_hr(state.log_history), metrics.get(HR)
        if start is not None and hr is not None and hr < start and state.is_world_process_zero:
            log.warning(
                "step %d: HR@50 %.4f is below the SFT checkpoint's %.4f: the list narrows. Lower learning_rate or "
                "raise beta, or keep the best checkpoint with load_best_model_at_end and metric_for_best_model",
                state.global_step,
                hr,
                start,
            )
        if stopped_at(state.log_history, self.drop, self.patience) is not None:
            control.should_training_stop = True
            if state.is_world_process_zero:
                log.warning(
                    "stopping at step %d: HR@50 was below %.4f - stop_hr50_drop=%g in %d evaluations in a row",
                    state.global_step,
                    start,
                    self.drop,
                    self.patience,
                )
