"""Catalog: what is known of each item. Loaded once, handed to whoever asks.

items.json      {"17": {"title": "...", "description": "...", "popularity": 12}, ...}
                written by preprocessing beside id2sid.json and copied into every checkpoint, so that a checkpoint can
                name what it recommends. It lists every item of item.json, those without a text and a SID too: rows of
                item vectors are counted by it. `popularity` counts how often the item is the target of a train row.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.items import id_order
from mimigenrec.sids.tokens import Sid, join_sid, read_index

log = logging.getLogger(__name__)


@dataclass
class Catalog:
    """Items by id. Items may lack a title, a description or a SID; a key is there only with a non-empty value.

    known   ids of item.json, which may have none of the three; () where only the others are known
    """

    sids: dict[str, Sid]
    titles: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    popularity: Mapping[str, int] = field(default_factory=dict)
    known: Collection[str] = ()

    @property
    def items(self) -> list[str]:
        """Every id, those with a SID first, in the order of the index."""
        more = sorted(self.known, key=id_order)
        return list(dict.fromkeys([*self.sids, *self.titles, *self.descriptions, *more]))

    @cached_property
    def items_of(self) -> dict[Sid, list[str]]:
        """SID -> its items, the most popular in train first, then by id: the order in which they are recommended."""
        groups: dict[Sid, list[str]] = {}
        for item, sid in self.sids.items():
            groups.setdefault(sid, []).append(item)
        for items in groups.values():
            items.sort(key=lambda item: (-self.popularity.get(item, 0), id_order(item)))
        return groups


def load_catalog(folder: str | Path) -> Catalog:
    """id2sid.json and, where it is there, items.json of a data folder or a checkpoint.

    Raises UserError naming the item of items.json whose entry cannot be read.
    """
    folder = Path(folder)
    catalog = Catalog(sids=read_index(folder / "id2sid.json"))
    path = folder / "items.json"
    if path.is_file():
        entries = read_json(path, made_by="preprocessing", kind=dict, unique=True)
        for item, entry in entries.items():
            _check_entry(path, item, entry)
            for name, values in (("title", catalog.titles), ("description", catalog.descriptions)):
                if entry.get(name):
                    values[item] = entry[name]
            if entry.get("popularity"):
                catalog.popularity[item] = entry["popularity"]
        catalog.known = list(entries)
    return catalog


def _check_entry(path: Path, item: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise UserError(
            f"{path}: item {item!r} needs a map with 'title' and so on, found {entry!r:.80}; preprocess again"
        )
    for name, kind in (("title", str), ("description", str), ("popularity", int)):
        if not isinstance(entry.get(name), kind | None):
            raise UserError(f"{path}: {name} of item {item!r} is {entry[name]!r:.80}; preprocess again")


def write_items(path: str | Path, catalog: Catalog) -> None:
    """Every item that the catalogue knows, whatever it lacks."""
    write_json(
        path,
        {
            item: {
                "title": catalog.titles.get(item, ""),
                "description": catalog.descriptions.get(item, ""),
                "popularity": catalog.popularity.get(item, 0),
            }
            for item in catalog.items
        },
        indent=None,
    )


def check_same_catalogue(sids: Mapping[str, Sid], data: str | Path, checkpoint: str | Path) -> None:
    """Raises UserError if a checkpoint was trained on other SIDs than these; only warns where it does not tell.

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
