"""Entries in LLaMA-Factory's dataset_info.json, in the folder above the data; entries of others are kept.

    {"toy_train": {"file_name": "toy/sft/train.json", "columns": {"prompt": "instruction", "query": "input",
                   "response": "output", "system": "system"}}, ...}

file_name is relative to the folder of dataset_info.json, which a LLaMA-Factory YAML names as `dataset_dir`.
"""

from pathlib import Path

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json

COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}


def register(output_dir: str | Path, category: str) -> Path:
    """Adds or replaces <category>_train, _valid and _test; returns the dataset_info.json that was written.

    Raises ValueError if the file that is there is not a map of data set names.
    """
    output_dir = Path(output_dir).resolve()
    info_file = output_dir.parent / "dataset_info.json"
    info = read_json(info_file, made_by="LLaMA-Factory") if info_file.exists() else {}
    if not isinstance(info, dict):
        raise UserError(f"{info_file} must map data set names to their files, found a {type(info).__name__}")
    for split in ("train", "valid", "test"):
        file_name = f"{output_dir.name}/sft/{split}.json"
        info[f"{category}_{split}"] = {"file_name": file_name, "columns": dict(COLUMNS)}
    write_json(info_file, info, indent=2)
    return info_file
