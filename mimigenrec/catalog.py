"""Catalog: what is known of each item. Loaded once, handed to whoever asks.

items.json      {"17": {"title": "...", "description": "...", "popularity": 12}, ...}
                written by preprocessing beside id2sid.json and copied into every checkpoint, so that a checkpoint can
                name what it recommends. `popularity` counts how often the item is the target of a train row.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sids.tokens import Sid, join_sid, read_index

log = logging.getLogger(__name__)


@dataclass
class Catalog:
    """Items by id. Items may lack a title, a description or a SID; a key is there only with a non-empty value."""

    sids: dict[str, Sid]
    titles: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    popularity: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def items_of(self) -> dict[Sid, list[str]]:
        """SID -> its items, the most popular in train first, then by id: the order in which they are recommended."""
        groups: dict[Sid, list[str]] = {}
        for item, sid in self.sids.items():
            groups.setdefault(sid, []).append(item)
        for items in groups.values():
            items.sort(key=lambda item: (-self.popularity.get(item, 0), id_order(item)))
        return groups


def id_order(item: str) -> tuple[int, int | str]:
    """Sort key for item ids: numbers by value before other names, so that 9 comes before 10."""
    return (0, int(item)) if item.isdecimal() else (1, item)


def load_catalog(folder: str | Path) -> Catalog:
    """id2sid.json and, where it is there, items.json of a data folder or a checkpoint."""
    folder = Path(folder)
    catalog = Catalog(sids=read_index(folder / "id2sid.json"))
    if (folder / "items.json").is_file():
        for item, known in read_json(folder / "items.json", made_by="preprocess_data_sft_rl.py").items():
            for name, values in (("title", catalog.titles), ("description", catalog.descriptions)):
                if known.get(name):
                    values[item] = known[name]
            if known.get("popularity"):
                catalog.popularity[item] = known["popularity"]
    return catalog


def write_items(path: str | Path, catalog: Catalog) -> None:
    items = dict.fromkeys([*catalog.sids, *catalog.titles, *catalog.descriptions])
    write_json(
        path,
        {
            item: {
                "title": catalog.titles.get(item, ""),
                "description": catalog.descriptions.get(item, ""),
                "popularity": catalog.popularity.get(item, 0),
            }
            for item in items
        },
        indent=None,
    )


def check_same_catalogue(sids: Mapping[str, Sid], data: str | Path, checkpoint: str | Path) -> None:
    """Raises ValueError if a checkpoint was trained on other SIDs than these; only warns where it does not tell.

    Items that came or went since (sid-assign) are no difference, as long as the others kept their SIDs. The names of
    the tokens tell nothing: every catalogue has an <a_0>.
    """
    own = Path(checkpoint) / "id2sid.json"
    if not own.is_file():
        log.warning("%s has no id2sid.json; taking the catalogue of %s on trust", checkpoint, data)
        return
    theirs = read_index(own)
    shared = [item for item in sids if item in theirs]
    other = next((item for item in shared if sids[item] != theirs[item]), None)
    if not shared or other is not None:
        what = "they have no item in common"
        if other is not None:
            what = f"item {other!r} is {join_sid(theirs[other])} there and {join_sid(sids[other])} in the data"
        raise UserError(
            f"{checkpoint} was trained on another catalogue than {data}: {what}. Use the data that it was trained on, "
            f"or run SFT on these"
        )
    came, went = len(sids) - len(shared), len(theirs) - len(shared)
    if came or went:
        log.warning("%s knows %d items that %s does not, and lacks %d that are there", data, came, checkpoint, went)


def texts_of_one_sid(texts: Mapping[str, str], sids: Mapping[str, Sid]) -> dict[str, Sid]:
    """text -> SID, for the texts (by item id) whose items all have one SID; texts of several SIDs are left out."""
    found: dict[str, set[Sid]] = {}
    for item, text in texts.items():
        if item in sids:
            found.setdefault(text, set()).add(sids[item])
    return {text: next(iter(those)) for text, those in found.items() if len(those) == 1}
