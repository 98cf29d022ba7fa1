"""The causal language model itself, under whatever wraps it."""

from torch import nn
from transformers import PreTrainedModel


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The model under DDP-like and PEFT wrappers; LoRA sits inside its layers and stays in force."""
    while not isinstance(model, PreTrainedModel):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return model
