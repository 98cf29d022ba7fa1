"""A LoRA adapter and its base -> a whole checkpoint, which RL, evaluation and anything else take without PEFT.

    mimigenrec merge --model saves/x/lora --output saves/x/merged

The folder holds config.json, generation_config.json, model.safetensors in the base's dtype and in one file, tokenizer
and companions of the adapter, and manifest.json with what was measured:

    "logits": {"rows", "largest", "difference", "adapter", "tolerance"}

rows         token rows that adapter and merged model both read: prompts of its training, and rows of its added tokens
largest      the largest absolute logit of the adapter on them
difference   the largest difference between the adapter's logits and those of the folder, as loaded from the disk
adapter      the largest difference that the adapter makes to its base
tolerance    what difference may be: TOLERANCE of its dtype * largest. Above it nothing is written
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimigenrec.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, copy_companions, is_adapter
from mimigenrec.claim import claim_folder, replace_folder, temporary_of
from mimigenrec.cli import arg, start
from mimigenrec.contract import proven_tokenizer, read_contract
from mimigenrec.decoding.adapter import base_place, identity, load_adapter
from mimigenrec.decoding.weights import check_finite, load_causal_lm
from mimigenrec.errors import UserError
from mimigenrec.files import write_json
from mimigenrec.hub import is_folder
from mimigenrec.manifest import make_manifest

COMMAND = "merge"
FREE = ("model", "output", "base", "overwrite")  # of model and base the content is compared

# Share of the largest logit by which adapter and merged model may differ. A merged weight is rounded to its dtype,
# which has 24, 11 or 8 bits.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

LENGTH = 32  # tokens of a compared row
PROMPTS, ADDED = 16, 512  # prompts, and added tokens, that are compared at most

log = logging.getLogger(__name__)


@dataclass
class MergeConfig:
    """A LoRA adapter and its base -> a whole checkpoint with companions and manifest."""

    model: Path = arg("folder of the LoRA adapter, as sft or grpo wrote it")
    output: Path = arg("folder to write")
    base: str | None = arg("where the adapter's base lies now (default: where it lay in training)", default=None)
    overwrite: bool = arg("replace an earlier result of this command; anything else is refused", default=False)


def main(config: MergeConfig) -> None:
    logits = merge(config)
    if logits:
        print(
            f"{config.output}: logits differ from the adapter's by {logits['difference']:.2g} at most "
            f"({logits['tolerance']:.2g} is allowed), and the adapter's from its base's by {logits['adapter']:.2g}"
        )


def merge(config: MergeConfig) -> dict[str, Any] | None:
    """Writes config.output whole or not at all; returns what was measured, None where it is there already.

    Raises UserError for a folder that is no adapter, another base than the adapter's, weights that are NaN or
    infinite, a quantised base, an output that holds something else, and a merged model that answers otherwise.
    """
    is_folder(config.model, "--model")
    if not is_adapter(config.model):
        raise UserError(
            f"--model {config.model} is no LoRA adapter ({ADAPTER_CONFIG} is missing); a whole model is used as it is"
        )
    now = manifest(config)
    if not claim_folder(config.output, now, ("config.json", "model.safetensors"), FREE, config.overwrite):
        return None
    tokenizer = proven_tokenizer(config.model)
    model = load_adapter(config.model, config.base).eval()
    base = model.get_base_model()
    if getattr(base, "is_quantized", False):
        raise UserError(
            f"the base of {config.model} is quantised, and what is added to such weights is rounded away; give --base "
            f"with the folder of the same model without quantisation"
        )
    dtype = base.config.dtype
    rows = compared_rows(tokenizer, config.model)
    with model.disable_adapter():
        plain = list(logits_of(model, rows))
    adapted = list(logits_of(model, rows))
    moved = largest_difference(adapted, plain)
    del plain
    merged = model.merge_and_unload().to(dtype)
    check_finite(merged, config.model)

    new = temporary_of(config.output)
    try:
        merged.save_pretrained(new, max_shard_size="1000GB")
        del merged, model, base
        tokenizer.save_pretrained(new)
        copy_companions(config.model, new)
        written = load_causal_lm(new).eval()
        largest = max(float(logits.abs().max()) for logits in adapted)
        facts = {
            "rows": len(rows),
            "largest": largest,
            "difference": largest_difference(adapted, logits_of(written, rows)),
            "adapter": moved,
            "tolerance": TOLERANCE.get(dtype, TOLERANCE[torch.float32]) * largest,
        }
        check_same_answers(facts, config.model)
        write_json(new / "manifest.json", {**now, "logits": facts})
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    replace_folder(new, config.output)
    return facts


def manifest(config: MergeConfig) -> dict[str, Any]:
    """All that the result depends on. Raises UserError for a base that is missing."""
    read = [config.model / name for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS)]
    now = make_manifest(config, [path for path in read if path.is_file()], None, command=COMMAND)
    now["inputs"]["the base's weights"] = identity(base_place(config.model, config.base), "--base")
    contract = read_contract(config.model)
    return {**now, "contract": contract.hash if contract else None}


def compared_rows(tokenizer, folder: Path) -> list[list[int]]:
    """Token rows of LENGTH at most: ends of prompts that the contract remembers, and all added tokens, or ADDED of
    them at even distances; for an adapter with neither, the vocabulary's own first tokens."""
    contract = read_contract(folder)
    prompts = [list(ids)[-LENGTH:] for _, ids in contract.golden[:PROMPTS]] if contract else []
    added = sorted(tokenizer.get_added_vocab().values())
    added = added[:: -(-len(added) // ADDED)] if added else []
    rows = [added[first : first + LENGTH] for first in range(0, len(added), LENGTH)]
    return [*prompts, *rows] or [list(range(min(LENGTH, len(tokenizer))))]


@torch.no_grad()
def logits_of(model: nn.Module, rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """(T, V) of each row, in the model's dtype. Raises UserError where they are not finite."""
    for row in rows:
        logits = model(torch.tensor([row], device=model.device)).logits[0]
        if not torch.isfinite(logits).all():
            raise UserError(
                "the model's logits are NaN or infinite, so it cannot be told what a merge would give; take a "
                "checkpoint from before its training diverged"
            )
        yield logits


def largest_difference(ones, others) -> float:
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(ones, others, strict=True))


def check_same_answers(facts: Mapping[str, float], adapter: Path) -> None:
    """Raises UserError if the merged model's logits are not the adapter's; warns where rounding weighs as much."""
    if not facts["difference"] <= facts["tolerance"]:
        raise UserError(
            f"merged, {adapter} answers otherwise: logits differ by {facts['difference']:.3g}, more than the "
            f"{facts['tolerance']:.3g} of rounding, so nothing was written. An adapter that trained the embeddings of "
            f"a model whose head is tied to them cannot be merged: train it again with lora_sid_rows: true, or on a "
            f"base with a head of its own (sid_untie: true)"
        )
    if facts["difference"] > facts["adapter"] / 2:
        log.warning(
            "%s moved the logits of its base by %.2g, and rounding the merged weights moves them by %.2g: train it "
            "longer, or merge it on a base in float32",
            adapter,
            facts["adapter"],
            facts["difference"],
        )


if __name__ == "__main__":
    start(main, MergeConfig)
