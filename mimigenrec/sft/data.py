"""Which rows a LLaMA-Factory YAML trains on, and the data folder they belong to.

LLaMA-Factory finds rows by names in <dataset_dir>/dataset_info.json. Files that lie as <folder>/sft/*.json beside an
id2sid.json are ours: they are checked, and the folder's catalogue and contract go into the checkpoint. Other data
(general chat mixed in, say) pass through as they are.
"""

import difflib
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimigenrec.catalog import Catalog, load_catalog
from mimigenrec.contract import Contract, read_contract
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks.register import COLUMNS

Row = dict[str, str]
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass(frozen=True)
class SftData:
    """A data folder of preprocessing and those of its files that a run reads."""

    folder: Path
    files: tuple[Path, ...]
    catalog: Catalog
    contract: Contract | None  # None for files of the original MIMIGenRec, which have none


def find_data(args: Mapping[str, Any]) -> SftData | None:
    """The data folder of a run's `dataset` and `eval_dataset`; None if none of them is ours.

    args     LLaMA-Factory's keys
    raises   as data_sets does; UserError for columns that would drop part of a row, or data of two catalogues
    """
    found: dict[Path, list[Path]] = {}
    info_file = info_of(args)
    for name, (entry, path) in data_sets(args).items():
        folder = path.parent.parent if path else None
        if path is None or not (folder / "id2sid.json").is_file() or path.parent.name != "sft":
            continue
        if entry.get("columns") != COLUMNS:
            raise UserError(
                f"{info_file}: the columns of {name!r} are {entry.get('columns')}; LLaMA-Factory would leave out the "
                f"others, so write {COLUMNS}"
            )
        found.setdefault(folder, []).append(path)
    if len(found) > 1:
        raise UserError(
            f"the data sets come from {len(found)} folders ({', '.join(map(str, found))}); a checkpoint holds one "
            f"catalogue, so preprocess them together or train them one after another"
        )
    for folder, files in found.items():
        return SftData(folder, tuple(dict.fromkeys(files)), load_catalog(folder), read_contract(folder))
    return None


def info_of(args: Mapping[str, Any]) -> Path:
    return Path(args.get("dataset_dir") or "data") / "dataset_info.json"


def data_sets(args: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], Path | None]]:
    """name -> (its entry in dataset_info.json, its file or folder) of a run's `dataset` and `eval_dataset`.

    The path is None for data that LLaMA-Factory loads from elsewhere: a hub, a script, a cloud. There is none at all
    with `dataset_dir: ONLINE` or `REMOTE:...`.
    raises   FileNotFoundError for a missing dataset_info.json or file; UserError for a name that is not in it, or an
             entry of another form
    """
    asked = [*names(args.get("dataset")), *names(args.get("eval_dataset"))]
    if str(args.get("dataset_dir")).startswith(("ONLINE", "REMOTE:")):
        return {}
    info_file = info_of(args)
    info = read_json(info_file, made_by="mimigenrec preprocess", kind=dict)
    found = {}
    for name in asked:
        if name not in info:
            near = difflib.get_close_matches(name, info, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{info_file} has no data set {name!r}{hint}")
        entry = info[name]
        if not isinstance(entry, dict):
            raise UserError(f"{info_file}: {name!r} must be a map with 'file_name', found {str(entry)[:80]!r}")
        if any(key in entry for key in ELSEWHERE):
            found[name] = entry, None
            continue
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            raise UserError(f"{info_file}: 'file_name' of {name!r} must be a text, found {str(file_name)[:80]!r}")
        path = info_file.parent / file_name
        if not path.exists():
            raise FileNotFoundError(
                f"{path}, data set {name!r} of {info_file}, is missing; mimigenrec preprocess writes such files"
            )
        found[name] = entry, path
    return found


def hashes(args: Mapping[str, Any]) -> dict[str, str]:
    """{file: its hash} of all that a run reads by `dataset` and `eval_dataset`; how other data than ours are read
    (columns, formatting) stands under "NAME in dataset_info.json"."""
    found: dict[str, str] = {}
    for name, (entry, path) in data_sets(args).items():
        files = [] if path is None else [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        found |= {str(file): sha256(file) for file in files}
        if told := {key: value for key, value in entry.items() if key != "file_name" and value != COLUMNS}:
            text = json.dumps(told, sort_keys=True).encode()
            found[f"{name} in dataset_info.json"] = hashlib.sha256(text).hexdigest()
    return found


def names(value: str | list[str] | None) -> list[str]:
    """LLaMA-Factory's list of data sets: "a, b"."""
    parts = value.split(",") if isinstance(value, str) else value or []
    return [str(part).strip() for part in parts]


def read_rows(path: Path) -> list[Row]:
    """Raises UserError naming the row for a file without rows, a row without an output, or a text that is none."""
    rows = read_json(path, made_by="mimigenrec preprocess")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} has no rows; an empty split cannot be trained or validated on")
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("output"), str):
            raise UserError(f"{path}, row {i}: no text under 'output', found {str(row)[:80]!r}")
        for key in ("system", "instruction", "input"):
            if not isinstance(row.get(key, ""), str):
                raise UserError(f"{path}, row {i}: {key!r} must be a text, found {str(row[key])[:80]!r}")
    return rows


def spread(rows: list[Row], count: int = 20) -> list[Row]:
    """Up to `count` rows at even distances. Preprocessing shuffles the tasks, so the frequent ones are among them."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def validation_sample(data: SftData, count: int, rng: random.Random) -> list[Row]:
    """Up to `count` rows of the folder's sft/valid.json that ask for a SID of the catalogue, in file order."""
    sids = {join_sid(sid) for sid in data.catalog.sids.values()}
    rows = [row for row in read_rows(data.folder / "sft" / "valid.json") if row["output"] in sids]
    if not rows:
        raise UserError(f"{data.folder / 'sft' / 'valid.json'} has no row that asks for a SID of id2sid.json")
    chosen = sorted(rng.sample(range(len(rows)), min(count, len(rows))))
    return [rows[i] for i in chosen]
