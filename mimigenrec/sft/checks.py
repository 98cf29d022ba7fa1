"""What stops an SFT run before it costs a night: each check says what it found and what to change."""

import difflib
import logging
import os
from argparse import Action, ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mimigenrec.chat import Row, row_chat
from mimigenrec.cli import check_range
from mimigenrec.contract import check_same, check_template, read_contract
from mimigenrec.errors import UsageError, UserError
from mimigenrec.extras import need, need_reporters
from mimigenrec.files import read_json
from mimigenrec.flags import add_fields
from mimigenrec.rendering import check_rendering
from mimigenrec.sft.add_sids import COMMAND as ADD_SIDS
from mimigenrec.sft.data import SftData, names, spread
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.tasks.rows import read_sft_rows
from mimigenrec.training.settings import RANGES as RANGES_IN_TRAINING

log = logging.getLogger(__name__)
CHUNK = 2000  # rows tokenised at a time
CHATS = 200  # rows of a file of chats that are compared with LLaMA-Factory's rendering
LORA = "lora"  # LLaMA-Factory's default finetuning_type
# Keys that grow the vocabulary, whose rows LoRA then trains.
GROWING = ("add_tokens", "add_special_tokens", "new_special_tokens_config", "resize_vocab")


# Besides those of every training, numbers with which LLaMA-Factory would end with exit status 0 and no training, or
# another one.
RANGES = RANGES_IN_TRAINING | {
    "max_steps": {"least": 1},  # or -1: num_train_epochs counts
    "num_train_epochs": {"above": 0},
    "per_device_train_batch_size": {"least": 1},
    "per_device_eval_batch_size": {"least": 1},
    "learning_rate": {"least": 0},
    "cutoff_len": {"least": 1},
    "lora_rank": {"least": 1},
}


def check_keys(args: dict[str, Any], ours: Sequence[str]) -> None:
    """LLaMA-Factory's keys and their values, before anything slow: from a YAML its parser takes any value.

    A number that a YAML gives as text ("1e-4" in quotes) is put in its place as a number.
    Raises UsageError for an unknown key, a value of the wrong type, one that is not among a key's choices, and a
    number that is not finite.
    """
    from llamafactory.hparams import (
        DataArguments,
        FinetuningArguments,
        GeneratingArguments,
        ModelArguments,
        TrainingArguments,
    )

    parts = (ModelArguments, DataArguments, TrainingArguments, FinetuningArguments, GeneratingArguments)
    known = add_fields(ArgumentParser(), *parts)
    for key, value in list(args.items()):
        if key in known:
            args[key] = checked_value(key, value, known[key])
        elif os.environ.get("ALLOW_EXTRA_ARGS", "0") not in ("1", "true", "y"):
            near = difflib.get_close_matches(key, [*known, *ours], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{key!r} is neither a key of LLaMA-Factory nor of mimigenrec sft{hint}")


def checked_value(key: str, value: Any, action: Action) -> Any:
    """One value as the command line would take it; lists and maps are left to LLaMA-Factory where it may take them."""
    number = action.type in (int, float)
    if value is None or isinstance(value, (list, dict)) and not number:
        return value
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    try:
        typed = action.type(text)
    except (ValueError, TypeError, ArgumentTypeError) as error:
        wanted = action.type.__name__.replace("_", " ")
        raise UsageError(f"{key}: {value!r} is not what LLaMA-Factory takes there ({wanted})") from error
    if typed == "False" and "no" in (action.choices or ()):  # YAML reads a bare no as false
        return "no"
    if action.choices and typed not in action.choices:
        raise UsageError(f"{key}: {value!r} is none of {', '.join(map(str, action.choices))}")
    if not (key == "max_steps" and typed == -1):
        try:
            check_range(key, typed, **RANGES.get(key, {}))
        except UserError as error:
            raise UsageError(str(error)) from error
    return typed if number and isinstance(value, str) else value


def check_extras(args: Mapping[str, Any]) -> None:
    """Raises ImportError naming the extra to install for what the run asks for."""
    for key, package in (("deepspeed", "deepspeed"), ("use_unsloth", "unsloth")):
        if args.get(key):
            need(package, f"{key}: {args[key]}")
    need_reporters(args.get("report_to"))


def check_row_training(args: Mapping[str, Any]) -> None:
    """train_only: sid_rows freezes by itself, and decay would move rows that have no gradient."""
    method, decay = args.get("finetuning_type", LORA), args.get("weight_decay") or 0.0
    if method != "full" or decay:
        raise UserError(
            f"train_only: sid_rows found finetuning_type: {method} and weight_decay: {decay}; it freezes the other "
            f"rows itself and needs finetuning_type: full and weight_decay: 0.0"
        )


def check_length_groups(args: Mapping[str, Any]) -> None:
    """length_groups decides the order of the rows. Raises UserError for a key that decides another."""
    for key in ("group_by_length", "disable_shuffling", "streaming"):
        if args.get(key):
            raise UserError(
                f"length_groups: true decides the order of the rows, and so does {key}: true; drop one of them"
            )


def check_lora(args: Mapping[str, Any]) -> None:
    """LoRA that trains tied embeddings: peft keeps two copies, and a merge loses what one of them learnt.

    Raises UserError with the remedy; only logs when the SID rows would not be trained at all.
    """
    if args.get("finetuning_type", LORA) != LORA:
        return
    from transformers import AutoConfig

    from mimigenrec.training.peft import embedding_names, without_weights

    base = args["model_name_or_path"]
    whole = {*names(args.get("additional_target")), *names(args.get("lora_target"))}
    causes = [*sorted(whole & set(embedding_names(without_weights(base)))), *(key for key in GROWING if args.get(key))]
    if not causes:
        log.warning("LoRA without lora_sid_rows and additional_target: the SID rows stay as add-sids set them")
    elif AutoConfig.from_pretrained(base).tie_word_embeddings:
        raise UserError(
            f"LoRA would train the embeddings of {base} ({', '.join(causes)}), which are tied to its head: the "
            f"exported model would silently lose what they learnt. Train the rows of the SIDs alone with "
            f"lora_sid_rows: true; or give the head weights of its own, `mimigenrec add-sids --untie` (or sid_untie: "
            f"true beside add_tokens_list), and train both with additional_target: embed_tokens,lm_head"
        )


def check_ranking(args: Mapping[str, Any], eval_ranking: int, data: SftData | None) -> None:
    """Ranking metrics: asked for where they can be had."""
    if eval_ranking and (args.get("fsdp") or os.environ.get("ACCELERATE_USE_FSDP")):
        raise UserError(
            f"eval_ranking={eval_ranking} searches with the model itself, which FSDP splits over processes; use "
            f"DeepSpeed, or eval_ranking=0"
        )
    metric = str(args.get("metric_for_best_model") or "")
    if "@" not in metric:
        return
    if metric.removeprefix("eval_") not in ("hr@10", "ndcg@10"):
        raise UserError(f"metric_for_best_model: {metric} is not reported; choose eval_ndcg@10 or eval_hr@10")
    if not eval_ranking or data is None:
        raise UserError(
            f"metric_for_best_model: {metric} needs eval_ranking above 0 and data with id2sid.json, found "
            f"eval_ranking={eval_ranking} and {'no such data' if data is None else data.folder}"
        )


def check_data(data: SftData, tokenizer, args: Mapping[str, Any], cutoff_len: int) -> None:
    """Tokenizer, prompts and lengths of the rows that a run reads."""
    base = args["model_name_or_path"]
    check_tokens(data, tokenizer, base)
    if data.contract is None:
        log.warning("%s has no prompt_contract.json: nothing tells how its prompts were written", data.folder)
    else:
        check_base_contract(data, base)
        check_template(data.contract, tokenizer, data.folder)
        check_rendering(tokenizer, data.contract, args.get("template"))
    for path, kind in zip(data.files, data.kinds, strict=True):
        rows = read_sft_rows(path, kind)
        check_lengths(tokenizer, rows, path, cutoff_len)
        if kind == "messages":  # no wording of a contract says how its turns follow each other
            mask_history = bool(args.get("mask_history"))
            check_rendering(tokenizer, data.contract, args.get("template"), spread(rows, CHATS), mask_history)


def check_tokens(data: SftData, tokenizer, base: str) -> None:
    vocabulary, needed = tokenizer.get_vocab(), distinct_tokens(data.catalog.sids)
    unknown = [token for token in needed if token not in vocabulary]
    if unknown:
        raise UserError(
            f"the tokenizer of {base} does not know {len(unknown)} of the {len(needed)} SID tokens of {data.folder}, "
            f"{unknown[0]} for one. Have it prepared with add_tokens_list={data.folder / 'new_tokens.json'}, or "
            f"prepare it with mimigenrec add-sids and name the result as model_name_or_path"
        )


def check_base_contract(data: SftData, base: str) -> None:
    """A base that was trained before keeps its wording; one that add-sids prepared has learnt none yet."""
    manifest = Path(base) / "manifest.json"
    if manifest.is_file() and read_json(manifest, made_by=ADD_SIDS).get("command") == ADD_SIDS:
        return
    trained_with = read_contract(base)
    if trained_with is not None:
        check_same(data.contract, trained_with, data.folder, base)


def check_lengths(tokenizer, rows: Sequence[Row], path: Path, cutoff_len: int) -> None:
    """Raises UserError naming the longest row if it has more tokens, answer included, than cutoff_len."""
    longest, at = max((length, i) for i, length in enumerate(row_lengths(tokenizer, rows)))
    if longest > cutoff_len:
        raise UserError(
            f"{path}, row {at}: {longest} tokens, more than cutoff_len={cutoff_len}. LLaMA-Factory would cut it and "
            f"train on half a prompt; raise cutoff_len, or build the data with a smaller --max_history or "
            f"--max_text_chars"
        )


def row_lengths(tokenizer, rows: Sequence[Row]) -> Iterator[int]:
    """Tokens of each row as a chat, answer and what closes it included."""
    for first in range(0, len(rows), CHUNK):
        chats = [row_chat(row) for row in rows[first : first + CHUNK]]
        texts = tokenizer.apply_chat_template(chats, tokenize=False)
        yield from map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
