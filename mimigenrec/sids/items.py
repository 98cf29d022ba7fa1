"""The items of a catalogue as texts in a fixed order, and how an order is recognised again.

item.json   {"0": {"title": "...", "description": "...", "brand": "...", "categories": "..."}, ...}

Row i of every array of vectors or codes belongs to the i-th id, ids in the order of their numbers (names that are not
numbers come behind, sorted). With ids 0 .. n - 1, as preparation writes them, row i is item i.
"""

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json

FIELDS = ("title", "description", "brand", "categories")
LONGEST_LIST = 100_000  # characters; a longer one is not parsed, so that a hostile file costs no time


def read_item_texts(path: str | Path, template: str) -> dict[str, str]:
    """item.json -> item id -> text, in row order. The template names fields: "{title}\\n{description}".

    A missing field is empty; lines of the template that stay empty are left out. Raises ValueError naming the field
    or item that cannot be read.
    """
    content = read_json(path, made_by="preparation, one entry per item id")
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must map item ids to their fields and hold at least one item")
    texts = {}
    for item in sorted(content, key=_row_order):
        if not isinstance(content[item], dict):
            raise UserError(f"{path}: item {item!r} needs a map with 'title' and so on, found {content[item]!r:.80}")
        fields = {name: plain_text(content[item].get(name)) for name in FIELDS}
        try:
            text = template.format(**fields)
        except (KeyError, IndexError) as error:
            raise UserError(f"--template {template!r} names {error}; it may name {', '.join(FIELDS)}") from error
        texts[item] = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    return texts


def plain_text(value: Any) -> str:
    """One line of text: lists joined by ", ", a text that spells a Python list of texts read as one, null as ""."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]") and len(value) <= LONGEST_LIST:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass  # a text that begins and ends with brackets and is no list: it stays as it is
    if isinstance(value, (list, tuple)):
        value = ", ".join(plain_text(part) for part in value)
    return " ".join(str(value).split()) if value is not None else ""


def order_hash(items: Sequence[str]) -> str:
    """SHA-256 of the ids, one a line: two arrays with the same hash have their rows in the same order."""
    return hashlib.sha256("\n".join(items).encode()).hexdigest()


def _row_order(item: str) -> tuple[int, int | str]:
    return (0, int(item)) if item.isdecimal() else (1, item)
