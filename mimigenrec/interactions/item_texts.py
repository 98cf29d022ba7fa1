"""What is written of an item: title, description, brand, categories, as plain text on one line.

1. HTML entities are resolved, then tags and comments are cut out and runs of white space become one space.
2. A title with a script or a `<span id` in it is what a failed scrape left behind: the item has no title.
3. Lists and maps (descriptions, nested categories) are joined, a category once: by a space, and by ", " for
   categories. A category with a tag in it is left out. What is missing inside them (null, NaN) is left out.
4. Half a character, which JSON can hold ("\\ud800") and a UTF-8 file cannot, becomes U+FFFD.
"""

import html
import re
from collections.abc import Iterator
from typing import Any

from mimigenrec.interactions.events import Item
from mimigenrec.interactions.names import whole_characters

TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)
FAILED_SCRAPE = re.compile(r"<span id|<script|<style", re.IGNORECASE)


def clean_text(value: Any) -> str:
    """Any value as plain text; None and NaN give ""."""
    if not isinstance(value, str):
        if value is None or value != value:
            return ""
        if isinstance(value, (list, tuple, dict)):
            return " ".join(filter(None, map(clean_text, flat(value))))
    text = whole_characters(str(value))
    if "&" in text:
        text = html.unescape(html.unescape(text))  # some fields were escaped twice: &amp;quot;
    if "<" in text:
        text = TAG.sub(" ", text)
    return " ".join(text.split())


def clean_title(value: Any) -> str:
    if not isinstance(value, str) or FAILED_SCRAPE.search(value):
        return ""
    return clean_text(value).strip('"').strip()


def make_item(title: Any, description: Any, brand: Any, categories: Any) -> Item:
    brand = brand.removeprefix("by\n") if isinstance(brand, str) else brand  # some 2014 and 2018 entries
    kept = dict.fromkeys(clean_text(part) for part in flat(categories) if not TAG.search(str(part)))
    return {
        "title": clean_title(title),
        "description": " ".join(filter(None, map(clean_text, flat(description)))),
        "brand": clean_text(brand),
        "categories": ", ".join(filter(None, kept)),
    }


def flat(value: Any) -> Iterator[Any]:
    """The leaves of lists and maps; a value that is neither is one leaf. Missing values are none."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += reversed(part.values())
        elif isinstance(part, (list, tuple)):
            left += reversed(part)
        elif part is not None and part == part:  # NaN is what it is not
            yield part


class ItemTexts:
    """Collects items under their raw ids. Of two with one id the first that has a title stays; counted."""

    def __init__(self, wanted: set[str] | None, notes: dict[str, int]):
        self.wanted = wanted
        self.notes = notes
        self.items: dict[str, Item] = {}

    def add(self, name: str, title: Any, description: Any = None, brand: Any = None, categories: Any = None) -> None:
        if self.wanted is not None and name not in self.wanted:
            return
        item = make_item(title, description, brand, categories)
        known = self.items.setdefault(name, item)
        if known is item:
            return
        self._count("items_listed_again")
        if known["title"] != item["title"]:
            self._count("items_listed_again_with_another_title")
            if not known["title"]:
                self.items[name] = item

    def _count(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1
