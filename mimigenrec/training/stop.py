"""What ends a training before its last step: it is at its end already, or its numbers hold no longer."""

import math

from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from mimigenrec.decoding.weights import check_finite
from mimigenrec.errors import UserError
from mimigenrec.training.run import OVERWRITE


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
