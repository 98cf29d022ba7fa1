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
from mimigenrec.interactions.events import Log
from mimigenrec.interactions.imported import read_item_json
from mimigenrec.interactions.inter_file import History
from mimigenrec.interactions.rows import Row, rows_to_events

TASK = "task1_sid_sft"
CUT = 10  # items of a history in the published rows
SID = re.compile(r"(?:<[^<>\s]+>)+")


def read_published(interactions: list[Path], items: list[Path], id2sid: Path | None, given: bool) -> Log:
    if id2sid is None:
        raise UserError("--source mimigenrec needs --id2sid, the id2sid.json beside the published rows")
    notes = {"targets_whose_sid_is_shared": 0}
    item_of, shared = _items_by_sid(id2sid)
    rows = (
        (items, target, file)
        for file, path in enumerate(interactions)
        for items, target in _rows(path, item_of, shared, notes)
    )
    events, split = rows_to_events(chain(rows), notes, interactions, given)
    inputs = [*interactions, *items, id2sid]
    texts = lambda wanted: read_item_json(items, wanted, notes)  # noqa: E731
    return Log(events, texts, None, inputs, notes, has_times=False, given=split)


def chain(rows: Iterable[tuple[tuple[str, ...], str, int]]) -> Iterator[Row]:
    """(history, target, file) in order of time -> the same with users; of several that fit, who waits longest."""
    waiting: dict[tuple[str, ...], list[str]] = {}
    for number, (items, target, file) in enumerate(rows):
        fits = waiting.get(items)
        user = fits.pop(0) if fits else f"user{number}"
        yield Row(History(number, user, items, target), None, file)
        waiting.setdefault((*items, target)[-CUT:], []).append(user)


def _items_by_sid(path: Path) -> tuple[dict[str, str], set[str]]:
    """SID -> its first item; SIDs of several items."""
    item_of: dict[str, str] = {}
    shared = set()
    content = read_json(path, "MIMIGenRec, one list of SID tokens per item id", kind=dict, unique=True)
    for item, tokens in content.items():
        if not (isinstance(tokens, list) and tokens and all(isinstance(token, str) for token in tokens)):
            raise UserError(f"{path}: item {item!r} needs a list of SID tokens, found {tokens!r:.80}")
        sid = "".join(tokens)
        if sid in item_of:
            shared.add(sid)
        item_of.setdefault(sid, item)
    return item_of, shared


def _rows(
    path: Path, item_of: dict[str, str], shared: set[str], notes: dict[str, int]
) -> Iterator[tuple[tuple[str, ...], str]]:
    content = read_json(path, made_by="MIMIGenRec's preprocessing for RL", kind=list)
    rows = [parts for place, row in enumerate(content) if (parts := _parts(row, f"{path}, row {place + 1}"))]
    if not rows:
        raise UserError(f"{path} has no row of task {TASK}; it takes MIMIGenRec's rl/*.json")
    for index, prompt, target in sorted(rows, key=lambda row: row[0]):
        notes["targets_whose_sid_is_shared"] += target in shared
        *history, item = (_item(sid, item_of, path, index) for sid in [*SID.findall(prompt), target])
        yield tuple(history), item


def _parts(row: Any, where: str) -> tuple[int, str, str] | None:
    """(index, the prompt's last message, the target's SID); None for a row of another task."""
    match row:
        case {"extra_info": {"task": str(task)}} if task != TASK:
            return None
        case {
            "extra_info": {"task": str(), "index": int(index)},
            "prompt": [*_, {"content": str(prompt)}],
            "reward_model": {"ground_truth": str(target)},
        }:
            return index, prompt, target.strip()
    raise UserError(
        f"{where}: not a row of MIMIGenRec's rl/*.json, which has extra_info (task, index), prompt (messages) and "
        f"reward_model (ground_truth); found {row!r:.80}"
    )


def _item(sid: str, item_of: dict[str, str], path: Path, index: int) -> str:
    if sid not in item_of:
        raise UserError(
            f"{path}: row with index {index} names {sid}, which id2sid.json has not; give the one of these rows"
        )
    return item_of[sid]
