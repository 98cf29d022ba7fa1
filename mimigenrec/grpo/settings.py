"""Settings of TRL and transformers that they refuse late, below a traceback, or take in silence: ranges of numbers,
texts with a few choices, maps, schedules, and by what the best model is chosen."""

import json
import re
from dataclasses import fields

import torch
from transformers import get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_pt_utils import AcceleratorConfig

from mimigenrec.cli import check_range
from mimigenrec.errors import UserError
from mimigenrec.training.settings import RANGES as RANGES_IN_TRAINING

# Besides those of every training, numbers that are TRL's and transformers'. All others must be finite.
RANGES = RANGES_IN_TRAINING | {
    "eval_accumulation_steps": {"least": 1},
    "eval_delay": {"least": 0},
    "torch_empty_cache_steps": {"least": 1},
    "adam_beta1": {"least": 0, "below": 1},
    "adam_beta2": {"least": 0, "below": 1},
    "adam_epsilon": {"least": 0},
    "max_steps": {"least": -1},
    "save_total_limit": {"least": 1},
    "data_seed": {"least": 0, "most": 2**32 - 1},
    "dataloader_num_workers": {"least": 0},
    "dataloader_prefetch_factor": {"least": 1},
    "ddp_timeout": {"least": 1},
    "ddp_bucket_cap_mb": {"least": 1},
    "neftune_noise_alpha": {"above": 0},
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

# Settings that are maps, and whether a path of a JSON file may stand in their place.
MAPS = {
    "lr_scheduler_kwargs": False,
    "model_init_kwargs": False,
    "gradient_checkpointing_kwargs": False,
    "liger_kernel_config": False,
    "generation_kwargs": False,
    "accelerator_config": True,
    "fsdp_config": True,
    "deepspeed": True,
}

# What validation gives.
BEST = re.compile(r"(eval_)?(hr|ndcg)@(10|50)")


def check_numbers(args) -> None:
    """Raises UserError for a number outside its range, that of the field itself (cli.arg) or that of RANGES."""
    for one in fields(args):
        bounds = one.metadata.get("range") or RANGES.get(one.name, {})
        check_range(f"--{one.name}", getattr(args, one.name), **bounds)
    if args.max_steps == 0:
        raise UserError("--max_steps is 0; give a number of steps, or -1 to train num_train_epochs")


def check_maps(args) -> None:
    """Raises UserError for a setting that holds keys and values, and is no such map: transformers would fail with the
    bare error of whatever reads it first. A path of a JSON file is transformers' business."""
    for name, may_be_path in MAPS.items():
        value = getattr(args, name)
        if isinstance(value, str) and may_be_path and not value.lstrip().startswith("{"):
            continue
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                pass
        if value is not None and not isinstance(value, dict):
            raise UserError(f'--{name} is {value!r}; it must be a map of keys to values in JSON, such as {{"key": 1}}')
        known = {one.name for one in fields(AcceleratorConfig)} if name == "accelerator_config" else value
        if unknown := sorted(set(value or ()) - set(known or ())):
            raise UserError(f"--{name} has the key {unknown[0]!r}; it takes {', '.join(sorted(known))}")


def check_optimisation(args) -> None:
    """Raises UserError for a schedule or settings of the optimizer that cannot be made; args: after its own checks."""
    for part in (args.optim_args or "").replace(" ", "").split(","):
        if part and part.count("=") != 1:
            raise UserError(f"--optim_args has {part!r}; write key=value, several with commas between them")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], args.learning_rate)
    settings = args.lr_scheduler_kwargs or {}
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 1, 2, scheduler_specific_kwargs=dict(settings))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value} with --lr_scheduler_kwargs {settings} cannot be "
            f"made: {error}"
        ) from error
    dtype = (args.model_init_kwargs or {}).get("dtype")
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"--model_init_kwargs: dtype is {dtype!r}; choose auto, float32, bfloat16 or float16")
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"--report_to has {name!r}; choose from none, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )


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
