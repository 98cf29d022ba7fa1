"""What is recommended, right or wrong: how much of the catalogue, how evenly, how popular, how new, how varied.

Rows are those of a final_result.json; their lists are cut at K items. The items of one group come in random order, so
where a group straddles K each of its items is counted by the chance that it is among the first K, and a number is its
expectation, as in metrics.py. coverage alone counts such a group whole (metrics.coverage says why).

N rows, I items, L items on a list cut at K (fewer than K where the list is shorter).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import Group, coverage
from mimigenrec.evaluation.result import Row
from mimigenrec.sid_report.structure import gini
from mimigenrec.sids.tokens import split_sid


def beyond_accuracy(
    rows: Sequence[Row],
    items: Sequence[str],
    train_counts: Mapping[str, int],
    k: int = 10,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float | None]:
    """Formulas in docs/metrics.md. None where no row has a list (diversity: a list of two).

    coverage     share of the catalogue that is in the first k of some row, [0, 1]
    gini         inequality of how often the items of the catalogue are shown: 0 all alike, 1 - 1/I one item only
    entropy      bits, of the same counts as a distribution: 0 one item only, log2(I) all alike
    popularity   train count of a shown item, mean over a list, then over rows
    novelty      bits, -log2 of a shown item's share of train with one added to every count; the same two means
    diversity    distance of two items of one list, mean over its pairs, then over rows: 1 - cosine of their vectors,
                 [0, 2]; without vectors 1 - (leading SID levels shared) / (levels of the deeper SID), [0, 1],
                 None where all SIDs shown have one level, which tell only whether items are the same

    items          item ids of the catalogue
    train_counts   item -> how often it is the target of a train row; absent is 0
    raises         UserError if there is no row, no item, k < 1, a shown item that `items` or `vectors` lacks
    """
    if not rows or not items or k < 1:
        raise UserError(f"{len(rows)} rows, {len(items)} items, k={k}: there must be at least one of each")
    place = {item: i for i, item in enumerate(items)}
    counts = np.array([train_counts.get(item, 0) for item in items], dtype=np.float64)  # (I,)
    surprise = np.log2(counts.sum() + len(items)) - np.log2(counts + 1)  # (I,) bits
    shown = np.zeros(len(items))  # (I,) expected number of lists that show the item
    popularity, novelty, diversity = [], [], []
    telling = vectors is not None or _has_levels(rows, k)
    for number, row in enumerate(rows):
        groups = _first(row["ranked"], k)
        if not groups:
            continue
        listed = _indices(groups, place, number)
        chance = _chances(groups, k)  # (listed items,)
        shown[listed] += chance
        popularity.append(chance @ counts[listed] / chance.sum())
        novelty.append(chance @ surprise[listed] / chance.sum())
        if telling and min(k, len(listed)) > 1:
            distance = _cosine_distances(groups, vectors, number) if vectors is not None else _sid_distances(groups)
            diversity.append(_mean_of_pairs(distance, groups, k))
    return {
        "coverage": coverage([row["ranked"] for row in rows], items, k),
        "gini": gini(shown) if shown.any() else None,
        "entropy": entropy(shown) if shown.any() else None,
        "popularity": _mean(popularity),
        "novelty": _mean(novelty),
        "diversity": _mean(diversity),
    }


def entropy(shown: np.ndarray) -> float:
    """(I,) counts >= 0, not all 0 -> bits, in [0, log2(I)]: 3 bits are as many as 8 items shown alike have."""
    p = shown[shown > 0] / shown.sum()
    return float(p @ -np.log2(p))


def _first(ranked: Sequence[Group], k: int) -> list[Group]:
    """The groups that begin within the first k items."""
    groups, before = [], 0
    for group in ranked:
        if before >= k:
            break
        groups.append(group)
        before += len(group["items"])
    return groups


def _has_levels(rows: Sequence[Row], k: int) -> bool:
    """Is there a SID of two levels or more in the first k of some row?"""
    return any(len(split_sid(group["sid"])) > 1 for row in rows for group in _first(row["ranked"], k))


def _indices(groups: Sequence[Group], place: Mapping[str, int], row: int) -> list[int]:
    unknown = [item for group in groups for item in group["items"] if item not in place]
    if unknown:
        raise UserError(f"row {row} recommends item {unknown[0]!r}, which is not among the {len(place)} items given")
    return [place[item] for group in groups for item in group["items"]]


def _chances(groups: Sequence[Group], k: int) -> np.ndarray:
    """(listed items,) the chance of each to be among the first k; below 1 in the last group alone. Sums to L."""
    sizes = np.array([len(group["items"]) for group in groups])
    within = np.minimum(sizes, k - (np.cumsum(sizes) - sizes))
    return np.repeat(within / sizes, sizes)


def _mean_of_pairs(distance: np.ndarray, groups: Sequence[Group], k: int) -> float:
    """Mean distance of two of the first k items, over the orders of the last group, which may straddle k.

    distance   (listed items, listed items), symmetric, 0 on the diagonal
    """
    chance = _chances(groups, k)
    both = np.outer(chance, chance)  # the chance that the two are shown together
    size = len(groups[-1]["items"])
    within = min(size, k - (len(distance) - size))
    if size > 1:  # drawn without replacement
        both[-size:, -size:] = within * (within - 1) / (size * (size - 1))
    length = min(k, len(distance))
    return float((both * distance).sum() / (length * (length - 1)))


def _sid_distances(groups: Sequence[Group]) -> np.ndarray:
    """(listed items, listed items) in [0, 1]: 0 on one SID, 1 where the first levels differ."""
    sids = [split_sid(group["sid"]) for group in groups]
    depth = max(map(len, sids))
    names = {name: i for i, name in enumerate(dict.fromkeys(name for sid in sids for name in sid))}
    codes = np.array([[names[name] for name in sid] + [-1] * (depth - len(sid)) for sid in sids])  # (groups, depth)
    lengths = np.array([len(sid) for sid in sids])
    alike = (codes[:, None] == codes[None]) & (codes[:, None] >= 0)  # (groups, groups, depth)
    shared = np.cumprod(alike, axis=-1).sum(-1)
    distance = 1 - shared / np.maximum(lengths[:, None], lengths[None])
    member = np.repeat(np.arange(len(groups)), [len(group["items"]) for group in groups])
    return distance[np.ix_(member, member)]


def _cosine_distances(groups: Sequence[Group], vectors: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """(listed items, listed items) in [0, 2]; a vector of zeros is at distance 1 from every other."""
    listed = [item for group in groups for item in group["items"]]
    missing = [item for item in listed if item not in vectors]
    if missing:
        raise UserError(f"row {row} recommends item {missing[0]!r}, which has no vector")
    table = np.stack([vectors[item] for item in listed]).astype(np.float64)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.where(norms > 0, norms, 1)
    distance = 1 - table @ table.T
    np.fill_diagonal(distance, 0)
    return distance


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
