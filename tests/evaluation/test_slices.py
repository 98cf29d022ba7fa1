"""Slices and the level at which a SID goes wrong, on rows whose answers are read off."""

import numpy as np
import pytest

from mimigenrec.evaluation.result import row_metrics
from mimigenrec.evaluation.slices import (
    count_targets,
    first_wrong_level,
    head_items,
    level_reached,
    slice_metrics,
    slices,
)
from mimigenrec.interactions.inter_file import History


def row(target, history=("0",), target_sid="<a_0><b_0>", ranked=()):
    groups = [{"sid": sid, "items": list(items), "score": 0.0} for sid, *items in ranked]
    history = None if history is None else list(history)
    return {"user": "u", "row": 0, "history": history, "target": target, "target_sid": target_sid, "ranked": groups}


def ranking(*sids, target_sid="<a_0><b_0><c_0>"):
    return row("t", target_sid=target_sid, ranked=[(sid, f"item of {sid}") for sid in sids])


def names_of(masks, place):
    """Which slice of each family holds the row at `place`."""
    return {family: [name for name, mask in of.items() if mask[place]] for family, of in masks.items()}


def test_targets_are_counted_and_histories_are_not():
    train = [History(0, "u", ("1", "2"), "3"), History(1, "u", ("1", "2", "3"), "4"), History(2, "v", (), "3")]
    assert count_targets(train) == {"3": 2, "4": 1}


def test_the_head_is_a_fifth_of_the_items_bought_rounded_up_with_ties_by_id():
    assert head_items({str(i): 10 - i for i in range(10)}) == {"0", "1"}
    assert head_items({"a": 1, "b": 5, "c": 1}) == {"b"}
    assert head_items({"10": 2, "9": 2, "8": 1, "7": 1, "6": 1}) == {"9"}
    assert head_items({"a": 1} | dict.fromkeys("bcdefghij", 0)) == {"a"}  # a fifth of one, not of ten
    assert head_items({}) == set()


def test_every_family_by_hand():
    counts = {"1": 9, "2": 3, "3": 2, "4": 1, "5": 1}
    rows = [row("1", ["2", "1"]), row("2", ["3"] * 5), row("9", map(str, range(6))), row("5", ["0"] * 11)]
    masks = slices(rows, counts)
    assert names_of(masks, 0) == {
        "target popularity": ["head"],
        "target in train": ["warm"],
        "history length": ["0-2"],
        "target in history": ["yes"],
    }
    assert names_of(masks, 1)["target popularity"] == ["tail"] and names_of(masks, 1)["history length"] == ["3-5"]
    assert names_of(masks, 2) == {
        "target popularity": ["tail"],
        "target in train": ["cold"],
        "history length": ["6-10"],
        "target in history": ["no"],
    }
    assert names_of(masks, 3)["history length"] == ["11 or more"] and names_of(masks, 3)["target in train"] == ["warm"]


def test_an_item_with_a_count_of_0_is_cold_and_an_empty_history_holds_nothing():
    masks = slices([row("1", [])], {"1": 0, "2": 1})
    assert names_of(masks, 0)["target in train"] == ["cold"] and names_of(masks, 0)["history length"] == ["0-2"]
    assert names_of(masks, 0)["target in history"] == ["no"]


def test_the_slices_of_a_family_share_out_the_rows_that_can_be_told():
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        history = None if chance.random() < 0.2 else [str(i) for i in chance.integers(0, 20, chance.integers(0, 15))]
        rows.append(row(None if chance.random() < 0.2 else str(chance.integers(0, 20)), history))
    masks = slices(rows, {str(i): i for i in range(15)})
    told, asked = [[r[key] is not None for r in rows] for key in ("target", "history")]
    both = (np.array(told) & np.array(asked)).tolist()
    for family, tells in zip(masks, (told, told, asked, both), strict=True):
        assert np.sum(list(masks[family].values()), axis=0).tolist() == [int(tell) for tell in tells], family


def test_rows_that_tell_only_sids_have_no_slices():
    assert slices([row(None, None)], {"1": 1}) == {}
    assert list(slices([row("1", None)], {"1": 1})) == ["target popularity", "target in train"]
    assert list(slices([row(None, ["1"])], {"1": 1})) == ["history length"]


def measured(rows, counts, names, level="item", seed=42):
    columns = row_metrics(rows, level, {int(name.partition("@")[2]) for name in names})
    return slice_metrics({name: columns[name] for name in names}, slices(rows, counts), seed)


def test_the_metrics_of_a_slice_are_means_over_its_rows_with_the_interval_of_those_rows_alone():
    hit, miss = [("<a_0><b_0>", "1")], [("<a_1><b_0>", "2")]
    rows = [row("1", ranked=hit), row("1", ranked=hit), row("1", ranked=miss), row("9", ranked=hit)]
    found = measured(rows, {"1": 1}, ["hr@10", "mrr@1"])["target in train"]
    warm, cold = found["warm"], found["cold"]
    assert warm["n"] == 3 and warm["hr@10"].mean == pytest.approx(2 / 3) and warm["mrr@1"].mean == pytest.approx(2 / 3)
    assert warm["hr@10"].low == 0 and warm["hr@10"].high == 1
    assert cold == {"n": 1, "hr@10": (0, 0, 0), "mrr@1": (0, 0, 0)}
    at_sid_level = measured(rows, {"1": 1}, ["hr@10"], level="sid")
    assert at_sid_level["target in train"]["cold"]["hr@10"].mean == 1  # it shares the target's SID


def test_the_slices_of_a_family_add_up_to_the_whole():
    chance = np.random.default_rng(1)
    rows = []
    for _ in range(60):
        order = chance.permutation(8)
        ranked = [(f"<a_{i}>", str(i)) for i in order[:5]]
        rows.append(row(str(chance.integers(8)), [str(chance.integers(8))] * chance.integers(1, 14), "", ranked))
    whole = row_metrics(rows, "item", [3])["ndcg@3"].mean()
    for family, of in measured(rows, {str(i): i for i in range(6)}, ["ndcg@3"]).items():
        parts = [found["n"] * found["ndcg@3"].mean for found in of.values() if found["n"]]
        assert sum(parts) / 60 == pytest.approx(whole), family


def test_one_seed_gives_one_interval_whatever_the_other_slices():
    masks = slices([row(str(i % 3)) for i in range(30)], {"1": 1, "2": 1})
    columns = {"hr@10": np.random.default_rng(0).random(30)}
    alone = {"target in train": {"warm": masks["target in train"]["warm"]}}
    everything = slice_metrics(columns, masks, seed=5)["target in train"]["warm"]
    assert slice_metrics(columns, alone, seed=5)["target in train"]["warm"] == everything
    assert slice_metrics(columns, alone, seed=6)["target in train"]["warm"] != everything


def test_a_slice_without_rows_says_so():
    rows = [row("1", ranked=[("<a_0><b_0>", "1")])]
    assert measured(rows, {"1": 1}, ["hr@1"])["target in train"]["cold"] == {"n": 0, "hr@1": None}


def test_masks_of_another_result_are_refused():
    masks = slices([row("1"), row("1")], {"1": 1})
    with pytest.raises(ValueError, match="'head' of 'target popularity' is over 2 rows, the metrics over .*1}"):
        slice_metrics({"hr@10": np.zeros(1)}, masks, seed=0)


@pytest.mark.parametrize(
    ("first", "target", "level"),
    [
        ("<a_0><b_0><c_0>", "<a_0><b_0><c_0>", 0),
        ("<a_1><b_0><c_0>", "<a_0><b_0><c_0>", 1),
        ("<a_0><b_1><c_0>", "<a_0><b_0><c_0>", 2),
        ("<a_0><b_0><c_1>", "<a_0><b_0><c_0>", 3),
        ("<a_0><b_0>", "<a_0><b_0><c_0>", 3),  # ends too early
        ("<a_0><b_0><c_0>", "<a_0><b_0>", 3),  # goes on too long
        ("<a_0><b_0>", "", -1),
        ("<a_0><b_0>", None, -1),
    ],
)
def test_where_the_first_sid_goes_wrong(first, target, level):
    assert first_wrong_level([ranking(first, "<a_0><b_0><c_0>", target_sid=target)]).tolist() == [level]


def test_a_row_without_a_list_goes_wrong_nowhere():
    assert first_wrong_level([ranking()]).tolist() == [-1]
    assert first_wrong_level([]).tolist() == []


def test_how_deep_the_search_got_by_hand():
    rows = [
        ranking("<a_1><b_0><c_0>", "<a_0><b_0><c_1>", "<a_0><b_0><c_0>"),  # level 2, then all
        ranking("<a_0><b_1><c_0>", "<a_0><b_2><c_0>"),  # level 1
        ranking("<a_2><b_0><c_0>"),  # b_0 and c_0 behind another a are not on the way
        ranking(),
    ]
    assert level_reached(rows, 1) == {1: 0.25, 2: 0, 3: 0}
    assert level_reached(rows, 2) == {1: 0.5, 2: 0.25, 3: 0}
    assert level_reached(rows, 3) == {1: 0.5, 2: 0.25, 3: 0.25}


def test_a_sid_named_by_several_items_counts_once_towards_k():
    rows = [ranking("<a_1><b_0><c_0>", "<a_1><b_0><c_0>", "<a_0><b_0><c_0>")]
    assert level_reached(rows, 2) == {1: 1, 2: 1, 3: 1}


def test_levels_are_shares_of_the_targets_that_have_them():
    rows = [ranking("<a_0><b_0><c_5>", target_sid="<a_0><b_0>"), ranking("<a_0><b_0><c_5>"), ranking(target_sid="")]
    assert level_reached(rows, 1) == {1: 1, 2: 1, 3: 0}
    assert level_reached([ranking("<a_0>", target_sid=None)], 1) == {}


def test_the_last_level_reached_is_the_hit_rate_of_sids():
    chance = np.random.default_rng(2)
    sids = [f"<a_{a}><b_{b}><c_{c}>" for a in range(2) for b in range(2) for c in range(2)]
    rows = [ranking(*chance.permutation(sids)[:6].tolist(), target_sid=chance.choice(sids)) for _ in range(50)]
    for k in (1, 3, 5):
        reached = level_reached(rows, k)
        assert reached[3] == pytest.approx(row_metrics(rows, "sid", [k])[f"hr@{k}"].mean())
        assert reached[1] >= reached[2] >= reached[3]


def test_k_below_1_is_refused():
    with pytest.raises(ValueError, match="k=0"):
        level_reached([ranking("<a_0>")], 0)
