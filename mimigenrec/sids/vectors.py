"""Item vectors: one file of numbers and one that says what they are.

C.emb-NAME.npy     (items, dim) float32 (float16 and float64 are read too), rows as in sids/items.py
C.emb-NAME.json    {"model", "dim", "items", "item_order", "normalised", ...}; vectors from elsewhere may lack it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.sids.items import order_hash

CHUNK = 65_536  # rows looked at together


def write_vectors(path: str | Path, vectors: np.ndarray, items: Sequence[str], **about: Any) -> None:
    """The array, then its side-car. about: at least model and normalised. Raises ValueError as check_vectors does."""
    check_vectors(vectors, items, path)
    with writing(path, "wb") as out:
        np.save(out, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
    facts = {"dim": vectors.shape[1], "items": len(items), "item_order": order_hash(items)}
    write_json(side_car(path), {**about, **facts})


def read_vectors(path: str | Path, items: Sequence[str]) -> np.ndarray:
    """(items, dim) float32. Raises ValueError if rows, order or values cannot be those of these items."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; mimigenrec embed writes it")
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not a whole .npy array ({error}); write it again") from error
    check_vectors(vectors, items, path)
    about = read_about(path)
    if about and about.get("item_order") != order_hash(items):
        raise UserError(
            f"{path} was made for {about.get('items')} items in another order or with other ids than the "
            f"{len(items)} given; run mimigenrec embed on this item.json"
        )
    return vectors.astype(np.float32, copy=False)


def read_about(path: str | Path) -> dict[str, Any]:
    """The side-car's content; {} where there is none."""
    about = side_car(path)
    return read_json(about, made_by="mimigenrec embed") if about.is_file() else {}


def side_car(path: str | Path) -> Path:
    return Path(path).with_suffix(".json")


def check_output(path: str | Path, items: str | Path) -> None:
    """Raises ValueError if `path` is no .npy, or its side-car would replace item.json."""
    if Path(path).suffix != ".npy":
        raise UserError(f"--output {path} must end in .npy; C.emb-NAME.npy is the usual name")
    if side_car(path).resolve() == Path(items).resolve():
        raise UserError(f"--output {path} would put its description in the place of --items {items}; rename it")


def check_vectors(vectors: np.ndarray, items: Sequence[str], name: str | Path) -> None:
    """Raises ValueError naming the first item whose vector is not finite, or what is wrong with the shape."""
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        raise UserError(f"{name} must be (items, dim) of floats, found shape {vectors.shape} of {vectors.dtype}")
    if len(vectors) != len(items):
        raise UserError(f"{name} has {len(vectors)} rows for {len(items)} items; embed this item.json again")
    for start in range(0, len(vectors), CHUNK):
        finite = np.isfinite(vectors[start : start + CHUNK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise UserError(f"{name}, row {row} (item {items[row]!r}) holds NaN or infinity; embed that item again")
