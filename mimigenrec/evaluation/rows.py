"""Test rows from files: who is asked, with which prompt, and what the right answer is.

O/sft/<split>.json    [{"system", "instruction", "input", "output"}, ...]    output: the target's SID, "" without one
O/rows/<split>.json   [{"user", "row", "history", "target"}, ...]            in the same order; absent for files made
                                                                             elsewhere, which tell only SIDs
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from mimigenrec.chat import Messages, row_messages
from mimigenrec.cli import check_range
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.sids.tokens import Sid, join_sid

TEXTS = ("system", "instruction", "input", "output")
KNOWN = {"user": str, "row": int, "history": list, "target": str}


class AskedRow(NamedTuple):
    """user, history and target are None where the file tells only SIDs."""

    row: int
    user: str | None
    history: list[str] | None
    target: str | None
    target_sid: str | None
    prompt: Messages | None = None  # None for a baseline, which reads the history


def read_rows(sft_file: str | Path, rows_file: str | Path | None, limit: int | None = None) -> list[AskedRow]:
    """The first `limit` rows of a test file.

    Raises FileNotFoundError; UserError naming file and row for an empty split, a row without its keys or with a value
    of another kind, two files of different length, a limit below 1.
    """
    check_range("limit", limit, least=1)
    asked = _read_list(sft_file, ("input", "output"), dict.fromkeys(TEXTS, str))
    known = _read_list(rows_file, tuple(KNOWN), KNOWN) if rows_file else [None] * len(asked)
    if len(asked) != len(known):
        raise UserError(f"{sft_file} has {len(asked)} rows and {rows_file} {len(known)}; build the data again")
    rows = []
    for i, (ask, know) in enumerate(zip(asked, known, strict=True)):
        know = know or {"row": i, "user": None, "history": None, "target": None}
        rows.append(
            AskedRow(
                know["row"], know["user"], know["history"], know["target"], ask["output"].strip(), row_messages(ask)
            )
        )
    return rows[:limit]


def read_inter_rows(path: str | Path, sids: Mapping[str, Sid], limit: int | None = None) -> list[AskedRow]:
    """The first `limit` rows of a .inter file, whole histories. Raises as interactions.inter_file.read_inter does, and
    UserError for a limit below 1."""
    check_range("limit", limit, least=1)
    rows = []
    for history in read_inter(path):
        if limit is not None and len(rows) == limit:
            break
        sid = join_sid(sids.get(history.target, ()))
        rows.append(AskedRow(history.row, history.user, list(history.items), history.target, sid))
    return rows


def result_row(row: AskedRow, ranked: list[dict]) -> dict:
    """The row as final_result.json holds it."""
    return {
        "user": row.user,
        "row": row.row,
        "history": row.history,
        "target": row.target,
        "target_sid": row.target_sid,
        "ranked": ranked,
    }


def _read_list(path: str | Path, keys: Collection[str], kinds: Mapping[str, type]) -> list[dict]:
    """keys: what every row has. kinds: of the values, where a row has them; a list is one of texts."""
    rows = read_json(path, made_by="preprocess_data_sft_rl.py", kind=list)
    if not rows:
        raise UserError(f"{path} has no row; an empty split cannot be evaluated")
    words = {str: "text", int: "a whole number", list: "a list of texts"}
    for i, row in enumerate(rows):
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise UserError(f"{path}: row {i} has no {', '.join(missing)}; found {str(row)[:120]}")
        for key, kind in kinds.items():
            value = row.get(key, kind())
            inside = value if kind is list and isinstance(value, list) else ()
            if type(value) is not kind or not all(isinstance(one, str) for one in inside):
                raise UserError(f"{path}: row {i}: {key} must be {words[kind]}, found {str(value)[:120]!r}")
    return rows
