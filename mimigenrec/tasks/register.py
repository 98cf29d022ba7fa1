"""Entries in LLaMA-Factory's dataset_info.json, in the folder above the data; entries of others are kept.

    {"toy_train": {"file_name": "toy/sft/train.json", "columns": {"prompt": "instruction", "query": "input",
                   "response": "output", "system": "system"}}, ...}

file_name is relative to the folder of dataset_info.json, which a LLaMA-Factory YAML names as `dataset_dir`.
"""

from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json

COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
SPLITS = ("train", "valid", "test")


def check_entries(output_dir: str | Path, category: str, overwrite: bool = False) -> None:
    """Raises UserError if a name would be taken from other data that are still there, unless overwrite; a YAML that
    names it would train on these data from then on.

    Raises it also for a dataset_info.json that is not a map of data set names.
    """
    output_dir = Path(output_dir).resolve()
    info_file, info = _read(output_dir)
    for name, entry in _entries(output_dir, category).items():
        there = info.get(name)
        if overwrite or not isinstance(there, dict) or there.get("file_name") == entry["file_name"]:
            continue
        file_name = there.get("file_name")
        place = info_file.parent / file_name if isinstance(file_name, str) else None
        if place is not None and (not place.exists() or place.resolve().is_relative_to(output_dir)):
            continue
        raise UserError(
            f"{info_file}: {name!r} is the name of {place or str(there)[:80]} and would become that of "
            f"{output_dir / 'sft'}; a YAML that trains on {name} would train on other rows. Give --overwrite to hand "
            f"the name over, write to a folder elsewhere (its entries go into the folder above it), or rename that "
            f"entry"
        )


def register(output_dir: str | Path, category: str) -> Path:
    """Adds or replaces <category>_train, _valid and _test; returns the dataset_info.json that holds them.

    Raises UserError if the file that is there is not a map of data set names.
    """
    output_dir = Path(output_dir).resolve()
    info_file, info = _read(output_dir)
    entries = _entries(output_dir, category)
    if any(info.get(name) != entry for name, entry in entries.items()):
        write_json(info_file, {**info, **entries}, indent=2)
    return info_file


def _read(output_dir: Path) -> tuple[Path, dict[str, Any]]:
    info_file = output_dir.parent / "dataset_info.json"
    return info_file, read_json(info_file, made_by="LLaMA-Factory", kind=dict) if info_file.exists() else {}


def _entries(output_dir: Path, category: str) -> dict[str, dict[str, Any]]:
    return {
        f"{category}_{split}": {"file_name": f"{output_dir.name}/sft/{split}.json", "columns": dict(COLUMNS)}
        for split in SPLITS
    }
