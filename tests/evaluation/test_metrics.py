"""Metrics by hand, and against a naive implementation that tries every order of the items that share a SID."""

import itertools
import math
import random

import numpy as np
import pytest

from mimigenrec.evaluation.metrics import (
    KS,
    Places,
    count_invalid,
    coverage,
    expected_hr,
    expected_mrr,
    expected_ndcg,
    item_places,
    per_row,
    places_from_ranks,
    repeat_share,
    sid_places,
)


def group(sid, *items):
    return {"sid": sid, "items": list(items), "score": 0.0}


def test_a_target_at_rank_2_by_hand():
    places = places_from_ranks([2])
    assert expected_hr(places, 1) == 0 and expected_hr(places, 3) == 1
    assert expected_ndcg(places, 3) == pytest.approx(1 / math.log2(3))
    assert expected_mrr(places, 3) == 0.5


def test_rank_1_is_perfect_and_a_miss_is_nothing_at_every_cut_off():
    for name, values in per_row(places_from_ranks([1, 0])).items():
        assert values.tolist() == [1.0, 0.0], name


def test_the_last_rank_within_k_counts_and_the_next_does_not():
    for k in KS:
        assert expected_hr(places_from_ranks([k, k + 1]), k).tolist() == [1.0, 0.0]


def test_three_items_on_the_sid_behind_nine_others_by_hand():
    places = Places(np.array([9]), np.array([3]))  # ranks 10, 11, 12, each with probability 1/3
    assert expected_hr(places, 10) == pytest.approx(1 / 3)
    assert expected_ndcg(places, 10) == pytest.approx(1 / 3 / math.log2(11))
    assert expected_mrr(places, 20) == pytest.approx((1 / 10 + 1 / 11 + 1 / 12) / 3)


def test_sid_level_counts_distinct_sids_and_item_level_the_items_before():
    lists = [[group("A", "1", "2"), group("B", "3"), group("C", "4", "5")]]
    assert sid_places(lists, ["C"]) == (np.array([2]), np.array([1]))
    assert item_places(lists, ["5"], ["C"]) == (np.array([3]), np.array([2]))


def test_a_baseline_that_ranks_items_one_by_one_has_exact_ranks_and_distinct_sids():
    lists = [[group("A", "1"), group("B", "3"), group("A", "2"), group("C", "4")]]
    assert sid_places(lists, ["C"]).start.tolist() == [2]  # A, B, C
    assert item_places(lists, ["2"], ["A"]) == (np.array([2]), np.array([1]))


def test_an_unknown_target_item_is_placed_by_its_sid():
    lists = [[group("A", "1", "2"), group("B", "3", "4")]]
    assert item_places(lists, [None], ["B"]) == (np.array([2]), np.array([2]))


def test_an_empty_list_and_a_target_without_sid_are_misses_at_both_levels():
    lists = [[], [group("A", "1")], [group("A", "1")]]
    targets, sids = ["1", "9", "9"], ["A", "", None]
    assert sid_places(lists, sids).size.tolist() == [0, 0, 0]
    assert item_places(lists, targets, sids).size.tolist() == [0, 0, 0]


def naive(groups, target, k):
    """HR, NDCG, MRR of the target item, averaged over every order of the items within each SID."""
    found = []
    for orders in itertools.product(*(itertools.permutations(g["items"]) for g in groups)):
        flat = [item for order in orders for item in order]
        rank = flat.index(target) + 1 if target in flat else None
        inside = rank is not None and rank <= k
        found.append((1.0, 1 / math.log2(1 + rank), 1 / rank) if inside else (0.0, 0.0, 0.0))
    return [sum(column) / len(found) for column in zip(*found, strict=True)]


def test_item_level_equals_trying_every_order_of_the_items_of_each_sid():
    chance = random.Random(3)
    lists, targets, sids = [], [], []
    for _ in range(60):
        items = [str(i) for i in range(9)]
        chance.shuffle(items)
        groups = []
        while items:
            size = min(chance.choice([1, 1, 2, 3]), len(items))
            groups.append(group(f"S{len(groups)}", *items[:size]))
            items = items[size:]
        lists.append(groups[: chance.randint(0, len(groups))])
        targets.append(str(chance.randrange(9)))
        sids.append(next((g["sid"] for g in groups if targets[-1] in g["items"]), None))
    metrics = per_row(item_places(lists, targets, sids), ks=(1, 3, 5))
    for k in (1, 3, 5):
        expected = np.array([naive(groups, target, k) for groups, target in zip(lists, targets, strict=True)])
        for column, name in enumerate(("hr", "ndcg", "mrr")):
            np.testing.assert_allclose(metrics[f"{name}@{k}"], expected[:, column], atol=1e-12)


def test_item_level_without_collisions_equals_sid_level():
    lists = [[group(f"S{i}", str(i)) for i in order] for order in itertools.permutations(range(4))]
    sid, item = sid_places(lists, ["S2"] * 24), item_places(lists, ["2"] * 24, ["S2"] * 24)
    for name, values in per_row(sid).items():
        np.testing.assert_array_equal(values, per_row(item)[name])


def test_ranks_agree_with_ranx():
    from ranx import Qrels, Run, evaluate

    chance = random.Random(5)
    lists, targets = [], [str(chance.randrange(12)) for _ in range(40)]
    for _ in targets:
        lists.append([group(f"S{item}", str(item)) for item in chance.sample(range(12), 10)])
    metrics = per_row(item_places(lists, targets, [f"S{target}" for target in targets]), ks=(1, 3, 10))
    right = Qrels({str(row): {target: 1} for row, target in enumerate(targets)})
    scores = [{g["items"][0]: 10.0 - place for place, g in enumerate(groups)} for groups in lists]
    run = Run({str(row): of for row, of in enumerate(scores)})
    for ours, theirs in (("hr", "hit_rate"), ("ndcg", "ndcg"), ("mrr", "mrr")):
        for k in (1, 3, 10):
            found = evaluate(right, run, f"{theirs}@{k}", return_mean=False)  # in the order of the rows' names as text
            expected = dict(zip(sorted(map(str, range(40))), found, strict=True))
            by_row = [expected[str(row)] for row in range(40)]
            np.testing.assert_allclose(metrics[f"{ours}@{k}"], by_row, atol=1e-12, err_msg=f"{ours}@{k}")


def test_coverage_counts_every_item_of_a_sid_that_begins_within_k():
    lists = [[group("A", "1"), group("B", "2", "3"), group("C", "4")], [group("A", "1"), group("C", "4")]]
    assert coverage(lists, list("12345678"), 1) == 1 / 8
    assert coverage(lists, list("12345678"), 2) == 4 / 8  # 1; 2 and 3; 4 from the second row
    assert coverage([[]], list("12"), 10) == 0


def test_repeat_share_takes_a_straddling_sid_by_its_part():
    lists = [[group("A", "1"), group("B", "2", "3")], [group("A", "1")], []]
    shares = repeat_share(lists, [["3"], ["1", "1"], ["1"]], k=2)
    assert shares.tolist() == [0.25, 1.0, 0.0]  # place 2 holds item 3 with probability 1/2


@pytest.mark.parametrize(
    "bad",
    [
        group("<a_0><b_0><c_9>", "0"),
        group("<a_0><b_0><c_0>"),
        group("<a_0><b_0><c_0>", "1"),
        group("<a_0><b_0><c_1>", "1", "1"),
    ],
)
def test_what_the_catalogue_does_not_hold_is_invalid(toy, bad):
    right = group("<a_2><b_1><c_3>", "7")
    assert count_invalid([[right]], toy.sids) == 0
    assert count_invalid([[right, bad]], toy.sids) == 1


def test_an_item_named_twice_in_one_list_is_invalid(toy):
    right = group("<a_2><b_1><c_3>", "7")
    assert count_invalid([[right, right]], toy.sids) == 1
