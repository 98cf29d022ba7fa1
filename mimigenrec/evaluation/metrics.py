"""HR@K, NDCG@K and MRR@K from places: pure functions of numpy arrays.

A ranked list is a list of groups, best first; the items of one group are not told apart (they share a SID). Where a
target stands is two numbers:

    start   how many entries stand before its group (entries are SIDs at SID level, items at item level)
    size    how many entries its group has: 1 at SID level, the items of the SID at item level; 0 is a miss

The items of a group come in random order, so the target's rank is uniform on start + 1 .. start + size, and a metric
is the expectation over that. With size 1 it is the plain metric.

N rows; K a cut-off. A group is {"sid": "<a_1><b_2>", "items": ["17", "4"], "score": -1.5}.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.sids.tokens import Sid, join_sid

KS = (1, 3, 5, 10, 20, 50)
REPEAT_K = 10

Group = dict[str, Any]


class Places(NamedTuple):
    """Where the target stands in each of N rows."""

    start: np.ndarray  # (N,) int, entries before the target's group
    size: np.ndarray  # (N,) int, entries in it; 0 where the target is not in the list


def expected_hr(places: Places, k: int) -> np.ndarray:
    """(N,) in [0, 1]: probability that the target is among the first k."""
    return _expected(np.ones(k), places)


def expected_ndcg(places: Places, k: int) -> np.ndarray:
    """(N,) in [0, 1]: 1 / log2(1 + rank) for ranks up to k, 0 beyond. One target a row, so the ideal is 1."""
    return _expected(1.0 / np.log2(np.arange(2, k + 2)), places)


def expected_mrr(places: Places, k: int) -> np.ndarray:
    """(N,) in [0, 1]: 1 / rank for ranks up to k, 0 beyond."""
    return _expected(1.0 / np.arange(1, k + 1), places)


def _expected(gains: np.ndarray, places: Places) -> np.ndarray:
    """gains (K,) of ranks 1..K, 0 beyond -> (N,) their mean over the ranks start + 1 .. start + size."""
    total = np.concatenate([[0.0], np.cumsum(gains)])  # total[r]: gains of the first r ranks
    k = len(gains)
    first, last = np.minimum(places.start, k), np.minimum(places.start + places.size, k)
    return np.where(places.size > 0, (total[last] - total[first]) / np.maximum(places.size, 1), 0.0)


def per_row(places: Places, ks: Sequence[int] = KS) -> dict[str, np.ndarray]:
    """{"hr@1": (N,), "ndcg@1": (N,), "mrr@1": (N,), "hr@3": ...}"""
    return {
        f"{name}@{k}": function(places, k)
        for k in ks
        for name, function in (("hr", expected_hr), ("ndcg", expected_ndcg), ("mrr", expected_mrr))
    }


def places_from_ranks(ranks: Sequence[int]) -> Places:
    """1-based ranks, 0 for a miss -> places of size 1."""
    array = np.asarray(ranks, dtype=np.int64)
    return Places(np.maximum(array - 1, 0), (array > 0).astype(np.int64))


def sid_places(ranked: Sequence[Sequence[Group]], target_sids: Sequence[str | None]) -> Places:
    """SID level: the target's SID among the distinct SIDs of each list, in order of first appearance.

    target_sids   N SID texts; None or "" (the target has no SID) is a miss
    """
    ranks = []
    for groups, target in zip(ranked, target_sids, strict=True):
        order = list(dict.fromkeys(group["sid"] for group in groups))
        ranks.append(order.index(target) + 1 if target in order else 0)
    return places_from_ranks(ranks)


def item_places(
    ranked: Sequence[Sequence[Group]], targets: Sequence[str | None], target_sids: Sequence[str | None]
) -> Places:
    """Item level: the group that holds the target item, and how many items stand before it.

    A target of None (a file that tells only SIDs) is placed by its SID: the items of one group stand equally.
    """
    start, size = np.zeros(len(targets), np.int64), np.zeros(len(targets), np.int64)
    for row, (groups, target, sid) in enumerate(zip(ranked, targets, target_sids, strict=True)):
        before = 0
        for group in groups:
            if target in group["items"] or target is None and group["sid"] == sid:
                start[row], size[row] = before, len(group["items"])
                break
            before += len(group["items"])
    return Places(start, size)


def coverage(ranked: Sequence[Sequence[Group]], catalogue: Collection[str], k: int) -> float:
    """Share of the catalogue's items that are in the first k of some row, in [0, 1].

    A group that begins within the first k counts with all its items: any of them may be the one shown.
    """
    shown: set[str] = set()
    for groups in ranked:
        before = 0
        for group in groups:
            if before >= k:
                break
            shown.update(group["items"])
            before += len(group["items"])
    return len(shown & set(catalogue)) / len(catalogue)


def repeat_share(
    ranked: Sequence[Sequence[Group]], histories: Sequence[Sequence[str]], k: int = REPEAT_K
) -> np.ndarray:
    """(N,) in [0, 1]: expected share of the first k items that the user's history holds; 0 for an empty list."""
    shares = np.zeros(len(histories))
    for row, (groups, history) in enumerate(zip(ranked, histories, strict=True)):
        seen, before, repeated = set(history), 0, 0.0
        for group in groups:
            size = len(group["items"])
            within = min(k - before, size)
            repeated += sum(item in seen for item in group["items"]) * within / max(size, 1)
            before += within
            if before == k:
                break
        shares[row] = repeated / max(before, 1)
    return shares


def count_invalid(ranked: Sequence[Sequence[Group]], sids: Mapping[str, Sid]) -> int:
    """Groups without an item, or with an item that the catalogue does not know under that SID, or named twice."""
    text_of = {item: join_sid(sid) for item, sid in sids.items()}
    invalid = 0
    for groups in ranked:
        named: set[str] = set()
        for group in groups:
            items = group["items"]
            right = bool(items) and all(text_of.get(item) == group["sid"] for item in items)
            fresh = len(set(items)) == len(items) and named.isdisjoint(items)
            invalid += not (right and fresh)
            named.update(items)
    return invalid
