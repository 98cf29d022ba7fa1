"""MIMIGenRec's published rows, which name items by SID and users not at all, read back into events.

    rl/train.json rl/valid.json rl/test.json, in this order, and id2sid.json
    {"prompt": [..., {"role": "user", "content": "... items <a_1><b_2><c_3>, <a_4>... in chronological order ..."}],
     "reward_model": {"ground_truth": "<a_7><b_8><c_9>"}, "extra_info": {"index": 2063, "task": "task1_sid_sft"}}

Rows of other tasks are passed over; `index` is the row's place in its file. Users are found again by chaining: a row
continues the sequence whose latest items (10, where the rows were cut) are its history. Two users with the same latest
items can be mistaken for each other, which changes no row. Of items that share a SID the first in id2sid.json stands
for all, so rows are the same SID by SID; notes count such rows.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.interactions.events import Log, events_from_rows
from mimigenrec.interactions.imported import read_item_json, rows_to_events
from mimigenrec.interactions.inter_file import History

TASK = "task1_sid_sft"
CUT = 10  # items of a history in the published rows
SID = re.compile(r"(?:<[^<>\s]+>)+")


def read_published(interactions: list[Path], items: list[Path], id2sid: Path | None) -> Log:
    if id2sid is None:
        raise UserError("--source mimigenrec needs --id2sid, the id2sid.json beside the published rows")
    notes = {"targets_whose_sid_is_shared": 0}
    item_of, shared = _items_by_sid(id2sid)
    rows = (row for path in interactions for row in _rows(path, item_of, shared, notes))
    events = events_from_rows(rows_to_events(chain(rows), notes))
    return Log(events, lambda wanted: read_item_json(items, wanted), None, [*interactions, *items, id2sid], notes)


def chain(rows: Iterable[tuple[tuple[str, ...], str]]) -> Iterator[History]:
    """(history, target) in order of time -> the same with users; of several that fit, the one that waits longest."""
    waiting: dict[tuple[str, ...], list[str]] = {}
    for number, (items, target) in enumerate(rows):
        fits = waiting.get(items)
        user = fits.pop(0) if fits else f"user{number}"
        yield History(number, user, items, target)
        waiting.setdefault((*items, target)[-CUT:], []).append(user)


def _items_by_sid(path: Path) -> tuple[dict[str, str], set[str]]:
    """SID -> its first item; SIDs of several items."""
    item_of: dict[str, str] = {}
    shared = set()
    for item, tokens in read_json(path, made_by="MIMIGenRec, one list of SID tokens per item id").items():
        sid = "".join(tokens)
        if sid in item_of:
            shared.add(sid)
        item_of.setdefault(sid, item)
    return item_of, shared


def _rows(
    path: Path, item_of: dict[str, str], shared: set[str], notes: dict[str, int]
) -> Iterator[tuple[tuple[str, ...], str]]:
    content = read_json(path, made_by="MIMIGenRec's preprocessing for RL")
    rows = [row for row in content if row["extra_info"]["task"] == TASK]
    if not rows:
        raise UserError(f"{path} has no row of task {TASK}; it takes MIMIGenRec's rl/*.json")
    for row in sorted(rows, key=lambda row: row["extra_info"]["index"]):
        target = row["reward_model"]["ground_truth"].strip()
        notes["targets_whose_sid_is_shared"] += target in shared
        named = [*SID.findall(row["prompt"][-1]["content"]), target]
        *history, item = (_item(sid, item_of, path, row) for sid in named)
        yield tuple(history), item


def _item(sid: str, item_of: dict[str, str], path: Path, row: dict[str, Any]) -> str:
    if sid not in item_of:
        raise UserError(f"{path}: row with index {row['extra_info']['index']} names {sid}, which id2sid.json has not")
    return item_of[sid]
