"""Sets that others have prepared already, read back into events.

MiniOneRec   train.csv valid.csv test.csv in this order, one row per prediction; lists are Python literals
             user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid
.inter       C.train.inter C.valid.inter C.test.inter in this order (MIMIGenRec, ours)
MIMIGenRec,  C.inter.json, {"user": [item, item, ...]}, oldest first
LC-Rec
S3-Rec, P5   C.txt or C.txt.gz, "user item item ..." a line, oldest first

Rows have no time: their order is the time, and what a user's first row has as history comes just before that row.
With --user_k 0 --item_k 0 --duplicates keep --ids given a set that is complete comes out as it went in.
In C.inter.json and C.txt the order is known within a user alone, so they take --split leave_one_out.
Items: C.item.json; MiniOneRec's titles come from its rows if there is none.
"""

import ast
import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.interactions.events import Item, Log, events_from_rows
from mimigenrec.interactions.inter_file import History, read_inter
from mimigenrec.interactions.item_texts import ItemTexts

Event = tuple[str, str, int, None]


def read_sequences(interactions: list[Path], items: list[Path]) -> Log:
    notes: dict[str, int] = {}
    return Log(
        events_from_rows(_in_order(interactions)), lambda wanted: read_item_json(items, wanted), None,
        [*interactions, *items], notes,
    )  # fmt: skip


def _in_order(paths: list[Path]) -> Iterator[Event]:
    for path in paths:
        if path.name.endswith((".txt", ".txt.gz")):
            yield from _lines_in_order(path)
            continue
        content = read_json(path, made_by="MIMIGenRec or LC-Rec, one list of item ids per user")
        if not isinstance(content, dict):
            raise UserError(f"{path} must map user ids to lists of item ids, found a {type(content).__name__}")
        for user, items in content.items():
            if not isinstance(items, list):
                raise UserError(f"{path}: user {user!r} needs a list of item ids, found {items!r:.80}")
            for place, item in enumerate(items):
                yield user, str(item), place * 1000, None


def _lines_in_order(path: Path) -> Iterator[Event]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as lines:
        for number, line in enumerate(lines, 1):
            user, *items = line.split() or [""]
            if not items:
                raise UserError(f"{path}, line {number}: expected a user and items, found {line.rstrip()!r:.80}")
            for place, item in enumerate(items):
                yield user, item, place * 1000, None


def read_rows(interactions: list[Path], items: list[Path]) -> Log:
    notes: dict[str, int] = {}
    titles: dict[str, str] = {}
    rows = (row for path in interactions for row in _rows(path, titles))
    events = events_from_rows(rows_to_events(rows, notes))

    def texts(wanted: set[str] | None) -> dict[str, Item]:
        if items:
            return read_item_json(items, wanted)
        found = ItemTexts(wanted, notes)
        for item, title in titles.items():
            found.add(item, title)
        return found.items

    return Log(events, texts, None, [*interactions, *items], notes)


def rows_to_events(rows: Iterable[History], notes: dict[str, int]) -> Iterator[Event]:
    """Row n happens at second n + 1; a user's first history lies in the milliseconds before their first row.

    A later row of the user adds its target. Its history must end in what the user had last; rows where it does not
    are counted in notes["rows_that_do_not_continue"] and add their target all the same.
    """
    last: dict[str, str] = {}
    for number, row in enumerate(rows):
        now = (number + 1) * 1000
        if row.user not in last:
            for place, item in enumerate(row.items):
                yield row.user, item, now - len(row.items) + place, None
        elif row.items[-1:] != (last[row.user],):
            notes["rows_that_do_not_continue"] = notes.get("rows_that_do_not_continue", 0) + 1
        yield row.user, row.target, now, None
        last[row.user] = row.target


def _rows(path: Path, titles: dict[str, str]) -> Iterator[History]:
    if path.suffix != ".csv":
        yield from read_inter(path)
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        if missing := {"user_id", "history_item_id", "item_id"} - set(reader.fieldnames or ()):
            raise UserError(f"{path} has no column {', '.join(sorted(missing))}; it has {reader.fieldnames}")
        for number, row in enumerate(reader):
            try:
                history = ast.literal_eval(row["history_item_id"])
                known = ast.literal_eval(row.get("history_item_title") or "[]")
            except (ValueError, SyntaxError, TypeError) as error:
                raise UserError(f"{path}, row {number + 1}: a history is not a list ({error})") from error
            items = tuple(map(str, history))
            titles.update(zip(items, known, strict=False))
            titles[row["item_id"]] = row.get("item_title") or ""
            yield History(number, row["user_id"], items, row["item_id"])


def read_item_json(paths: list[Path], wanted: set[str] | None) -> dict[str, Item]:
    """C.item.json as it is: its texts were cleaned by whoever wrote it."""
    found: dict[str, Item] = {}
    for path in paths:
        content = read_json(path, made_by="MiniOneRec, MIMIGenRec or LC-Rec, one entry per item id")
        for item, texts in content.items():
            if wanted is None or item in wanted:
                keys = ("title", "description", "brand", "categories")
                found[item] = {key: texts.get(key) or "" for key in keys}
    return found
