"""Sequences and item texts that others have prepared already, read back.

MIMIGenRec,  C.inter.json, {"user": [item, item, ...]}, oldest first
LC-Rec
S3-Rec, P5   C.txt or C.txt.gz, "user item item ..." a line, oldest first, separated by spaces or tabs
Items        C.item.json, {"item": {"title", "description", "brand", "categories"}}

The order is known within a user alone, and there are no times, so sequences take --split leave_one_out.
Rows (one prediction each) are read by rows.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.interactions.events import Item, Log, events_from_rows
from mimigenrec.interactions.item_texts import clean_text, flat
from mimigenrec.interactions.json_lines import has_half_character, read_text_lines
from mimigenrec.interactions.names import whole_characters
from mimigenrec.items import FIELDS, joiner, read_entries

Event = tuple[str, str, int, None]


def read_sequences(interactions: list[Path], items: list[Path]) -> Log:
    notes: dict[str, int] = {}
    return Log(
        events_from_rows(_in_order(interactions)), lambda wanted: read_item_json(items, wanted, notes), None,
        [*interactions, *items], notes, has_times=False,
    )  # fmt: skip


def _in_order(paths: list[Path]) -> Iterator[Event]:
    for path in paths:
        if path.name.lower().endswith((".txt", ".txt.gz")):
            yield from _lines_in_order(path)
            continue
        content = read_json(path, made_by="MIMIGenRec or LC-Rec, one list of item ids per user", unique=True)
        if not isinstance(content, dict):
            raise UserError(f"{path} must map user ids to lists of item ids, found a {type(content).__name__}")
        for user, items in content.items():
            if not isinstance(items, list):
                raise UserError(f"{path}: user {user!r} needs a list of item ids, found {items!r:.80}")
            for place, item in enumerate(items):
                yield user, item_id(item, f"{path}: user {user!r}"), place * 1000, None


def item_id(item: Any, where: str) -> str:
    """An id in a list, which JSON may hold as a number. Raises UserError for null, NaN, true, lists and the like."""
    if isinstance(item, str) or type(item) is int or type(item) is float and item == item:
        return str(item)
    raise UserError(f"{where} has {item!r:.80} among its items; an item id is a text or a number")


def _lines_in_order(path: Path) -> Iterator[Event]:
    for number, line in read_text_lines(path):
        user, *items = re.split("[ \t]+", line.strip(" \t"))
        if not items:
            raise UserError(
                f"{path}, line {number}: expected a user and items separated by spaces, found {line!r:.80}"
                + _commas(user)
            )
        if len(items) == 1 and "," in items[0]:
            raise UserError(f"{path}, line {number}: {items[0]!r:.80} is one item" + _commas(items[0]))
        for place, item in enumerate(items):
            yield user, item, place * 1000, None


def _commas(text: str) -> str:
    return "; write spaces for the commas (tr ',' ' ')" if "," in text else ""


def read_item_json(paths: list[Path], wanted: set[str] | None, notes: dict[str, int]) -> dict[str, Item]:
    """C.item.json as it is, where a text is a text: whoever wrote it has cleaned it. Lists are joined.

    notes["items_with_half_a_character"] counts the items in whose texts U+FFFD stands for what no file can hold.
    """
    items: dict[str, Item] = {}
    for path in paths:
        for item, texts in read_entries(path).items():
            if wanted is None or item in wanted:
                if has_half_character(texts):
                    notes["items_with_half_a_character"] = notes.get("items_with_half_a_character", 0) + 1
                items[item] = {key: _as_it_is(texts.get(key), joiner(key)) for key in FIELDS}
    return items


def _as_it_is(value: Any, between: str) -> str:
    if isinstance(value, str):
        return whole_characters(value)
    return between.join(filter(None, map(clean_text, flat(value))))
