"""LoRA: settings checked against the model, and SID rows that are trained beside it.

PEFT's trainable_token_indices trains single rows of a matrix: {"embed_tokens": [ids]} for a base whose head is tied to
the embeddings (PEFT ties the rows too), and the same ids under "lm_head" for one whose head is its own.
"""

from collections.abc import Sequence

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mimigenrec.errors import UserError


def lora_config(r: int, alpha: int, dropout: float, targets: Sequence[str]) -> LoraConfig | None:
    """LoRA on modules of these names, or on ["all-linear"]; None for r 0. The embeddings stay as they are."""
    if not r:
        return None
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if list(targets) == ["all-linear"] else list(targets),
        task_type="CAUSAL_LM",
    )


def check_targets(model: str, names: Sequence[str]) -> None:
    """Raises UserError for a lora_target that is no module of the model; peft would say so below a traceback."""
    modules = {name.rpartition(".")[2] for name, _ in without_weights(model).named_modules() if name}
    for name in names:
        if name not in modules and names != ["all-linear"]:
            known = sorted(module for module in modules if not module.isdigit())
            raise UserError(f"--lora_target {name!r} is no module of the model; choose from {', '.join(known)}")


def embedding_names(model: PreTrainedModel) -> list[str]:
    """Last parts of the module names of input embeddings and head: ["embed_tokens", "lm_head"] for most models."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [name.rpartition(".")[2] for end in ends for name, module in model.named_modules() if module is end]


def row_indices(model: PreTrainedModel, token_ids: Sequence[int]) -> dict[str, list[int]]:
    """What trainable_token_indices says to train the rows of these tokens wherever the model has them."""
    names = embedding_names(model)
    return {name: sorted(token_ids) for name in (names[:1] if model.config.tie_word_embeddings else names)}


def without_weights(model: str) -> nn.Module:
    """Its modules, on the device "meta"."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
