"""item.json -> the titles and descriptions that the tasks read. Every rule is stated here and counted.

items.py reads the file and says what a list is; here texts are cut, counted and left out.

1. Runs of white space become one space: titles of a history stand on lines of their own, and some chat templates trim.
2. A missing or empty text is no text: the item has no such key, and tasks that need it leave the item out.
3. A list of strings, or a text that spells one, becomes its parts joined by a space. What looks like a list and is not
   one stays as it is.
4. A text of more than `max_chars` characters is cut at the last space before that.
5. A text of several items with different SIDs is no question, since it has several right answers, and stays an
   answer, since each of them is right (`catalog.texts_of_one_sid`).
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.items import plain_text, read_items, spelled_list


def read_texts(
    path: str | Path, max_chars: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, str], Counter[str]]:
    """item.json -> (its items, title by id, description by id, how often each rule was used).

    Raises as read_items does, and UserError naming the item whose title or description is neither a text nor a list.
    """
    items = read_items(path, as_in_file=True)  # the order in which samples of items are made, then shuffled
    counts: Counter[str] = Counter()
    texts: dict[str, dict[str, str]] = {"title": {}, "description": {}}
    for item, fields in items.items():
        for name, texts_by_item in texts.items():
            try:
                text = clean(fields.get(name), max_chars, name, counts)
            except ValueError as error:
                raise UserError(f"{path}: {name} of item {item!r}: {error}") from error
            if text:
                texts_by_item[item] = text
            else:
                counts[f"{name}_empty"] += 1
    for name, texts_by_item in texts.items():
        owners = Counter(texts_by_item.values())
        counts[f"{name}_shared"] = sum(count for count in owners.values() if count > 1)
    return items, texts["title"], texts["description"], counts


def clean(value: Any, max_chars: int, name: str, counts: Counter[str]) -> str:
    """One text after rules 1 to 4, "" for no text. counts gets what was done, its keys beginning with `name`."""
    if isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]":
        counts[f"{name}_{'list_not_literal' if spelled_list(value) is None else 'from_list'}"] += 1
    elif not (value is None or isinstance(value, str)):
        if not (isinstance(value, list) and all(isinstance(part, str) for part in value)):
            raise UserError(f"expected a text, found {value!r:.80}")
    text = plain_text(value)
    if len(text) <= max_chars:
        return text
    counts[f"{name}_cut"] += 1
    whole_words, space, _ = text[: max_chars + 1].rpartition(" ")
    return whole_words if space else text[:max_chars]
