"""Settings of GRPO that TRL refuses late, below a traceback, or takes in silence: ranges of numbers, texts with a few
choices, and by what the best model is chosen."""

import re

from mimigenrec.errors import UserError
from mimigenrec.training.settings import TRL_RANGES

# Besides those of every training by TRL, numbers of GRPOConfig.
RANGES = TRL_RANGES | {
    "max_prompt_length": {"least": 1},
    "generation_batch_size": {"least": 1},
    "steps_per_generation": {"least": 1},
    "temperature": {"above": 0},
    "top_p": {"above": 0, "most": 1},
    "top_k": {"least": 0},
    "min_p": {"least": 0, "most": 1},
    "repetition_penalty": {"above": 0},
    "num_iterations": {"least": 1},
    "epsilon": {"above": 0},
    "epsilon_high": {"above": 0},
    "delta": {"above": 1},  # a ratio of 1, that of the policy that rolled out, would be cut and have no gradient
    "ref_model_mixup_alpha": {"least": 0, "most": 1},
    "ref_model_sync_steps": {"least": 1},
    "top_entropy_quantile": {"least": 0, "most": 1},
    "num_completions_to_print": {"least": 1},
}

# Texts that TRL 0.24 looks at only when a loss is computed.
CHOICES = {
    "scale_rewards": ("group", "batch", "none"),
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo"),
    "importance_sampling_level": ("token", "sequence"),
}

# What validation gives.
BEST = re.compile(r"(eval_)?(hr|ndcg)@(10|50)")


def check_choices(args) -> None:
    """Raises UserError for a text that TRL does not know. `true` and `false` of a YAML are TRL's own."""
    written = str(args.scale_rewards).lower()
    args.scale_rewards = {"true": "group", "false": "none"}.get(written, args.scale_rewards)
    for name, known in CHOICES.items():
        if getattr(args, name) not in known:
            raise UserError(f"--{name} is {getattr(args, name)!r}; choose one of {', '.join(known)}")


def check_best_metric(args) -> None:
    """Raises UserError if the best model would be chosen by what validation does not give, or the worst be chosen."""
    if not args.load_best_model_at_end and args.save_strategy != "best":
        return
    if not BEST.fullmatch(args.metric_for_best_model or ""):
        raise UserError(
            f"--metric_for_best_model is {args.metric_for_best_model!r}, which validation does not give; choose "
            f"eval_ndcg@10, eval_ndcg@50, eval_hr@10 or eval_hr@50"
        )
    if args.greater_is_better is False:
        raise UserError("--greater_is_better is false: of HR and NDCG the lowest is the worst; leave it out")
