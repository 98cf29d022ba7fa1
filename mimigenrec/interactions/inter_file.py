"""The .inter format: one row per prediction, tab-separated, item ids as in the raw data.

    user_id:token	item_id_list:token_seq	item_id:token
    5885	697 2100	643

The second column is the history, oldest first, separated by spaces (it may be empty); the third is the target.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mimigenrec.errors import UserError
from mimigenrec.files import read_text, writing

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"


class History(NamedTuple):
    """What a user had, oldest first, and what came next."""

    row: int  # zero-based row of the file, the header not counted
    user: str
    items: tuple[str, ...]
    target: str


def raw_file(raw: str | Path, category: str, name: str) -> Path:
    """A file of a data set C, "train.inter" or "item.json" for example: RAW/C/C.NAME, or RAW/C.NAME where RAW has no
    folder C."""
    inner = Path(raw) / category
    return (inner if inner.is_dir() else Path(raw)) / f"{category}.{name}"


def read_inter(path: str | Path) -> Iterator[History]:
    """Rows as they come, one in memory at a time.

    Raises FileNotFoundError; UserError naming the line for a wrong header, a wrong number of columns, a target that
    is not one id or text that is no UTF-8, and for a file without a row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a category needs its .train.inter, .valid.inter and .test.inter")
    row = -1
    try:
        with open(path, encoding="utf-8-sig") as lines:
            header = next(lines, "").rstrip("\n")
            if header != HEADER:
                raise UserError(f"{path}, line 1: expected the header {HEADER!r}, found {header[:200]!r}")
            for row, line in enumerate(lines):
                columns = line.rstrip("\n").split("\t")
                if len(columns) != 3 or not (target := columns[2].strip(" ")) or " " in target:
                    raise UserError(
                        f"{path}, line {row + 2}: expected user, history and one target separated by tabs, "
                        f"found {len(columns)} columns: {line.rstrip()[:120]!r}"
                    )
                yield History(row, columns[0], tuple(filter(None, columns[1].split(" "))), target)
    except UnicodeDecodeError:
        read_text(path)  # says which line it is
        raise
    if row < 0:
        raise UserError(f"{path} has no row below its header; an empty split cannot be trained or tested on")


def write_inter(path: str | Path, blocks: Iterable[tuple[Any, Any, Any]]) -> int:
    """Writes blocks of (users, histories, targets), each a pyarrow array of strings; returns how many rows."""
    import pyarrow.compute as pc

    count = 0
    with writing(path, "wb") as out:
        out.write(HEADER.encode() + b"\n")
        for users, histories, targets in blocks:
            lines = pc.binary_join_element_wise(users, histories, targets, "\t")
            out.write("\n".join(lines.to_pylist()).encode() + b"\n" if len(lines) else b"")
            count += len(lines)
    return count
