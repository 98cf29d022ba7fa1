"""item.json -> the titles and descriptions that the tasks read. Every rule is stated here and counted.

item.json   {"17": {"title": "...", "description": "...", ...}, ...}      other keys are left alone

1. Runs of white space become one space: titles of a history stand on lines of their own, and some chat templates trim.
2. A missing or empty text is no text: the item has no such key, and tasks that need it leave the item out.
3. A list of strings, or a text that is a Python list of strings (as the 2018 Amazon files have), becomes its parts
   joined by a space. It is read by ast.literal_eval, never run; what looks like a list and is not one stays as it is.
4. A text of more than `max_chars` characters is cut at the last space before that.
5. A text of several items with different SIDs is no question, since it has several right answers, and stays an
   answer, since each of them is right (`catalog.texts_of_one_sid`).
"""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json

LONGEST_LIST = 100_000  # characters; a longer one is not parsed, so that a hostile file costs no time


def read_texts(path: str | Path, max_chars: int) -> tuple[set[str], dict[str, str], dict[str, str], Counter[str]]:
    """item.json -> (all item ids, title by id, description by id, how often each rule was used).

    Raises UserError naming file and item if the file is not a map of item ids to maps, or a text is not a text.
    """
    content = read_json(path, made_by="the data set, one entry per item id")
    if not isinstance(content, dict):
        raise UserError(f"{path} must map item ids to their texts, found a {type(content).__name__}")
    counts: Counter[str] = Counter()
    texts: dict[str, dict[str, str]] = {"title": {}, "description": {}}
    for item, known in content.items():
        if not isinstance(known, dict):
            raise UserError(f"{path}: item {item!r} needs a map with 'title' and 'description', found {known!r:.80}")
        for name, texts_by_item in texts.items():
            try:
                text = clean(known.get(name), max_chars, name, counts)
            except ValueError as error:
                raise UserError(f"{path}: {name} of item {item!r}: {error}") from error
            if text:
                texts_by_item[item] = text
            else:
                counts[f"{name}_empty"] += 1
    for name, texts_by_item in texts.items():
        owners = Counter(texts_by_item.values())
        counts[f"{name}_shared"] = sum(count for count in owners.values() if count > 1)
    return set(content), texts["title"], texts["description"], counts


def clean(value: Any, max_chars: int, name: str, counts: Counter[str]) -> str:
    """One text after rules 1 to 4, "" for no text. counts gets what was done, its keys beginning with `name`."""
    if isinstance(value, str):
        value = _list_in(value.strip(), name, counts)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"expected a text, found {value!r:.80}")
    text = " ".join(value.split())
    if len(text) <= max_chars:
        return text
    counts[f"{name}_cut"] += 1
    whole_words, space, _ = text[: max_chars + 1].rpartition(" ")
    return whole_words if space else text[:max_chars]


def _list_in(text: str, name: str, counts: Counter[str]) -> str | list[str]:
    """The list of strings that a text spells, or the text."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        parts = ast.literal_eval(text) if len(text) <= LONGEST_LIST else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # what literal_eval raises on any other text
        parts = None
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        counts[f"{name}_from_list"] += 1
        return parts
    counts[f"{name}_list_not_literal"] += 1
    return text
