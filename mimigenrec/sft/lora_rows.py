"""lora_sid_rows: LoRA that also trains the rows of the SIDs, and no other row of embeddings and head.

LLaMA-Factory 0.9.5 has no key for PEFT's trainable_token_indices. It does go on with an adapter that its key
adapter_name_or_path names, whatever settings of PEFT that has. So an adapter that has learnt nothing yet is made here,
by LLaMA-Factory's own LoRA keys and with the rows of the SIDs, and handed over under that key.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from peft import LoraConfig, get_peft_model

from mimigenrec.claim import replace_folder, temporary_of
from mimigenrec.decoding.adapter import identity
from mimigenrec.decoding.weights import load_causal_lm
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.checks import GROWING, LORA
from mimigenrec.sft.data import names
from mimigenrec.training.peft import embedding_names, row_indices, without_weights

# LLaMA-Factory's keys with which the adapter would not be the one that is handed over, or would lose its rows.
OTHERS = (
    "adapter_name_or_path",
    "create_new_adapter",
    "use_unsloth",
    "use_kt",
    "use_llama_pro",
    "pissa_init",
    *GROWING,
)


def check_lora_rows(args: Mapping[str, Any]) -> None:
    """Raises UserError for keys of LLaMA-Factory that lora_sid_rows does not go with, and says what does."""
    method = args.get("finetuning_type", LORA)
    if method != LORA:
        raise UserError(
            f"lora_sid_rows: true is for finetuning_type: lora, found {method}; full training has train_only: sid_rows"
        )
    for key in OTHERS:
        if args.get(key):
            raise UserError(
                f"lora_sid_rows: true makes the adapter itself and does not go with {key}: {args[key]}; leave it out, "
                f"or train the whole embeddings with sid_untie: true and additional_target: embed_tokens,lm_head"
            )
    if args.get("fsdp") or os.environ.get("ACCELERATE_USE_FSDP") or zero_stage(args.get("deepspeed")) == 3:
        raise UserError(
            "lora_sid_rows: true trains single rows of the embeddings, which FSDP and ZeRO-3 split over processes; "
            "use ZeRO-2, or several processes without either"
        )


def check_whole_targets(args: Mapping[str, Any]) -> None:
    """Raises UserError if the same embeddings would be trained whole. args: with the base that has the SIDs."""
    whole = {*names(args.get("additional_target")), *names(args.get("lora_target"))}
    if both := sorted(whole & set(embedding_names(without_weights(args["model_name_or_path"])))):
        raise UserError(
            f"lora_sid_rows: true trains the SID rows of {', '.join(both)}, which additional_target or lora_target "
            f"trains whole; leave one of the two out"
        )


def zero_stage(deepspeed: Any) -> int:
    """Of a DeepSpeed configuration, its path or its content; 0 where it names none."""
    if isinstance(deepspeed, str) and Path(deepspeed).is_file():
        deepspeed = read_json(Path(deepspeed), made_by="you", kind=dict)
    stage = deepspeed.get("zero_optimization", {}).get("stage", 0) if isinstance(deepspeed, dict) else 0
    return stage if isinstance(stage, int) else 0


def start_adapter(args: Mapping[str, Any], token_ids: Sequence[int], cache: Path) -> str:
    """Folder of an adapter that changes nothing yet, made now unless the same one is in cache.

    args        LLaMA-Factory's keys, complete and in order
    token_ids   whose rows it trains
    """
    from llamafactory.hparams import FinetuningArguments

    known = {key: value for key, value in args.items() if key in FinetuningArguments.__dataclass_fields__}
    lf = FinetuningArguments(**known)
    seed, base = args.get("seed", 42), args["model_name_or_path"]
    settings = {
        "r": lf.lora_rank,
        "target_modules": "all-linear" if lf.lora_target == ["all"] else lf.lora_target,
        "lora_alpha": lf.lora_alpha,
        "lora_dropout": lf.lora_dropout,
        "use_rslora": lf.use_rslora,
        "use_dora": lf.use_dora,
        "modules_to_save": lf.additional_target,
    }
    key = hashlib.sha256(json.dumps([identity(base), settings, sorted(token_ids), seed]).encode()).hexdigest()[:12]
    folder = cache / f"{Path(base).name}-lora-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / "manifest.json").is_file():
            model = load_causal_lm(base)
            rows = row_indices(model, token_ids)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                adapted = get_peft_model(
                    model, LoraConfig(task_type="CAUSAL_LM", trainable_token_indices=rows, **settings)
                )
            new = temporary_of(folder)
            adapted.save_pretrained(new)
            write_json(
                new / "manifest.json", {"command": "sft", "rows": {name: len(ids) for name, ids in rows.items()}}
            )
            replace_folder(new, folder)
    return str(folder)
