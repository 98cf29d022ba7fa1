"""LLaMA-Factory's tokenized_path: rows as token ids, which it loads whatever the data, if the folder is there.

    <tokenized_path>/mimigenrec.json    {"config": settings of data and template, "inputs": {file: its hash}}

We write it once LLaMA-Factory has saved the rows, and train on a folder only where it says that these are our rows.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256, write_json
from mimigenrec.manifest import differences
from mimigenrec.sft.data import hashes

FILE = "mimigenrec.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "added_tokens.json", "tokenizer.model")
# keys of LLaMA-Factory's data that change no row, or folders whose content is compared
FREE = ("tokenized_path", "overwrite_cache", "preprocessing_num_workers", "data_shared_file_system", "dataset_dir")
# keys of other kinds that do change rows
MORE = ("stage", "seed", "use_fast_tokenizer", "split_special_tokens", "add_tokens", "add_special_tokens")


class StampTokenized(TrainerCallback):
    """Says in the folder of tokenised rows what they were made from, once they are there."""

    def __init__(self, args: Mapping[str, Any]):
        self.path, self.stamp = Path(args["tokenized_path"]) / FILE, stamp(args)

    def on_init_end(self, args, state, control, **kwargs):
        if self.path.parent.is_dir() and not self.path.is_file():
            write_json(self.path, self.stamp)


def check_tokenized(args: Mapping[str, Any]) -> None:
    """Raises UserError, naming the folder to delete, unless it is new or holds the rows of these data and settings."""
    folder = Path(args["tokenized_path"])
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return
    remedy = f"delete the folder {folder} to have the rows tokenised again, or name another tokenized_path"
    if not (folder / FILE).is_file():
        raise UserError(
            f"tokenized_path: {folder} is there, and no {FILE} in it tells which rows it holds; LLaMA-Factory would "
            f"train on them whatever the data. If it holds nothing else, {remedy}"
        )
    if found := differences(read_json(folder / FILE, made_by="mimigenrec sft", kind=dict), stamp(args)):
        raise UserError(
            f"tokenized_path: {folder} holds rows that were tokenised from other data or with other settings "
            f"({'; '.join(found[:5])}); {remedy}"
        )


def stamp(args: Mapping[str, Any]) -> dict[str, Any]:
    from llamafactory.hparams import DataArguments

    defaults = {
        field.name: None if field.default is MISSING else field.default
        for field in fields(DataArguments)
        if field.init and field.name not in FREE
    }
    config = {name: args.get(name, default) for name, default in defaults.items()}
    config |= {name: args.get(name) for name in MORE}
    base = Path(args["model_name_or_path"])
    tokenizer = {f"tokenizer/{name}": sha256(base / name) for name in TOKENIZER if (base / name).is_file()}
    if not tokenizer:
        tokenizer = {"tokenizer": str(base)}
    plain = json.loads(json.dumps(config, default=str))
    return {"config": plain, "inputs": {**hashes(args), **tokenizer}}
