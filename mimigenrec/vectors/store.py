"""Item vectors: one file of numbers and one that says what they are.

C.emb-NAME.npy     (items, dim) float32 (float16 and float64 are read too), rows as in items.py
C.emb-NAME.json    {"model", "dim", "items", "item_order", "normalised", "manifest", ...}; vectors from elsewhere may
                   lack it

The side-car is written first: without the .npy it is what an interrupted run left, and the .npy alone is nobody's that
we know of. `mimigenrec` never writes over such a file unless it is told to.
"""

import tokenize
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mimigenrec.claim import check_same_file
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.items import order_hash

CHUNK = 8_192  # rows looked at together
SHORTEST, LONGEST = 1e-15, 1e15  # lengths whose squares, and sums of squares, 32-bit numbers can hold


def write_vectors(path: str | Path, vectors: np.ndarray, items: Sequence[str], **about: Any) -> None:
    """The side-car, then the array. about: at least model and normalised. Raises UserError as check_vectors does."""
    check_vectors(vectors, items, path)
    Path(path).unlink(missing_ok=True)  # at no time does it stand beside the side-car of other vectors
    facts = {"dim": vectors.shape[1], "items": len(items), "item_order": order_hash(items)}
    write_json(side_car(path), {**about, **facts})
    with writing(path, "wb") as out:
        np.save(out, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)


def read_vectors(path: str | Path, items: Sequence[str]) -> np.ndarray:
    """(items, dim) float32. Raises UserError if rows, order or values cannot be those of these items."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; mimigenrec embed writes it")
    vectors = read_array(path)
    check_vectors(vectors, items, path)
    about = read_about(path)
    if about and about.get("item_order") != order_hash(items):
        raise UserError(
            f"{path} was made for {about.get('items')} items in another order or with other ids than the "
            f"{len(items)} given; run mimigenrec embed on this item.json"
        )
    return vectors.astype(np.float32, copy=False)


def read_array(path: Path) -> np.ndarray:
    """Raises UserError for anything but a whole .npy array of numbers."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a damaged shape asks no memory
        if not isinstance(array, np.ndarray):
            raise ValueError("it is a .npz archive of arrays")
    except (ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError, BadZipFile) as error:
        raise UserError(f"{path} is not a whole .npy array ({error}); write it again") from error
    return np.array(array)


def read_about(path: str | Path) -> dict[str, Any]:
    """The side-car's content; {} where there is none. n.json beside n.npy may also be the items: that is no side-car.

    Raises UserError if it is neither.
    """
    about = side_car(path)
    if not about.is_file():
        return {}
    content = read_json(about, made_by="mimigenrec embed", kind=dict)
    if content and all(isinstance(fields, dict) for fields in content.values()):
        return {}
    if not isinstance(content.get("item_order"), str):
        raise UserError(
            f"{about} does not describe {path}: it has no item_order, which mimigenrec embed writes. If it is of "
            f"something else, rename one of the two"
        )
    return content


def side_car(path: str | Path) -> Path:
    return Path(path).with_suffix(".json")


def check_output(path: str | Path, items: str | Path) -> None:
    """Raises UserError if `path` is no .npy, or its side-car would replace item.json."""
    if Path(path).suffix != ".npy":
        raise UserError(f"--output {path} must end in .npy; C.emb-NAME.npy is the usual name")
    if side_car(path).resolve() == Path(items).resolve():
        raise UserError(f"--output {path} would put its description in the place of --items {items}; rename it")


def is_finished(path: str | Path, now: Mapping[str, Any], free: Collection[str], overwrite: bool) -> bool:
    """Whether `path` holds what this run would write.

    now      manifest of this run; free: keys of its config on which the result does not depend
    raises   UserError if `path` or its side-car are not of this run, unless they may be overwritten
    """
    path, about = Path(path), side_car(path)
    if overwrite or not path.exists() and not about.exists():
        return False
    before = read_about(path).get("manifest")
    check_same_file(path if path.exists() else about, before if isinstance(before, dict) else None, now, free)
    return path.exists()


def check_vectors(vectors: np.ndarray, items: Sequence[str], name: str | Path, first: int = 0) -> None:
    """Raises UserError naming the first item whose vector is not finite or too long, or what is wrong with the shape.

    first   number of the first row, where these are a part of more
    """
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        raise UserError(f"{name} must be (items, dim) of floats, found shape {vectors.shape} of {vectors.dtype}")
    if len(vectors) != len(items):
        raise UserError(
            f"{name} has {len(vectors)} rows for {len(items)} items, so it was made from another item.json; embed "
            f"this item.json again. Data folders of earlier versions do not list all items: preprocess those again"
        )
    longest = 0.0
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK].astype(np.float64)
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise UserError(
                f"{name}, row {first + row} (item {items[row]!r}) holds NaN or infinity; make that item's vector again"
            )
        with np.errstate(over="ignore"):
            lengths = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        if (lengths > LONGEST).any():
            row = int(np.argmax(lengths > LONGEST))
            largest = np.abs(chunk[row]).max()
            raise UserError(
                f"{name}, row {first + start + row} (item {items[start + row]!r}) holds {largest:.3g}, "
                f"whose square is too large for 32-bit numbers; scale the vectors down, to length 1 for example"
            )
        longest = max(longest, float(lengths.max(initial=0.0)))
    if 0 < longest < SHORTEST:
        raise UserError(
            f"{name}: no vector is longer than {longest:.3g}, whose square 32-bit numbers take for 0; scale the "
            f"vectors up, to length 1 for example"
        )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(n, dim) floats -> the same rows at length 1; a row of zeros (an item without a text) stays so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
