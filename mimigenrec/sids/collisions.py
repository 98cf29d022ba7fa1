"""What to do when two items share a SID.

leave      they share it
reassign   the later item goes to its next nearest free SID
extra      every item gets one more level that counts the items of its SID: 0 for the first, 1 for the second, ...

Items of identical text may be merged first: they then share a SID on purpose and count as one item in what follows.
"Later" is the row order of the codes.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.sids.quantiser import Codebooks, encode, squared_distances

Collisions = Literal["leave", "reassign", "extra"]
Code = tuple[int, ...]
FIRST_WIDTH = 4  # prefixes looked at once the siblings are taken; four times as many each round


def resolve(
    how: Collisions, codes: np.ndarray, codebooks: Codebooks, vectors: np.ndarray, owner: np.ndarray | None = None
) -> np.ndarray:
    """codes (items, levels), vectors (items, dim) -> codes (items, levels), one level more with "extra".

    owner   (items,) row of the item each is merged with, itself if none (same_text); None: nothing is merged
    raises  UserError if there are fewer SIDs than items to tell apart
    """
    owner = np.arange(len(codes)) if owner is None else owner
    kept, place = np.unique(owner, return_inverse=True)
    codes = codes[kept]
    if how == "reassign":
        codes = reassign(codes, codebooks, vectors[kept])
    elif how == "extra":
        codes = np.column_stack([codes, count_in_sid(codes)])
    return codes[place]


def same_text(texts: Sequence[str]) -> np.ndarray:
    """(items,) row of the first item with the same text, for each item; items without a text are never merged."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, row) if text else row for row, text in enumerate(texts)])


def count_in_sid(codes: np.ndarray) -> np.ndarray:
    """(items, levels) -> (items,) how many earlier items have the same codes."""
    place = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(place, kind="stable")
    counts = np.empty(len(codes), codes.dtype)
    counts[order] = np.arange(len(codes)) - np.searchsorted(place[order], place[order])
    return counts


def reassign(codes: np.ndarray, codebooks: Codebooks, vectors: np.ndarray) -> np.ndarray:
    """Moves every item whose SID an earlier one has, in row order, to the first free SID of `near_sids`."""
    check_enough(codebooks.sizes, len(codes))
    codes = codes.copy()
    taken = set(map(tuple, codes.tolist()))
    for row in np.flatnonzero(count_in_sid(codes)):
        encoded = encode(codebooks, vectors[row : row + 1])[0]
        sid = next(sid for sid in near_sids(encoded, codebooks.levels, tuple(codes[row].tolist())) if sid not in taken)
        taken.add(sid)
        codes[row] = sid
    return codes


def check_enough(sizes: Sequence[int], items: int) -> None:
    """Raises UserError if there are fewer SIDs than items."""
    if np.prod([float(size) for size in sizes]) < items:
        raise UserError(
            f"{items} items cannot have SIDs of their own with sizes {list(sizes)}; give more levels or larger --sizes"
        )


def near_sids(encoded: np.ndarray, levels: Sequence[np.ndarray], own: Code) -> Iterator[Code]:
    """All SIDs for one item, each once: its own, its siblings by distance, then SIDs under other prefixes, in rounds.

    encoded  (latent,)          levels  codebook entries          own  its codes; siblings have its prefix
    A round looks at the `width` nearest prefixes of each length, four times as many as the round before, and gives
    their SIDs by distance; the last round has looked at all.
    """
    seen = {own}
    yield own
    for width in _widths(levels):
        prefixes = np.array([() if width else own[:-1]], dtype=np.int64).reshape(1, -1)
        left = encoded[None] - sum(levels[i][prefixes[:, i]] for i in range(prefixes.shape[1]))
        for level in range(prefixes.shape[1], len(levels)):
            order = np.argsort(squared_distances(left, levels[level]).ravel(), kind="stable")
            if level < len(levels) - 1:
                order = order[:width]
            parent, entry = np.divmod(order, len(levels[level]))
            left = left[parent] - levels[level][entry]
            prefixes = np.column_stack([prefixes[parent], entry])
        for sid in map(tuple, prefixes.tolist()):
            if sid not in seen:
                seen.add(sid)
                yield sid


def _widths(levels: Sequence[np.ndarray]) -> Iterator[int]:
    """0 for the siblings, then 4, 16, ... up to the number of all prefixes."""
    yield 0
    width, all_prefixes = FIRST_WIDTH, int(np.prod([len(level) for level in levels[:-1]], dtype=object))
    while width < all_prefixes:
        yield width
        width *= 4
    yield all_prefixes
