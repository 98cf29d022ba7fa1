"""Sequences -> rows of train, valid and test. A row is one prediction: an event, and what its user had before it.

Every event of a user but the first is a row. Rows are named by their event's place in the sequences.

    time            rows in order of time (then user, then place) are cut 8:1:1, as MiniOneRec and MIMIGenRec do
    leave_one_out   a user's last row is test, the one before it valid, the others train (SASRec, TIGER); rows stay in
                    the order of users. A user of two events has a test row alone, one of three no train row
    given           the rows of the source's own train, valid and test, each in its file and in the order of that file;
                    events that are the target of no row there are none, nor is one whose user had nothing before
"""

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Given
from mimigenrec.interactions.sequences import Sequences

SPLITS = ("train", "valid", "test")


def split_rows(sequences: Sequences, how: str, ratio: list[int], given: Given | None = None) -> dict[str, np.ndarray]:
    """Split -> its rows in order. ratio: parts of train, valid and test, for "time" only; given: for "given".

    Raises UserError if a split would be empty.
    """
    n = len(sequences.user)
    is_row = np.ones(n, dtype=bool)
    is_row[sequences.start[:-1]] = False
    rows = np.flatnonzero(is_row)
    if how == "time":
        rows = rows[np.argsort(sequences.time[rows], kind="stable")]
        first = len(rows) * ratio[0] // sum(ratio)
        second = len(rows) * (ratio[0] + ratio[1]) // sum(ratio)
        parts = rows[:first], rows[first:second], rows[second:]
    elif how == "given":
        split, place = given.split[sequences.line[rows]], given.row[sequences.line[rows]]
        order = np.argsort(place, kind="stable")
        parts = tuple(rows[order][split[order] == number] for number in range(3))
    else:
        left = sequences.start[sequences.user[rows] + 1] - rows  # 1: the user's last event
        parts = rows[left > 2], rows[left == 2], rows[left == 1]
    for split, part in zip(SPLITS, parts, strict=True):
        if not len(part):
            raise UserError(
                f"the split {split} is empty: {len(rows)} rows of {len(sequences.users)} users are too few for "
                f"--split {how}; keep more interactions (--user_k, --item_k, --since, --until)"
            )
    return dict(zip(SPLITS, parts, strict=True))


def history_starts(sequences: Sequences, rows: np.ndarray, history: int) -> np.ndarray:
    """(r,) where the history of each row begins: its latest `history` events, all of them if history is 0."""
    first = sequences.start[sequences.user[rows]]
    return np.maximum(first, rows - history) if history else first
