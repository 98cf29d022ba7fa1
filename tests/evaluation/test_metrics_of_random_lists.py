"""Random ranked lists, with groups of any size, give what trying every order of the items of each group gives."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimigenrec.evaluation.beyond import beyond_accuracy, entropy, gini
from mimigenrec.evaluation.metrics import (
    coverage,
    expected_hr,
    expected_mrr,
    expected_ndcg,
    item_places,
    repeat_share,
    sid_places,
)

ITEMS = [str(i) for i in range(9)]  # the last two are on no list
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def ranked_lists(draw, empty_groups: bool = True):
    """0 to 7 items in groups of 0 to 3. A SID may come twice, as in the lists of baselines that rank items."""
    items = draw(st.permutations(ITEMS[:7]))[: draw(st.integers(0, 7))]
    groups = []
    while items:
        size = draw(st.sampled_from([1, 1, 2, 3, 0] if empty_groups else [1, 1, 2, 3]))
        groups.append({"sid": f"<a_{draw(st.integers(0, 4))}>", "items": items[:size], "score": 0.0})
        items = items[size:]
    return groups


def orders(groups):
    """Every list of items that the groups may be shown as, all of one chance."""
    within = (itertools.permutations(group["items"]) for group in groups)
    return [[item for part in parts for item in part] for parts in itertools.product(*within)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


several = st.lists(ranked_lists(), min_size=1, max_size=4)
cut_offs = st.integers(1, 8)


@SETTINGS
@given(ranked_lists(), st.sampled_from(ITEMS), cut_offs)
def test_hr_ndcg_and_mrr_of_an_item(groups, target, k):
    ranks = [order.index(target) + 1 if target in order else math.inf for order in orders(groups)]
    places = item_places([groups], [target], ["<a_0>"])
    gains = {expected_hr: lambda rank: 1, expected_ndcg: lambda rank: 1 / math.log2(1 + rank)}
    for metric, gain in (gains | {expected_mrr: lambda rank: 1 / rank}).items():
        wanted = mean(gain(rank) if rank <= k else 0.0 for rank in ranks)
        np.testing.assert_allclose(metric(places, k), [wanted], atol=1e-12)


@SETTINGS
@given(ranked_lists())
def test_hr_of_a_sid_is_that_of_its_place_among_the_distinct_sids(groups):
    seen = []
    for group in groups:
        if group["sid"] not in seen:
            seen.append(group["sid"])
    for sid in ("<a_0>", "<a_1>", "<a_2>", "<a_3>", "<a_4>", None):
        for k in range(1, 9):
            assert expected_hr(sid_places([groups], [sid]), k).tolist() == [float(sid in seen[:k])]


@SETTINGS
@given(ranked_lists(), st.integers(0, 4), cut_offs)
def test_a_target_known_by_its_sid_alone_is_any_item_of_the_first_group_of_that_sid(groups, code, k):
    group = next((group for group in groups if group["sid"] == f"<a_{code}>"), {"items": []})
    each = [expected_ndcg(item_places([groups], [item], [None]), k)[0] for item in group["items"]]
    found = expected_ndcg(item_places([groups], [None], [f"<a_{code}>"]), k)
    np.testing.assert_allclose(found, [mean(each or [0.0])], atol=1e-12)


@SETTINGS
@given(several, st.lists(st.sampled_from(ITEMS), min_size=1, unique=True), cut_offs)
def test_coverage_is_the_share_of_items_that_some_order_shows(lists, catalogue, k):
    shown = {item for groups in lists for order in orders(groups) for item in order[:k]}
    assert coverage(lists, catalogue, k) == len(shown & set(catalogue)) / len(catalogue)


@SETTINGS
@given(ranked_lists(), st.lists(st.sampled_from(ITEMS)), cut_offs)
def test_repeat_share_is_the_mean_share_of_the_history_among_the_first_k(groups, history, k):
    wanted = mean(mean([item in history for item in order[:k]] or [0.0]) for order in orders(groups))
    np.testing.assert_allclose(repeat_share([groups], [history], k), [wanted], atol=1e-12)


@SETTINGS
@given(
    st.lists(ranked_lists(empty_groups=False), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 20)),
    cut_offs,
    st.integers(0, 2**32 - 1),
)
def test_what_is_shown_beyond_accuracy_is_the_mean_over_every_order(lists, counts, k, seed):
    vectors = dict(zip(ITEMS, np.random.default_rng(seed).normal(size=(len(ITEMS), 3)), strict=True))
    found = beyond_accuracy([{"ranked": groups} for groups in lists], ITEMS, counts, k, vectors)
    shown = [[order[:k] for order in orders(groups)] for groups in lists if groups]
    if not shown:
        assert found["popularity"] is found["gini"] is found["diversity"] is None
        return
    total = sum(counts.values()) + len(ITEMS)

    def over_lists(value):
        """value of one cut list -> its mean over orders, then over rows; rows of which it is None are left out."""
        means = [mean(value(cut) for cut in cuts) for cuts in shown if value(cuts[0]) is not None]
        return mean(means) if means else None

    def distance(cut):
        pairs = [(vectors[a], vectors[b]) for a, b in itertools.combinations(cut, 2)]
        return mean(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs) if pairs else None

    often = np.array([sum(mean(item in cut for cut in cuts) for cuts in shown) for item in ITEMS])
    wanted = {
        "coverage": coverage(lists, ITEMS, k),
        "gini": np.abs(often[:, None] - often).sum() / (2 * len(often) ** 2 * often.mean()),
        "entropy": -sum(share * math.log2(share) for share in often / often.sum() if share),
        "popularity": over_lists(lambda cut: mean(counts.get(item, 0) for item in cut)),
        "novelty": over_lists(lambda cut: mean(-math.log2((counts.get(item, 0) + 1) / total) for item in cut)),
        "diversity": over_lists(distance),
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] is value is None or abs(found[name] - value) < 1e-9, name


@SETTINGS
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any))
def test_gini_and_entropy_lie_within_their_bounds(counts):
    shown = np.array(counts, dtype=float)
    assert -1e-12 <= gini(shown) <= 1 - 1 / len(shown) + 1e-12
    assert -1e-12 <= entropy(shown) <= math.log2(len(shown)) + 1e-12
