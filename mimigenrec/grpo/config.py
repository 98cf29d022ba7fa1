"""TRL's GRPOConfig with the defaults of this task. Every option of TRL stays what it is.

| option | TRL 0.24 | here | because |
| --- | --- | --- | --- |
| num_generations, num_train_epochs | 8, 3 | 16, 2 | MiniOneRec's rl.sh and MIMIGenRec's trl_trainer.sh |
| learning_rate, beta | 1e-6, 0 | 1e-5, 1e-3 | the same two |
| per_device_train_batch_size | 8 | 16 | one group |
| per_device_eval_batch_size | 8 | num_generations | TRL wants a multiple; here it is prompts per search |
| max_completion_length | 256 | levels of the deepest SID + 1 | dr_grpo divides by it |

bf16, eval_on_start and report_to are those of training/settings.py. docs/rl.md explains what is ours, ce_coef to
min_gain.
"""

from dataclasses import dataclass

from trl import GRPOConfig

from mimigenrec.cli import arg
from mimigenrec.grpo.checks import check_remedies, check_whole_groups
from mimigenrec.grpo.settings import RANGES, check_best_metric, check_choices
from mimigenrec.training.settings import TrainingSettings, check_numbers


@dataclass
class GroupConfig(TrainingSettings, GRPOConfig):
    """Of a GroupTrainer: TRL's settings, what it refuses late refused early, and the one setting of all groups."""

    dynamic_sampling_rounds: int = arg(
        "how often groups still without signal are exchanged for other prompts that have one; 0 is off",
        default=0,
        least=0,
    )

    def __post_init__(self):
        """Raises UserError naming the setting to change, as TRL does for those it checks itself."""
        check_numbers(self, RANGES)
        if self.per_device_eval_batch_size is None:
            self.per_device_eval_batch_size = self.num_generations
        if self.generation_batch_size is None:
            steps = self.steps_per_generation or self.gradient_accumulation_steps
            check_whole_groups(self.per_device_train_batch_size * steps, self.num_generations)
        super().__post_init__()
        check_choices(self)


@dataclass
class RLConfig(GroupConfig):
    """Optimisation, logging, saving: the fields of TRL's GRPOConfig, with defaults for SIDs (see grpo/config.py)."""

    num_generations: int = arg("G, rollouts per prompt", default=16, least=2)
    num_train_epochs: float = arg("passes over the prompts", default=2.0, above=0)
    learning_rate: float = arg("peak learning rate", default=1e-5, above=0)
    beta: float = arg("weight of the KL to the SFT checkpoint; 0 loads no reference model", default=1e-3, least=0)
    per_device_train_batch_size: int = arg("rollouts per forward and process", default=16, least=1)
    per_device_eval_batch_size: int | None = arg(
        "prompts per search in evaluation (default: num_generations)", default=None, least=1
    )
    max_completion_length: int | None = arg(
        "tokens of a completion (default: deepest SID and EOS)", default=None, least=1
    )
    ce_coef: float = arg(
        "weight of cross-entropy on the target's SID beside the RL loss; 0 is off", default=0.0, least=0
    )
    add_target: bool = arg("the target takes the place of the last rollout of a group that misses it", default=False)
    hints: bool = arg(
        "groups without signal are rolled out anew below the first tokens of their target, as few as give a signal",
        default=False,
    )
    stop_hr50_drop: float | None = arg(
        "stop when HR@50 on valid is below the SFT checkpoint's by more than this (default: never)",
        default=None,
        least=0,
    )
    stop_patience: int = arg("evaluations in a row that must be below it", default=2, least=1)
    min_gain: float = arg(
        "with stop_hr50_drop: only a step whose metric_for_best_model is above the SFT checkpoint's by more than this "
        "is chosen; the best of many evaluations is above it by chance",
        default=0.0,
        least=0,
    )

    def __post_init__(self):
        """Raises UserError naming the setting to change, as TRL does for those it checks itself."""
        super().__post_init__()
        check_best_metric(self)
        check_remedies(self)
