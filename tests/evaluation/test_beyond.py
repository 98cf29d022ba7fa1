"""What is recommended: by hand, by trying every order of the items of a SID, and against scipy and definitions."""

import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from mimigenrec.evaluation.beyond import beyond_accuracy, entropy
from mimigenrec.sid_report.structure import gini

A, B, C = "<a_0><b_0>", "<a_0><b_1>", "<a_1><b_0>"


def row(*ranked):
    groups = [{"sid": sid, "items": list(items), "score": 0.0} for sid, *items in ranked]
    return {"user": "u", "row": 0, "history": [], "target": "0", "target_sid": A, "ranked": groups}


def test_two_rows_by_hand():
    rows = [row((A, "1"), (B, "2")), row((A, "1"), (C, "3"))]
    found = beyond_accuracy(rows, ["1", "2", "3", "4"], {"1": 7, "2": 3, "3": 1, "4": 1}, k=2)
    assert found["coverage"] == 3 / 4
    assert found["gini"] == pytest.approx(12 / 32)  # shown 0, 1, 1, 2: differences of all 16 pairs over 2 * 16 * mean
    assert found["entropy"] == pytest.approx(1.5)  # 1/2, 1/4, 1/4
    assert found["popularity"] == pytest.approx(((7 + 3) / 2 + (7 + 1) / 2) / 2)
    assert found["novelty"] == pytest.approx(((1 + 2) / 2 + (1 + 3) / 2) / 2)  # (c + 1) / 16: 8, 4, 2 of 16
    assert found["diversity"] == pytest.approx((0.5 + 1) / 2)  # one level of two shared, none shared


def test_only_the_first_k_count():
    rows = [row((A, "1"), (B, "2"), (C, "3"))]
    items, counts = ["1", "2", "3"], {"1": 1, "2": 1, "3": 100}
    assert beyond_accuracy(rows, items, counts, k=2) == beyond_accuracy([row((A, "1"), (B, "2"))], items, counts, k=10)


def naive(groups, counts, items, vectors, k):
    """Means over every order of the items within each group: counts of items shown, popularity, novelty, diversity."""
    total = sum(counts.get(item, 0) for item in items) + len(items)
    sid_of = {item: group["sid"] for group in groups for item in group["items"]}
    found = []
    for orders in itertools.product(*(itertools.permutations(group["items"]) for group in groups)):
        first = [item for order in orders for item in order][:k]
        pairs = list(itertools.combinations(first, 2))
        depth = [prefix_distance(sid_of[x], sid_of[y]) for x, y in pairs]
        cosine = [scipy.spatial.distance.cosine(vectors[x], vectors[y]) for x, y in pairs]
        found.append(
            [
                *(first.count(item) for item in items),
                np.mean([counts.get(item, 0) for item in first]),
                np.mean([-math.log2((counts.get(item, 0) + 1) / total) for item in first]),
                np.mean(depth) if pairs else np.nan,
                np.mean(cosine) if pairs else np.nan,
            ]
        )
    return np.mean(found, axis=0)


def prefix_distance(x, y):
    x, y = x[1:-1].split("><"), y[1:-1].split("><")
    shared = 0
    while shared < min(len(x), len(y)) and x[shared] == y[shared]:
        shared += 1
    return 1 - shared / max(len(x), len(y))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_everything_equals_trying_every_order_of_the_items_of_each_sid(k):
    chance = np.random.default_rng(k)
    items = [str(i) for i in range(10)]
    counts = {item: int(chance.integers(0, 20)) for item in items[:7]}
    vectors = {item: chance.normal(size=3) for item in items}
    rows, expected = [], []
    for _ in range(25):
        left = chance.permutation(items).tolist()[: chance.integers(1, 9)]
        sids = chance.permutation([f"<a_{a}><b_{b}>{c}" for a in range(2) for b in range(2) for c in ("", "<c_0>")])
        groups = []
        while left:
            size = int(chance.integers(1, 5))
            groups.append((str(sids[len(groups)]), *left[:size]))
            left = left[size:]
        rows.append(row(*groups))
        expected.append(naive(rows[-1]["ranked"], counts, items, vectors, k))
    expected = np.array(expected)
    found, by_vectors = (beyond_accuracy(rows, items, counts, k, given) for given in (None, vectors))
    shown = expected[:, :10].sum(0)
    assert found["gini"] == pytest.approx(naive_gini(shown))
    assert found["entropy"] == pytest.approx(scipy.stats.entropy(shown, base=2))
    assert found["popularity"] == pytest.approx(expected[:, 10].mean())
    assert found["novelty"] == pytest.approx(expected[:, 11].mean())
    if k == 1:
        assert found["diversity"] is None and by_vectors["diversity"] is None
    else:
        assert found["diversity"] == pytest.approx(np.nanmean(expected[:, 12]))
        assert by_vectors["diversity"] == pytest.approx(np.nanmean(expected[:, 13]))


def naive_gini(x):
    return sum(abs(a - b) for a in x for b in x) / (2 * len(x) ** 2 * np.mean(x))


def recbole_gini(lists, n_items):
    """GiniIndex as RecBole documents it: the catalogue's items in rising order of how often they are shown."""
    counts = sorted(sum(item in shown for shown in lists) for item in range(n_items))
    weighted = sum((2 * j - n_items - 1) * count for j, count in enumerate(counts, start=1))
    return weighted / (n_items * sum(counts))


def recbole_entropy(lists):
    """ShannonEntropy as RecBole counts it: in nats, over the number of distinct items shown."""
    shown = [item for ranked in lists for item in ranked]
    shares = [shown.count(item) / len(shown) for item in set(shown)]
    return -sum(p * math.log(p) for p in shares) / len(shares)


def test_gini_and_entropy_of_random_counts_agree_with_their_definitions():
    chance = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        shown = chance.integers(0, 9, size).astype(float) + chance.random()
        assert gini(shown) == pytest.approx(naive_gini(shown))
        assert entropy(shown) == pytest.approx(scipy.stats.entropy(shown, base=2))


def test_lists_of_single_items_are_measured_as_by_recbole():
    chance = np.random.default_rng(1)
    lists = [chance.permutation(10)[:5].tolist() for _ in range(8)]
    rows = [row(*((f"<a_{item}>", str(item)) for item in shown)) for shown in lists]
    counts = {str(item): item for item in range(12)}
    found = beyond_accuracy(rows, [str(item) for item in range(12)], counts, k=5)
    assert found["gini"] == pytest.approx(recbole_gini(lists, 12))
    distinct = len({item for shown in lists for item in shown})
    assert found["entropy"] * math.log(2) / distinct == pytest.approx(recbole_entropy(lists))
    assert found["popularity"] == pytest.approx(np.mean(lists))  # AveragePopularity: the count is the item's number
    assert found["coverage"] == pytest.approx(distinct / 12)


def test_items_shown_alike_are_equal_and_a_single_one_is_as_unequal_as_can_be():
    assert gini(np.full(8, 3.0)) == 0 and entropy(np.full(8, 3.0)) == 3
    assert gini(np.array([0.0, 0.0, 0.0, 5.0])) == 0.75 and entropy(np.array([0.0, 0.0, 0.0, 5.0])) == 0


def test_an_item_that_train_never_had_is_the_newest_and_its_novelty_is_finite():
    items, counts = ["1", "2"], {"1": 6}
    known, cold = (beyond_accuracy([row((A, item))], items, counts)["novelty"] for item in items)
    assert known == pytest.approx(-math.log2(7 / 8)) and cold == pytest.approx(3)


def test_counts_of_items_outside_the_catalogue_do_not_matter():
    rows = [row((A, "1"), (B, "2"))]
    assert beyond_accuracy(rows, ["1", "2"], {"1": 3, "x": 99}) == beyond_accuracy(rows, ["1", "2"], {"1": 3})


def test_a_sid_that_straddles_k_is_covered_whole_and_shown_in_part():
    found = beyond_accuracy([row((A, "1"), (B, "2", "3"))], ["1", "2", "3"], {"1": 4, "2": 2}, k=2)
    assert found["coverage"] == 1
    assert found["popularity"] == pytest.approx((4 + (2 + 0) / 2) / 2)
    assert found["entropy"] == pytest.approx(1.5)  # shown 1, 1/2, 1/2
    assert found["diversity"] == pytest.approx(0.5)


def test_items_of_one_sid_are_no_distance_apart_by_sid_but_may_be_by_vector():
    rows, vectors = [row((A, "1", "2"))], {"1": np.array([2.0, 0.0]), "2": np.array([0.0, 3.0])}
    assert beyond_accuracy(rows, ["1", "2"], {})["diversity"] == 0
    assert beyond_accuracy(rows, ["1", "2"], {}, vectors=vectors)["diversity"] == pytest.approx(1)
    vectors["2"] = np.array([-1.0, 0.0])
    assert beyond_accuracy(rows, ["1", "2"], {}, vectors=vectors)["diversity"] == pytest.approx(2)
    vectors["2"] = np.zeros(2)
    assert beyond_accuracy(rows, ["1", "2"], {}, vectors=vectors)["diversity"] == pytest.approx(1)


def test_sids_of_one_level_tell_no_diversity_but_vectors_do_and_one_deeper_sid_is_enough():
    flat, vectors = [row(("<a_0>", "1"), ("<a_1>", "2"))], {"1": np.array([1.0, 0.0]), "2": np.array([3.0, 4.0])}
    assert beyond_accuracy(flat, ["1", "2"], {})["diversity"] is None
    assert beyond_accuracy(flat, ["1", "2"], {}, vectors=vectors)["diversity"] == pytest.approx(1 - 3 / 5)
    deeper = [*flat, row((A, "1"), (B, "2"))]
    assert beyond_accuracy(deeper, ["1", "2"], {})["diversity"] == pytest.approx((1 + 0.5) / 2)
    cut = [row(("<a_0>", "1"), ("<a_1>", "2"), (C, "3"))]
    assert beyond_accuracy(cut, ["1", "2", "3"], {}, k=2)["diversity"] is None  # the deeper one is not shown


def test_rows_without_a_list_are_left_out_of_the_means():
    items, counts = ["1", "2"], {"1": 3, "2": 1}
    one = beyond_accuracy([row((A, "1"), (B, "2"))], items, counts)
    assert beyond_accuracy([row(), row((A, "1"), (B, "2")), row()], items, counts) == one
    nothing = beyond_accuracy([row()], items, counts)
    assert nothing == {"coverage": 0} | dict.fromkeys(["gini", "entropy", "popularity", "novelty", "diversity"])


def test_what_cannot_be_measured_is_refused_by_name():
    rows = [row((A, "1")), row((A, "1"), (C, "7"))]
    for bad in (([], ["1"], 10), (rows, [], 10), (rows, ["1", "7"], 0)):
        with pytest.raises(ValueError, match="at least one of each"):
            beyond_accuracy(bad[0], bad[1], {}, k=bad[2])
    with pytest.raises(ValueError, match="row 1 recommends item '7', which is not among the 1 items"):
        beyond_accuracy(rows, ["1"], {})
    with pytest.raises(ValueError, match="row 1 recommends item '7', which has no vector"):
        beyond_accuracy(rows, ["1", "7"], {}, vectors={"1": np.ones(2)})
