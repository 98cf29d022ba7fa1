"""The items of a catalogue as texts in a fixed order, and how an order is recognised again.

item.json   {"0": {"title": "...", "description": "...", "brand": "...", "categories": "..."}, ...}

Row i of every array of vectors or codes belongs to the i-th id, ids in the order of their numbers (names that are not
numbers come behind, sorted). With ids 0 .. n - 1, as preparation writes them, row i is item i.
"""

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json

FIELDS = ("title", "description", "brand", "categories")
LONGEST_LIST = 100_000  # characters; a longer one is not parsed, so that a hostile file costs no time
DEEPEST = 10  # lists within lists


def read_items(path: str | Path) -> dict[str, dict[str, Any]]:
    """item.json -> item id -> its fields, in row order.

    Raises UserError naming the item: no item, an id twice, fields that are no map, or a text that cannot be written.
    """
    content = read_json(path, made_by="preparation, one entry per item id", unique=True)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must map item ids to their fields and hold at least one item")
    for item, fields in content.items():
        if not isinstance(fields, dict):
            raise UserError(f"{path}: item {item!r} needs a map with 'title' and so on, found {fields!r:.80}")
        _check_text(path, item, "id", item)
        for name in FIELDS:
            _check_text(path, item, name, fields.get(name))
    return {item: content[item] for item in sorted(content, key=id_order)}


def read_item_texts(path: str | Path, template: str) -> dict[str, str]:
    """item.json -> item id -> text, in row order. The template names fields: "{title}\n{description}".

    A missing field is empty; lines of the template that stay empty are left out. Raises as read_items and
    check_template do.
    """
    check_template(template)
    texts = {}
    for item, fields in read_items(path).items():
        text = template.format(**{name: plain_text(fields.get(name)) for name in FIELDS})
        texts[item] = "\n".join(line.strip() for line in text.splitlines() if line.strip())
        _check_text(path, item, "text", texts[item])  # a text that spells a list may spell any character
    return texts


def _check_text(path: str | Path, item: str, name: str, value: Any, depth: int = 0) -> None:
    if isinstance(value, dict) or depth > DEEPEST:
        raise UserError(f"{path}: {name} of item {item!r} must be a text or a list of texts, found {value!r:.80}")
    if isinstance(value, list):
        for part in value:
            _check_text(path, item, name, part, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):x}"
            raise UserError(
                f"{path}: {name} of item {item!r} holds {half}, half of a character, which cannot be written; "
                f"remove it"
            ) from error


def check_template(template: str) -> None:
    """Raises UserError for anything in braces but the plain name of a field, and for no name at all."""
    try:
        parts = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"--template {template!r}: {error}; a brace that is text is written twice") from error
    names = [part for part in parts if part[0] is not None]
    for name, spec, conversion in names:
        if name not in FIELDS or spec or conversion:
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise UserError(
                f"--template {template!r} names {written!r}; it may name {', '.join(FIELDS)}, each as it is"
            )
    if not names:
        raise UserError(f"--template {template!r} names no field, so all items would have one text; write {{title}}")


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


def id_order(item: str) -> tuple[int, int | str]:
    """Sort key for item ids: numbers by value before other names, so that 9 comes before 10."""
    return (0, int(item)) if item.isdecimal() else (1, item)
