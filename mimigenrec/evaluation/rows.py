"""Test rows from files: who is asked, with which prompt, and what the right answer is.

O/sft/<split>.json    prompts and answers (tasks/rows.py); the last answer is the target's SID, "" without one
O/rows/<split>.json   {"user", "row", "history", "target"}, in the same order; absent for files made elsewhere, which
                      tell only SIDs
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mimigenrec.chat import Messages, row_answer, row_messages
from mimigenrec.cli import check_range
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.sids.tokens import Sid, join_sid
from mimigenrec.tasks.rows import read_sft_rows, read_user_rows


class AskedRow(NamedTuple):
    """user, history and target are None where the file tells only SIDs."""

    row: int
    user: str | None
    history: list[str] | None
    target: str | None
    target_sid: str | None
    prompt: Messages | None = None  # None for a baseline, which reads the history


def read_asked_rows(sft_file: str | Path, rows_file: str | Path | None, limit: int | None = None) -> list[AskedRow]:
    """The first `limit` rows of a test file.

    Raises FileNotFoundError; UserError naming file and row for an empty split, a row without its keys or with a value
    of another kind, two files of different length, a limit below 1.
    """
    check_range("limit", limit, least=1)
    rows = read_sft_rows(sft_file)
    users = read_user_rows(rows_file) if rows_file else [{"row": i} for i in range(len(rows))]
    if len(rows) != len(users):
        raise UserError(f"{sft_file} has {len(rows)} rows and {rows_file} {len(users)}; build the data again")
    return [
        AskedRow(
            row=user["row"],
            user=user.get("user"),
            history=user.get("history"),
            target=user.get("target"),
            target_sid=row_answer(row).strip(),
            prompt=row_messages(row),
        )
        for row, user in zip(rows[:limit], users[:limit], strict=True)
    ]


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
