"""Names that become parts of file names and lines: the category of a data set, and the ids of users and items.

A category is the first part of file names and of the names that LLaMA-Factory knows the rows by: letters, digits,
spaces and `_ . + & -`, beginning with a letter, a digit or `_`. `../x`, `a/b`, `a,b` and "" are none.
An id is any text that stands on one line of C.item2id, before a tab: spaces, emoji and letters of every script are
fine. An empty id is none, nor is one with a tab, a line end or another control character, or half a character.
"""

import re
from typing import Any

from mimigenrec.errors import UserError

CATEGORY = re.compile(r"\w(?:[\w .+&-]*[\w.+&-])?")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can hold one ("\ud800"), a UTF-8 file cannot
MISSING = {"nan", "NaN", "null", "NULL", "None", "<NA>", "\\N"}  # how software writes that there is nothing
NOT_IN_AN_ID = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_category(category: str, flag: str = "--category") -> None:
    """Raises UserError unless the category can be a part of a file name, and of nothing else."""
    if not CATEGORY.fullmatch(category):
        raise UserError(
            f"{flag} is {category!r}; it is the first part of file names, so it must begin with a letter, a digit or "
            f"_ and hold nothing but those, spaces and . + & -"
        )


def is_id(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    return name.isalnum() or (NOT_IN_AN_ID.search(name) is None and bool(name.strip()))  # most are letters and digits


def why_no_id(name: Any) -> str:
    """What is wrong with a name that is_id refuses, and what to do."""
    if not isinstance(name, str):
        return f"an id must be a text, found {name!r:.80}; write it in quotes"
    if not name or name.isspace():
        return f"an id must not be empty, found {name!r}; fill it in, or leave the line out"
    character = NOT_IN_AN_ID.search(name)[0]
    if LONE_SURROGATE.match(character):
        what = "half a character (a lone surrogate), which no file can hold"
    else:
        what = f"the control character {character!r}, and C.item2id holds one id per line, before a tab"
    return f"the id {name!r:.80} holds {what}; write the id anew"


def whole_characters(text: str) -> str:
    """The text with U+FFFD in place of each half of a character."""
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)
