"""Which rows a LLaMA-Factory YAML trains on, and the data folder they belong to.

LLaMA-Factory finds rows by names in <dataset_dir>/dataset_info.json. Files that lie as <folder>/sft/*.json beside an
id2sid.json are ours: they are checked, and the folder's catalogue and contract go into the checkpoint. Other data
(general chat mixed in, say) pass through as they are.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimigenrec.catalog import Catalog, load_catalog
from mimigenrec.chat import Kind, Row, row_answer
from mimigenrec.contract import Contract, read_contract
from mimigenrec.errors import UserError
from mimigenrec.files import sha256
from mimigenrec.rendering import FORMATS
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.register import FILE, entry_kind, read_entry, read_info
from mimigenrec.tasks.rows import read_sft_rows


@dataclass(frozen=True)
class SftData:
    """A data folder of preprocessing and those of its files that a run reads."""

    folder: Path
    files: tuple[Path, ...]
    kinds: tuple[Kind, ...]  # of the rows of each file, as dataset_info.json tells
    catalog: Catalog
    contract: Contract | None  # None for files of the original MIMIGenRec, which have none


def find_data(args: Mapping[str, Any]) -> SftData | None:
    """The data folder of a run's `dataset` and `eval_dataset`; None if none of them is ours.

    args     LLaMA-Factory's keys
    raises   as data_sets does; UserError for columns that would drop part of a row, or data of two catalogues
    """
    folders: dict[Path, dict[Path, Kind]] = {}
    info_file = info_of(args)
    for name, (entry, path) in data_sets(args).items():
        folder = path.parent.parent if path else None
        if path is None or not (folder / "id2sid.json").is_file() or path.parent.name != "sft":
            continue
        folders.setdefault(folder, {})[path] = entry_kind(info_file, name, entry)
    if len(folders) > 1:
        raise UserError(
            f"the data sets come from {len(folders)} folders ({', '.join(map(str, folders))}); a checkpoint holds one "
            f"catalogue, so preprocess them together or train them one after another"
        )
    for folder, files in folders.items():
        return SftData(folder, tuple(files), tuple(files.values()), load_catalog(folder), read_contract(folder))
    return None


def info_of(args: Mapping[str, Any]) -> Path:
    return Path(args.get("dataset_dir") or "data") / FILE


def data_sets(args: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], Path | None]]:
    """name -> (its entry in dataset_info.json, its file or folder) of a run's `dataset` and `eval_dataset`.

    The path is None for data that LLaMA-Factory loads from elsewhere: a hub, a script, a cloud. There is none at all
    with `dataset_dir: ONLINE` or `REMOTE:...`.
    raises   FileNotFoundError for a missing dataset_info.json or file; UserError for a name that is not in it, or an
             entry of another form
    """
    if str(args.get("dataset_dir")).startswith(("ONLINE", "REMOTE:")):
        return {}
    info_file = info_of(args)
    info = read_info(info_file)
    wanted = [*names(args.get("dataset")), *names(args.get("eval_dataset"))]
    return {name: read_entry(info_file, info, name) for name in wanted}


def hashes(args: Mapping[str, Any]) -> dict[str, str]:
    """{file: its hash} of all that a run reads by `dataset` and `eval_dataset`; how other data than ours are read
    (columns, formatting) stands under "NAME in dataset_info.json"."""
    hash_of: dict[str, str] = {}
    for name, (entry, path) in data_sets(args).items():
        files = [] if path is None else [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        hash_of |= {str(file): sha256(file) for file in files}
        usual = FORMATS["alpaca"]
        if read_as := {key: value for key, value in entry.items() if key != "file_name" and value != usual.get(key)}:
            text = json.dumps(read_as, sort_keys=True).encode()
            hash_of[f"{name} in dataset_info.json"] = hashlib.sha256(text).hexdigest()
    return hash_of


def names(value: str | list[str] | None) -> list[str]:
    """LLaMA-Factory's list of data sets: "a, b"."""
    parts = value.split(",") if isinstance(value, str) else value or []
    return [str(part).strip() for part in parts]


def spread(rows: list[Row], count: int = 20) -> list[Row]:
    """Up to `count` rows at even distances. Preprocessing shuffles the tasks, so the frequent ones are among them."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def validation_sample(data: SftData, count: int, rng: random.Random) -> list[Row]:
    """Up to `count` rows of the folder's sft/valid.json that ask for a SID of the catalogue, in file order."""
    sids = {join_sid(sid) for sid in data.catalog.sids.values()}
    rows = [row for row in read_sft_rows(data.folder / "sft" / "valid.json") if row_answer(row) in sids]
    if not rows:
        raise UserError(f"{data.folder / 'sft' / 'valid.json'} has no row that asks for a SID of id2sid.json")
    chosen = sorted(rng.sample(range(len(rows)), min(count, len(rows))))
    return [rows[i] for i in chosen]
