"""Entries in LLaMA-Factory's dataset_info.json, in the folder above the data; entries of others are kept.

    {"toy_train": {"file_name": "toy/sft/train.json", "columns": {"prompt": "instruction", "query": "input",
                   "response": "output", "system": "system"}}, ...}

or, for rows that are chats, {"file_name", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags"}.
file_name is relative to the folder of dataset_info.json, which a LLaMA-Factory YAML names as `dataset_dir`.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimigenrec.chat import ANSWERING, ASKING, Kind, Row
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.rendering import FORMATS
from mimigenrec.schema import check, read_rows
from mimigenrec.tasks.rows import MADE_BY

FILE = "dataset_info.json"
SPLITS = ("train", "valid", "test")
# LLaMA-Factory's own, for what an entry does not say
USUAL = {
    "formatting": "alpaca",
    "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    "tags": {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    },
}
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def split_files(category: str) -> dict[str, str]:
    """Name of a data set -> its file in a folder of preprocessing."""
    return {f"{category}_{split}": f"sft/{split}.json" for split in SPLITS}


def check_entries(output_dir: str | Path, files: Mapping[str, str], overwrite: bool = False) -> None:
    """Raises UserError if a name would be taken from other data that are still there, unless overwrite; a YAML that
    names it would train on these data from then on.

    files    name of a data set -> its file in output_dir
    raises   also for a dataset_info.json that is not a map of data set names
    """
    output_dir = Path(output_dir).resolve()
    info_file = output_dir.parent / FILE
    info = read_info(info_file) if info_file.exists() else {}
    for name, file in files.items():
        there = info.get(name)
        if overwrite or not isinstance(there, dict) or there.get("file_name") == f"{output_dir.name}/{file}":
            continue
        file_name = there.get("file_name")
        place = info_file.parent / file_name if isinstance(file_name, str) else None
        if place is not None and (not place.exists() or place.resolve().is_relative_to(output_dir)):
            continue
        raise UserError(
            f"{info_file}: {name!r} is the name of {place or str(there)[:80]} and would become that of "
            f"{(output_dir / file).parent}; a YAML that trains on {name} would train on other rows. Give --overwrite "
            f"to hand the name over, write to a folder elsewhere (its entries go into the folder above it), or rename "
            f"that entry"
        )


def register(output_dir: str | Path, files: Mapping[str, str], kind: Kind = "alpaca") -> Path:
    """Adds or replaces the entries of data sets; returns the dataset_info.json that holds them.

    files    name of a data set -> its file in output_dir, all of the same kind of rows
    raises   UserError if the dataset_info.json that is there is not a map of data set names
    """
    output_dir = Path(output_dir).resolve()
    info_file = output_dir.parent / FILE
    info = read_info(info_file) if info_file.exists() else {}
    entries = {name: {"file_name": f"{output_dir.name}/{file}", **FORMATS[kind]} for name, file in files.items()}
    if any(info.get(name) != entry for name, entry in entries.items()):
        write_json(info_file, {**info, **entries}, indent=2)
    return info_file


def read_info(info_file: Path) -> dict[str, Any]:
    """Name -> entry of a dataset_info.json. Raises FileNotFoundError, and UserError if it is no map."""
    return read_json(info_file, made_by=MADE_BY, kind=dict)


def read_entry(info_file: Path, info: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Path | None]:
    """One entry and its file or folder; None for data that come from elsewhere: a hub, a script, a cloud.

    Raises FileNotFoundError for a missing file; UserError for a name that is not in it, or an entry of another form.
    """
    if name not in info:
        near = difflib.get_close_matches(name, info, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{info_file} has no data set {name!r}{hint}")
    entry = info[name]
    if isinstance(entry, dict) and any(key in entry for key in ELSEWHERE):
        return entry, None
    check(entry, {"file_name": str}, f"{info_file}, {name!r}")
    if not entry["file_name"]:
        raise UserError(f"{info_file}, {name!r}: file_name is empty; it must name one of the folder's files")
    path = info_file.parent / entry["file_name"]
    if not path.exists():
        raise FileNotFoundError(
            f"{path}, data set {name!r} of {info_file}, is missing; mimigenrec preprocess writes such files"
        )
    return entry, path


def read_registered(info_file: Path, name: str) -> tuple[Path, list[Row]]:
    """The file of a data set of any columns and tags, and its rows as SFT rows of ours.

    Raises as read_entry does; UserError for data that are no .json or .jsonl file here, and for a row that its entry
    does not describe.
    """
    entry, path = read_entry(info_file, read_info(info_file), name)
    if path is None or path.suffix not in (".json", ".jsonl") or not path.is_file():
        raise UserError(f"{info_file}: {name!r} is no .json or .jsonl file ({path or entry}); only such rows are read")
    read_as = {key: entry.get(key) or USUAL[key] for key in ("formatting", "columns", "tags")}
    check(read_as, {"formatting": str, "columns": {str: str}, "tags": {str: str}}, f"{info_file}, {name!r}")
    columns, tags = read_as["columns"], read_as["tags"]
    if read_as["formatting"] == "alpaca":
        names = {key: columns[part] for part, key in FORMATS["alpaca"]["columns"].items() if part in columns}
        rows = read_rows(path, {f"{column}?": (str, None) for column in names.values()}, f"data set {name!r}")
        return path, [{key: row.get(column) or "" for key, column in names.items()} for row in rows]
    chats = columns.get("messages", "conversations")
    role, content = (tags.get(tag, USUAL["tags"][tag]) for tag in ("role_tag", "content_tag"))
    rows = read_rows(path, {chats: [{role: str, content: str}]}, f"data set {name!r}")
    roles = {tags[f"{name}_tag"]: name for name in ("system", *ASKING, *ANSWERING) if f"{name}_tag" in tags}
    return path, [
        {"messages": [{"role": roles.get(turn[role], turn[role]), "content": turn[content]} for turn in row[chats]]}
        for row in rows
    ]


def entry_kind(info_file: Path, name: str, entry: Mapping[str, Any]) -> Kind:
    """The kind of rows that an entry reads whole. Raises UserError if LLaMA-Factory would leave out part of them."""
    read_as = {key: entry[key] for key in ("formatting", "columns", "tags") if key in entry}
    kind = "alpaca" if read_as.get("formatting", "alpaca") == "alpaca" else "messages"
    if {"formatting": "alpaca", **read_as} != {"formatting": "alpaca", **FORMATS[kind]}:
        raise UserError(
            f"{info_file}: the columns of {name!r} are {read_as}; LLaMA-Factory would leave out the others, so write "
            f"{FORMATS[kind]}"
        )
    return kind
