"""What RL reads of a data folder: rl/train.json and rl/valid.json (tasks/rows.py), all rows usable; id2sid.json and
contract beside. extra_info of the rows, {"task", "index"}, is that of latest_rows.
"""

import logging
from pathlib import Path
from typing import Any

from datasets import Dataset
from pyarrow.lib import ArrowException

from mimigenrec.chat import prompt_ids
from mimigenrec.contract import Contract, check_same, check_template, read_contract
from mimigenrec.errors import UserError
from mimigenrec.rewarding import PASSED
from mimigenrec.schema import check
from mimigenrec.sids.tokens import join_sid, split_sid
from mimigenrec.tasks.rows import read_rl_rows

PLACED_ROW = {"extra_info": {"task": str, "index": int}}  # what latest_rows asks of a row

log = logging.getLogger(__name__)


def data_folders(data: Path) -> tuple[Path, Path]:
    """The folder of train.json and valid.json, and the one above it with id2sid.json."""
    return (data / "rl", data) if (data / "rl").is_dir() else (data, data.parent)


def find_index(model: str, index: Path | None, folder: Path) -> Path:
    places = [index] if index else [folder / "id2sid.json", Path(model) / "id2sid.json"]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"no SIDs: {' and '.join(map(str, places))} missing; name an id2sid.json with --index")


def checked_contract(folder: Path, model: str, tokenizer) -> Contract | None:
    """The data's prompt contract; None, with a warning, where data or checkpoint have none.

    Raises UserError if the two differ, or the tokenizer's chat template is another than theirs.
    """
    data, checkpoint = read_contract(folder), read_contract(model)
    for contract, path in ((data, folder), (checkpoint, model)):
        if contract is not None:
            check_template(contract, tokenizer, path)
    if data and checkpoint:
        check_same(data, checkpoint, folder, model)
    if not data or not checkpoint or data.wording == "classic":
        missing = [str(where) for where, there in ((folder, data), (model, checkpoint)) if not there]
        reason = f"no prompt_contract.json in {' and '.join(missing)}" if missing else "the classic wording"
        log.warning("%s: nothing says that RL asks in the words of SFT and evaluation", reason)
    return data


def row_files(rl: Path, args) -> list[Path]:
    """Raises FileNotFoundError if one is missing."""
    files = [rl / "train.json", *([rl / "valid.json"] if args.eval_strategy != "no" else [])]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; it comes from preprocess_data_sft_rl.py")
    return files


def read_usable_rows(
    path: Path, targets: set[str], index: Path, tokenizer, max_length: int | None
) -> list[dict[str, Any]]:
    """RL rows, all of them usable.

    Raises UserError naming file and row: as tasks.rows.read_rl_rows does, and for a column that the trainer fills in
    itself, a target that is no SID of the catalogue, a prompt of more than max_length tokens.
    """
    rows = read_rl_rows(path)
    for i, row in enumerate(rows):
        target = row["reward_model"]["ground_truth"]
        if join_sid(split_sid(target)) not in targets:
            raise UserError(
                f"{path}, row {i}: the target {target!r} is no SID of {index}, so no rollout could ever hit it; data "
                f"and index are from different catalogues"
            )
    if taken := sorted(rows[0].keys() & set(PASSED)):
        raise UserError(f"{path}: the trainer fills in {', '.join(taken)} itself; give that column another name")
    try:
        prompt_ids(tokenizer, [row["prompt"] for row in rows], max_length)
    except UserError as error:
        raise UserError(f"{path}: {error} (--max_prompt_length)") from error
    return rows


def as_dataset(rows: list[dict[str, Any]], path: Path) -> Dataset:
    """Raises UserError for a column whose values are of several types."""
    try:
        return Dataset.from_list(rows)
    except (ArrowException, OverflowError) as error:
        raise UserError(f"{path}: a column holds values of several types ({error}); build the data again") from error


def latest(rows: list[dict[str, Any]], count: int, path: Path) -> list[dict[str, Any]]:
    """The `count` rows of each task with the highest extra_info.index, in the order of the file; 0 keeps all.

    Raises UserError for a row that does not tell its task and index.
    """
    if not count:
        return rows
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        check(row, PLACED_ROW, f"{path}, row {i}", "--latest_rows needs it")
        places.setdefault(row["extra_info"]["task"], []).append(row["extra_info"]["index"])
    first = {task: sorted(indexes)[-count:][0] for task, indexes in places.items()}
    return [row for row in rows if row["extra_info"]["index"] >= first[row["extra_info"]["task"]]]
