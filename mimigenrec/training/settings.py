"""Settings of transformers' TrainingArguments: defaults of ours, and what would be refused late or taken in silence.

TrainingSettings stands before a config class of TRL: class RLConfig(TrainingSettings, GRPOConfig).

| option | transformers, TRL 0.24 | here | because |
| --- | --- | --- | --- |
| bf16 | true (TRL) | true where the GPU has it, else false | true stops a run without a GPU |
| eval_on_start | false | true if there is an eval_strategy | step 0 is the model that the training starts from |
| report_to | all installed | none | nothing is sent that was not asked for |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from transformers import get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_pt_utils import AcceleratorConfig

from mimigenrec.cli import arg, check_range
from mimigenrec.errors import UserError
from mimigenrec.extras import need, need_reporters

# Numbers of transformers' TrainingArguments: outside of these they would be refused late, below a traceback, or train
# on nothing without a word.
RANGES = {
    "gradient_accumulation_steps": {"least": 1},
    "weight_decay": {"least": 0},
    "max_grad_norm": {"least": 0},
    "warmup_ratio": {"least": 0, "most": 1},
    "warmup_steps": {"least": 0},
    "logging_steps": {"above": 0},
    "save_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "seed": {"least": 0, "most": 2**32 - 1},
}

# Besides those, numbers that only trainings by TRL look at. All others must be finite.
TRL_RANGES = RANGES | {
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


@dataclass
class TrainingSettings:
    """Fields of TrainingArguments with defaults of ours. To be inherited before a class with these fields."""

    eval_on_start: bool | None = arg(
        "measure first the model that training starts from (default: if eval_strategy is set)", default=None
    )
    overwrite_output_dir: bool = arg(
        "replace the run that output_dir holds, its checkpoints included; to continue one, leave this out",
        default=False,
    )

    def __post_init__(self):
        """Raises UserError naming the setting to change, as transformers and TRL do for those they check."""
        check_numbers(self)
        check_maps(self)
        if self.bf16 is None and not self.fp16:
            self.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        if self.report_to is None:
            self.report_to = "none"
        need_reporters(self.report_to)
        if self.deepspeed:
            need("deepspeed", f"deepspeed: {self.deepspeed}")
        measure_first = self.eval_on_start
        self.eval_on_start = bool(measure_first)
        super().__post_init__()
        if measure_first is None:
            self.eval_on_start = self.eval_strategy != "no"
        check_optimisation(self)


def check_numbers(args, ranges: Mapping[str, Mapping[str, float]] = TRL_RANGES) -> None:
    """Raises UserError for a number outside its range, that of the field itself (cli.arg) or that of ranges."""
    for one in fields(args):
        bounds = one.metadata.get("range") or ranges.get(one.name, {})
        check_range(f"--{one.name}", getattr(args, one.name), **bounds)
    if args.max_steps == 0:
        raise UserError("--max_steps is 0; give a number of steps, or -1 to train num_train_epochs")


def check_maps(args) -> None:
    """Raises UserError for a setting that holds keys and values, and is no such map: transformers would fail with the
    bare error of whatever reads it first. A path of a JSON file is transformers' business."""
    for name, may_be_path in MAPS.items():
        value = getattr(args, name, None)  # not every class has all of them
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
    dtype = (getattr(args, "model_init_kwargs", None) or {}).get("dtype")
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"--model_init_kwargs: dtype is {dtype!r}; choose auto, float32, bfloat16 or float16")
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"--report_to has {name!r}; choose from none, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )
