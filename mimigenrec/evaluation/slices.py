"""Where a method is good and where it is not: the rows of one test set cut by what is known before anyone ranks, and
how far down the target's SID the lists reach.

Rows are those of a final_result.json. A slice is a mask (N,) bool; the slices of one family share out the rows that
tell what the family asks for (rows of classic files tell neither target nor history). N rows, K a cut-off.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.evaluation.result import Row
from mimigenrec.evaluation.stats import Interval, bootstrap
from mimigenrec.interactions.inter_file import History
from mimigenrec.items import id_order
from mimigenrec.sids.tokens import split_sid

HEAD_SHARE = 0.2  # of the items of train, as Abdollahpouri et al. 2019, arXiv:1907.13286, cut it
LENGTHS = ((0, 2), (3, 5), (6, 10), (11, math.inf))  # items in the history, first and last of each bin

Masks = dict[str, dict[str, np.ndarray]]


def count_targets(train: Iterable[History]) -> Counter[str]:
    """item -> how often it is the target of a train row: what popularity means throughout."""
    return Counter(history.target for history in train)


def head_items(train_counts: Mapping[str, int]) -> set[str]:
    """The 20 % (rounded up) of the items with a count that have the highest; ties by id."""
    bought = [item for item, count in train_counts.items() if count > 0]
    bought.sort(key=lambda item: (-train_counts[item], id_order(item)))
    return set(bought[: math.ceil(HEAD_SHARE * len(bought))])


def slices(rows: Sequence[Row], train_counts: Mapping[str, int]) -> Masks:
    """{family: {slice: (N,) bool}}; a family that no row tells is left out, a slice without rows is not.

    target popularity   head, tail: is the target one of head_items? A cold one is tail
    target in train     warm, cold: is the target the target of any train row?
    history length      bins of the number of items, as often as they stand there
    target in history   yes, no: does the row's own history hold the target?
    """
    head = head_items(train_counts)
    has_item = np.array([row["target"] is not None for row in rows], dtype=bool)
    lengths = np.array([-1 if row["history"] is None else len(row["history"]) for row in rows], dtype=np.int64)
    popular = [row["target"] in head for row in rows]
    warm = [train_counts.get(row["target"], 0) > 0 for row in rows]
    repeated = [row["target"] in (row["history"] or ()) for row in rows]
    families = {
        "target popularity": _two("head", "tail", popular, has_item),
        "target in train": _two("warm", "cold", warm, has_item),
        "history length": {
            f"{first}-{last}" if math.isfinite(last) else f"{first} or more": (first <= lengths) & (lengths <= last)
            for first, last in LENGTHS
        },
        "target in history": _two("yes", "no", repeated, has_item & (lengths >= 0)),
    }
    return {family: masks for family, masks in families.items() if any(mask.any() for mask in masks.values())}


def slice_metrics(
    columns: Mapping[str, np.ndarray], masks: Masks, seed: int
) -> dict[str, dict[str, dict[str, int | Interval | None]]]:
    """{family: {slice: {"n": rows in it, "hr@10": mean with its 95 % interval, ...}}}; None for a slice without rows.

    columns   metric -> (N,) of one method: result.row_metrics, or stats.rows_over_seeds of several
    seed      every slice draws anew from it, so an interval does not depend on the other slices
    raises    UserError for masks of another number of rows
    """
    sliced: dict[str, dict[str, dict[str, int | Interval | None]]] = {}
    for family, mask_of in masks.items():
        sliced[family] = {}
        for name, mask in mask_of.items():
            wrong = {metric: len(column) for metric, column in columns.items() if len(column) != len(mask)}
            if wrong:
                raise UserError(f"slice {name!r} of {family!r} is over {len(mask)} rows, the metrics over {wrong}")
            chosen = {metric: column[mask] for metric, column in columns.items()}
            means = bootstrap(chosen, np.random.default_rng(seed)) if mask.any() else dict.fromkeys(columns)
            sliced[family][name] = {"n": int(mask.sum()), **means}
    return sliced


def first_wrong_level(rows: Sequence[Row]) -> np.ndarray:
    """(N,) int: the first level, from 1, at which the first recommended SID is not the target's.

    0 where the whole SID is right; -1 where there is no list or the target has no SID. A SID that ends before the
    other, so far alike, goes wrong at the level that it lacks.
    """
    return np.array([_first_wrong(row) for row in rows], dtype=np.int64)


def level_reached(rows: Sequence[Row], k: int) -> dict[int, float]:
    """{level, from 1: share of rows for which one of the first k distinct SIDs begins as the target's up to it}.

    Of the rows whose target has a SID with that many levels; a row without a list did not get there. Where all SIDs
    have the same number of levels, shares fall from level to level and the last one is HR@k at SID level.
    Raises UserError if k < 1.
    """
    if k < 1:
        raise UserError(f"k={k}: the first SID is the least to look at")
    reached: Counter[int] = Counter()
    deep_enough: Counter[int] = Counter()
    for row in rows:
        target = split_sid(row["target_sid"] or "")
        first = list(dict.fromkeys(group["sid"] for group in row["ranked"]))[:k]
        deepest = max((_shared_levels(split_sid(sid), target) for sid in first), default=0)
        deep_enough.update(range(1, len(target) + 1))
        reached.update(range(1, deepest + 1))
    return {level: reached[level] / deep_enough[level] for level in sorted(deep_enough)}


def _first_wrong(row: Row) -> int:
    if not row["target_sid"] or not row["ranked"]:
        return -1
    pairs = zip_longest(split_sid(row["ranked"][0]["sid"]), split_sid(row["target_sid"]))
    return next((level for level, (guess, code) in enumerate(pairs, start=1) if guess != code), 0)


def _shared_levels(sid: Sequence[str], target: Sequence[str]) -> int:
    pairs = zip(sid, target, strict=False)
    return next((level for level, (a, b) in enumerate(pairs) if a != b), min(len(sid), len(target)))


def _two(yes: str, no: str, holds: Sequence[bool], counted: np.ndarray) -> dict[str, np.ndarray]:
    held = np.array(holds, dtype=bool)
    return {yes: held & counted, no: ~held & counted}
