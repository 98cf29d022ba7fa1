"""Catalog: what is known of each item. Loaded once, handed to whoever asks.

items.json      {"17": {"title": "...", "description": "...", "popularity": 12, "brand": "...",
                "categories": ["broad", "narrow"], "price": 3.5}, ...}
                written by preprocessing beside id2sid.json and copied into every checkpoint, so that a checkpoint can
                name what it recommends. It lists every item of item.json, those without a text and a SID too: rows of
                item vectors are counted by it. `popularity` counts how often the item is the target of a train row.
                The keys behind it are there only where item.json has a value: brand, categories, and the columns of
                `preprocess --item_fields`, whose values are texts, numbers, true, false or lists of these.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.items import category_names, check_text, field_text, id_order
from mimigenrec.sids.tokens import Sid, join_sid, read_index

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


KEYS = {  # of items.json -> kind of value, attribute of Catalog; any other key is one of Catalog.fields
    "title": (str, "titles"),
    "description": (str, "descriptions"),
    "popularity": (int, "popularity"),
    "brand": (str, "brands"),
    "categories": (list, "categories"),
}


@dataclass
class Catalog:
    """Items by id. Items may lack any of these but their id; a key is there only with a non-empty value.

    categories  names, broad to narrow
    fields      further columns: {"price": {"17": 3.5}}
    known       ids of item.json, of which nothing else may be known; () where items.json is missing
    """

    sids: dict[str, Sid]
    titles: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    popularity: Mapping[str, int] = field(default_factory=dict)
    brands: dict[str, str] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: Collection[str] = ()

    @property
    def items(self) -> list[str]:
        """Every id, those with a SID first, in the order of the index."""
        more = sorted(self.known, key=id_order)
        return list(dict.fromkeys([*self.sids, *self.titles, *self.descriptions, *more]))

    def column(self, key: str) -> dict[str, Any]:
        """The values of a key of items.json by item."""
        return getattr(self, KEYS[key][1]) if key in KEYS else self.fields.setdefault(key, {})

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
            for key, value in entry.items():
                if value or key not in KEYS:
                    catalog.column(key)[item] = value
        catalog.known = list(entries)
    return catalog


def _check_entry(path: Path, item: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise UserError(
            f"{path}: item {item!r} needs a map with 'title' and so on, found {entry!r:.80}; preprocess again"
        )
    for key, value in entry.items():
        right = isinstance(value, KEYS[key][0] | None) if key in KEYS else is_field(value)
        if not right or key == "categories" and not all(isinstance(name, str) for name in value or ()):
            raise UserError(f"{path}: {key} of item {item!r} is {value!r:.80}; preprocess again")


def is_field(value: Any) -> bool:
    """Whether a value can stand in items.json: a text, a number, true, false, or a list of these."""
    return all(
        isinstance(part, (str, bool, int)) or isinstance(part, float) and math.isfinite(part)
        for part in (value if isinstance(value, list) else [value])
    )


def write_items(path: str | Path, catalog: Catalog) -> None:
    """Every item that the catalogue knows, whatever it lacks."""
    more = {key: column for key in ("brand", "categories", *catalog.fields) if (column := catalog.column(key))}
    write_json(
        path,
        {
            item: {
                "title": catalog.titles.get(item, ""),
                "description": catalog.descriptions.get(item, ""),
                "popularity": catalog.popularity.get(item, 0),
            }
            | {key: column[item] for key, column in more.items() if item in column}
            for item in catalog.items
        },
        indent=None,
    )


def add_fields(
    catalog: Catalog, items: Mapping[str, Mapping[str, Any]], columns: Collection[str], path: str | Path
) -> None:
    """Puts brand, categories and these columns of item.json's items into the catalogue; "", [], null and NaN are none.

    Raises UserError naming the item whose categories or column are of a kind that items.json does not hold.
    """
    for item, fields in items.items():
        values = {"brand": field_text(fields, "brand"), "categories": category_names(fields, f"{path}: item {item!r}")}
        values |= {column: fields.get(column) for column in columns if column not in KEYS}
        for key, value in values.items():
            if value is None or value == "" or value == [] or value != value:
                continue
            if not is_field(value):
                raise UserError(
                    f"{path}: {key} of item {item!r} is {value!r:.80}; a column of --item_fields holds texts, "
                    f"numbers, true, false or lists of these"
                )
            check_text(path, item, key, value)
            catalog.column(key)[item] = value


def item_vectors(catalog: Catalog, path: str | Path) -> dict[str, "np.ndarray"]:
    """Item -> (dim,) float32, of the .npy made from the item.json of this catalogue, items without a SID too.

    Raises FileNotFoundError if the catalogue came without its items.json, and what read_vectors raises.
    """
    from mimigenrec.vectors.store import read_vectors  # numpy, which most readers of a catalogue do without

    if not catalog.known:
        raise FileNotFoundError(
            f"items.json is missing beside id2sid.json: without it nobody knows which item a row of {path} is; take "
            f"the folder that preprocessing wrote, or preprocess again"
        )
    items = sorted(catalog.items, key=id_order)
    return dict(zip(items, read_vectors(path, items), strict=True))


def check_same_catalogue(sids: Mapping[str, Sid], data: str | Path, checkpoint: str | Path) -> None:
    """Raises UserError if a checkpoint was trained on other SIDs than these; only warns where it does not tell.

    Items that came or went since (sid-assign) are no difference, as long as the others kept their SIDs. The names of
    the tokens tell nothing: every catalogue has an <a_0>.
    """
    index = Path(checkpoint) / "id2sid.json"
    if not index.is_file():
        log.warning("%s has no id2sid.json; taking the catalogue of %s on trust", checkpoint, data)
        return
    trained = read_index(index)
    shared = [item for item in sids if item in trained]
    other = next((item for item in shared if sids[item] != trained[item]), None)
    if not shared or other is not None:
        what = "they have no item in common"
        if other is not None:
            what = f"item {other!r} is {join_sid(trained[other])} there and {join_sid(sids[other])} in the data"
        raise UserError(
            f"{checkpoint} was trained on another catalogue than {data}: {what}. Use the data that it was trained on, "
            f"or run SFT on these"
        )
    came, went = len(sids) - len(shared), len(trained) - len(shared)
    if came or went:
        log.warning("%s knows %d items that %s does not, and lacks %d that are there", data, came, checkpoint, went)


def texts_of_one_sid(texts: Mapping[str, str], sids: Mapping[str, Sid]) -> dict[str, Sid]:
    """text -> SID, for the texts (by item id) whose items all have one SID; texts of several SIDs are left out."""
    sids_of_text: dict[str, set[Sid]] = {}
    for item, text in texts.items():
        if item in sids:
            sids_of_text.setdefault(text, set()).add(sids[item])
    return {text: next(iter(owners)) for text, owners in sids_of_text.items() if len(owners) == 1}
