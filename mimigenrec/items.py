"""The items of a catalogue: the reader of item.json, the text of an item, and the order of ids.

item.json   {"0": {"title": "...", "description": "...", "brand": "...", "categories": "..."}, ...}, and any other key

Row i of every array of vectors or codes belongs to the i-th id, ids in the order of their numbers (names that are not
numbers come behind, sorted). With ids 0 .. n - 1, as preparation writes them, row i is item i.

A value is a text, or a list of texts or of lists of texts, or a text that spells such a list as Python writes it. The
2018 Amazon files have these: "['Bright.', 'Very.']". Parts are joined by a space, those of categories by ", ".
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.schema import shown

FIELDS = ("title", "description", "brand", "categories")
TEMPLATE = "{title}\\n{description}\\n{brand}\\n{categories}"
LONGEST_LIST = 100_000  # characters; a longer one is not parsed, so that a hostile file costs no time
DEEPEST = 10  # lists within lists


def read_entries(path: str | Path) -> dict[str, dict[str, Any]]:
    """item.json -> item id -> its fields, in the order of the file, texts unchecked.

    Raises FileNotFoundError; UserError naming the item for no item, an id twice, or fields that are no map.
    """
    content = read_json(path, made_by="preparation, one entry per item id", unique=True)
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{path} must hold a map, found the {type(content).__name__} {shown(content)}; it must map item ids to "
            f"their fields, and hold at least one item"
        )
    for item, fields in content.items():
        if not isinstance(fields, dict):
            raise UserError(f"{path}: item {item!r} needs a map of title, description, ..., found {fields!r:.80}")
    return content


def read_items(path: str | Path, as_in_file: bool = False) -> dict[str, dict[str, Any]]:
    """item.json -> item id -> its fields, in row order or in that of the file. Raises as read_entries does, and for a
    text that is none or cannot be written."""
    entries = read_entries(path)
    for item, fields in entries.items():
        check_text(path, item, "id", item)
        for name in FIELDS:
            check_text(path, item, name, fields.get(name))
    return entries if as_in_file else {item: entries[item] for item in sorted(entries, key=id_order)}


def read_item_texts(path: str | Path, template: str) -> dict[str, str]:
    """item.json -> item id -> text, in row order. The template names fields: "{title}\\n{description}".

    A missing field is empty; lines of the template that stay empty are left out. Raises as read_items and
    check_template do.
    """
    check_template(template)
    template, texts = template.replace("\\n", "\n"), {}
    for item, fields in read_items(path).items():
        text = template.format(**{name: field_text(fields, name) for name in FIELDS})
        texts[item] = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    return texts


def check_text(path: str | Path, item: str, name: str, value: Any, depth: int = 0) -> None:
    """Raises UserError naming the item for a map, lists too deep in each other, or half of a character."""
    if isinstance(value, dict) or depth > DEEPEST:
        raise UserError(f"{path}: {name} of item {item!r} must be a text or a list of texts, found {value!r:.80}")
    parts = spelled_list(value) if isinstance(value, str) else value  # what is spelled may spell any character
    if isinstance(parts, list):
        for part in parts:
            check_text(path, item, name, part, depth + 1)
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


def field_text(fields: Mapping[str, Any], name: str) -> str:
    """A field of an item as one line of text, "" where it has none."""
    return plain_text(fields.get(name), joiner(name))


def joiner(name: str) -> str:
    """What stands between the parts of a field that is a list."""
    return ", " if name == "categories" else " "


def plain_text(value: Any, between: str = " ") -> str:
    """One line of text: lists joined, a text that spells a list read as one; null and NaN are ""."""
    parts = spelled_list(value) if isinstance(value, str) else value
    if isinstance(parts, list):
        return between.join(filter(None, (plain_text(part, between) for part in parts)))
    return "" if value is None or value != value else " ".join(str(value).split())


def spelled_list(text: str) -> list | None:
    """The list of texts, or of lists of texts, that a text spells as Python writes it; None for any other text.

    ast.literal_eval reads it and runs nothing. What begins and ends with brackets and is no such list is text.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > LONGEST_LIST:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # of literal_eval, on any other text
        return None
    if not isinstance(value, list):
        return None
    parts = [part for inner in value for part in (inner if isinstance(inner, list) else [inner])]
    return value if all(isinstance(part, str) for part in parts) else None


def category_paths(fields: Mapping[str, Any], where: str) -> Iterator[list[str]]:
    """The ways through the tree of categories that lead to an item, each broad to narrow.

    fields  "categories" is "A, B", ["A", "B"] or a list of such lists, or a text that spells one of these lists
    where   names the item in the error for anything else
    """
    value = fields.get("categories")
    if not value or value != value:  # NaN is what it is not
        return
    parts = spelled_list(value) if isinstance(value, str) else value
    parts = value.split(",") if parts is None else parts
    for path in parts if isinstance(parts, list) and isinstance(next(iter(parts), None), list) else [parts]:
        if not isinstance(path, list) or any(isinstance(part, (list, dict)) for part in path):
            raise UserError(f"{where} has categories {value!r:.80}; give a text, a list of texts, or lists")
        yield [name for part in path if part is not None and (name := str(part).strip())]


def category_path(fields: Mapping[str, Any], where: str = "item") -> tuple[str, ...]:
    """The first of an item's ways, () for none. Raises as category_paths does."""
    return tuple(next(category_paths(fields, where), ()))


def category_names(fields: Mapping[str, Any], where: str = "item") -> list[str]:
    """The names on all of an item's ways, each once. Raises as category_paths does."""
    return list(dict.fromkeys(name for path in category_paths(fields, where) for name in path))


def order_hash(items: Sequence[str]) -> str:
    """SHA-256 of the ids, one a line: two arrays with the same hash have their rows in the same order."""
    return hashlib.sha256("\n".join(items).encode()).hexdigest()


def id_order(item: str) -> tuple[int, int | str]:
    """Sort key for item ids: numbers by value before other names, so that 9 comes before 10."""
    return (0, int(item)) if item.isdecimal() else (1, item)
