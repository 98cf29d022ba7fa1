"""Which rows of a split can be used, why the others cannot, and how many there are of each.

A row is unusable if its target has no SID, or no item of its history has one. Train and valid leave such rows out; in
test they stay, where they count as misses. An item is unknown if neither item.json nor index.json has it.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from mimigenrec.catalog import Catalog
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History, read_inter


def why_not(history: History, catalog: Catalog) -> str | None:
    """The reason a row cannot be used, None if it can."""
    if history.target not in catalog.sids:
        return "target_without_sid"
    if not any(item in catalog.sids for item in history.items):
        return "history_without_sid"
    return None


def usable(path: str | Path, split: str, catalog: Catalog) -> Iterator[History]:
    """The rows of a .inter file that its split keeps, in order."""
    for history in read_inter(path):
        if split == "test" or why_not(history, catalog) is None:
            yield history


def survey(path: str | Path, catalog: Catalog, known: Collection[str]) -> Counter[str]:
    """Counts of a .inter file: rows, usable ones, unusable ones by reason, items (every mention) by what they lack.

    known    ids of item.json
    raises   UserError if every item is unknown (the catalogue is another data set's), or no row can be used
    """
    names = ("rows", "usable", "target_without_sid", "history_without_sid", "items", "items_without_sid")
    counts = Counter(dict.fromkeys((*names, "items_unknown"), 0))
    unknown: dict[str, int] = {}  # item id -> row where it is first met
    for history in read_inter(path):
        counts["rows"] += 1
        counts[why_not(history, catalog) or "usable"] += 1
        for item in (*history.items, history.target):
            counts["items"] += 1
            if item not in catalog.sids:
                counts["items_without_sid"] += 1
                if item not in known:
                    counts["items_unknown"] += 1
                    unknown.setdefault(item, history.row)
    if counts["items_unknown"] == counts["items"]:
        item, row = next(iter(unknown.items()))
        raise UserError(
            f"{path}, line {row + 2}: item {item!r} and all the others are in neither item.json nor index.json; the "
            f"interactions and the catalogue belong to different data sets"
        )
    if not counts["usable"]:
        raise UserError(
            f"{path}: none of its {counts['rows']} rows can be used: {counts['target_without_sid']} targets have no "
            f"SID in index.json, {counts['history_without_sid']} histories hold no item that has one"
        )
    return counts
