"""A metric of the model that training starts from as the line that RL must not fall below: a warning, and a rule that
stops the run.

For lists of items it is HR@50: RL with a ranking reward can raise NDCG@10 by throwing out what it does not believe in,
so the list narrows and HR@50 falls. Step 0 measures the SFT checkpoint; every later evaluation is compared with it, by
the log alone, so a resumed run judges as one that was never stopped. min_gain asks of the step that is chosen to be
better by more than chance.
"""

import logging
from typing import NamedTuple

from transformers import TrainerCallback

from mimigenrec.errors import UserError

log = logging.getLogger(__name__)


class Guard(NamedTuple):
    """What must not fall; higher is better."""

    metric: str  # as the log has it, "eval_hr@50"
    option: str  # the setting that `drop` comes from, for messages
    drop: float | None  # below the start by more than this breaks the rule; None: only a warning
    patience: int = 2  # evaluations in a row that must break it to stop the run
    min_gain: float = 0.0  # a step is chosen as the best only if it is above the start by more than this
    means: str = ""  # what a fall means, for the warning

    @property
    def name(self) -> str:
        return self.metric.removeprefix("eval_").upper()

    def start(self, history: list[dict]) -> float | None:
        """Its value at step 0; None where the log does not hold it."""
        return next((entry[self.metric] for entry in history if entry["step"] == 0 and self.metric in entry), None)


def hr_guard(args) -> Guard:
    """That of RLConfig."""
    return Guard(
        "eval_hr@50", "stop_hr50_drop", args.stop_hr50_drop, args.stop_patience, args.min_gain, ": the list narrows"
    )


def breaks(value: float, history: list[dict], guard: Guard) -> bool:
    """Is this value below the start by more than guard.drop? Raises UserError if the log does not tell that."""
    start = guard.start(history)
    if start is None:
        raise UserError(
            f"{guard.option}={guard.drop} has nothing to compare with: the log holds no {guard.metric} of step 0. "
            f"Start anew with overwrite_output_dir and eval_on_start, or leave {guard.option} out"
        )
    return value < start - guard.drop


def gains(metrics: dict, history: list[dict], name: str, least: float) -> bool:
    """Is this evaluation above that of the start by more than least? name: the metric, higher is better."""
    start = next(entry[name] for entry in history if entry["step"] == 0 and name in entry)
    return metrics[name] - start > least


def stopped_at(history: list[dict], guard: Guard) -> int | None:
    """The step of the last evaluation if it and the patience - 1 before it break the rule, else None."""
    if guard.drop is None:
        return None
    later = [entry for entry in history if guard.metric in entry and entry["step"] > 0][-guard.patience :]
    broken = len(later) == guard.patience and all(breaks(entry[guard.metric], history, guard) for entry in later)
    return later[-1]["step"] if broken else None


class StopRule(TrainerCallback):
    """Warns of each evaluation below the start; stops after `patience` in a row that break the rule."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        guard, start, value = self.guard, self.guard.start(state.log_history), metrics.get(self.guard.metric)
        if start is not None and value is not None and value < start and state.is_world_process_zero:
            log.warning(
                "step %d: %s %.4f is below the SFT checkpoint's %.4f%s. Lower learning_rate or raise beta, or keep "
                "the best checkpoint with load_best_model_at_end and metric_for_best_model",
                state.global_step,
                guard.name,
                value,
                start,
                guard.means,
            )
        if stopped_at(state.log_history, guard) is not None:
            control.should_training_stop = True
            if state.is_world_process_zero:
                log.warning(
                    "stopping at step %d: %s was below %.4f - %s=%g in %d evaluations in a row",
                    state.global_step,
                    guard.name,
                    start,
                    guard.option,
                    guard.drop,
                    guard.patience,
                )
