"""Loads a stock causal language model, or says why its files do not hold one.

transformers fills a weight that a file lacks with random numbers and goes on with a remark in the log; a weight that
the architecture does not know it leaves out. Here both stop. `check_complete` asks transformers itself, on the device
"meta", so that nothing but the heads of the files is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import logging as transformers_logging

from mimigenrec.checkpoint import WEIGHTS, check_files, parts
from mimigenrec.errors import UserError
from mimigenrec.hub import is_folder

# What transformers raises for a config.json or weights that are no model of its own.
NO_MODEL = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def load_causal_lm(folder: str | Path, dtype="auto", revision: str = "main"):
    """A stock causal language model with every weight from its files, all of them finite.

    folder     a folder, or a name on the Hugging Face hub
    dtype      as AutoModelForCausalLM.from_pretrained takes it
    revision   of a model on the hub
    raises     FileNotFoundError, and UserError naming the file or the weight, as check_complete and check_finite do
    """
    check_complete(folder, revision)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, revision=revision)
    check_finite(model, folder)
    return model


def check_complete(folder: str | Path, revision: str = "main") -> None:
    """Raises UserError unless the files hold every weight that the architecture in config.json has, and no other.

    A weight that is tied to another need not be there. Files that are missing, cut short or no model are named. Under
    ZeRO-3, where transformers takes no device, only the files are looked at.
    """
    if is_folder(folder, "model"):
        check_files(Path(folder))
    if is_deepspeed_zero3_enabled():
        return
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, revision=revision)
            options = {"config": config, "revision": revision, "device_map": "meta", "ignore_mismatched_sizes": True}
            info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)[1]
    except NO_MODEL as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"transformers cannot load {folder} as a causal language model ({type(error).__name__}: {reason}). Put "
            f"config.json and the weights back as they were saved, or take another checkpoint"
        ) from error
    kinds = {
        "missing_keys": "lack {count} of the weights that config.json asks for, {first} first; they would be random",
        "mismatched_keys": "hold {count} of the weights in another shape than config.json says, {first} first",
        "unexpected_keys": "hold {count} weights that the architecture in config.json does not have, {first} first",
    }
    for kind, text in kinds.items():
        if found := sorted(key if isinstance(key, str) else key[0] for key in info[kind]):
            raise UserError(
                f"the files of {folder} {text.format(count=len(found), first=found[0])}. config.json and weights are "
                f"not from the same model, or the copy is not whole: copy the checkpoint again, or take another"
            )


def check_finite(model: nn.Module, name: str | Path) -> None:
    """Raises UserError naming the first parameter that holds NaN or infinity. 0.1 s for 0.5B parameters on one core.

    name   of the model, for the message
    """
    bad = [key for key, weight in model.named_parameters() if not _is_finite(weight)]
    if bad:
        total = sum(1 for _ in model.parameters())
        raise UserError(
            f"{name}: {len(bad)} of {total} weights hold NaN or infinity, {bad[0]} first, so nothing can be ranked "
            f"with this model. Look at the loss that its training logged; take a checkpoint from before it diverged, "
            f"or train again with a smaller learning rate"
        )


def check_finite_files(folder: str | Path) -> None:
    """The same of a folder's safetensors, one tensor at a time; a hub name and other formats are not looked at."""
    for name in WEIGHTS[:2]:
        for path in parts(Path(folder) / name) if (Path(folder) / name).is_file() else []:
            with safe_open(path, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118  it is no dict
                    if not _is_finite(weights.get_tensor(key)):
                        raise UserError(
                            f"{path}: the weight {key} holds NaN or infinity, so nothing can be trained from this "
                            f"model; take another one, or a checkpoint from before its training diverged"
                        )


def _is_finite(weight: torch.Tensor) -> bool:
    """By its smallest and largest number: both are NaN where one number is. isfinite() is ten times slower."""
    weight = getattr(weight, "ds_tensor", weight)  # under ZeRO-3, this process's part
    if weight.element_size() == 1 and weight.is_floating_point():
        weight = weight.float()  # torch takes no minimum of 8 bits
    if not weight.numel() or not weight.is_floating_point() or weight.is_meta:
        return True
    return bool(torch.isfinite(torch.stack(weight.detach().aminmax())).all())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks and the progress bar of transformers, whose matter is told in an error of ours."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
