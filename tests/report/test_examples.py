"""The rows that a report shows: of every kind, the same for a seed, with ranks and the wrong part of a SID by hand."""

import numpy as np
import pytest

from mimigenrec.page import Span
from mimigenrec.report.examples import (
    TITLE,
    _marked_sid,
    _rank,
    _top,
    choose_rows,
    examples,
    kind_of,
    rank_of,
    title_of,
)
from mimigenrec.report.methods import Measures, read_methods

SID = ["<a_1>", "<b_2>", "<c_3>"]


def row(rank, size=1):
    """A row whose target is in a group of `size` items, of which the first stands at `rank`; 0: nowhere."""
    groups = [{"sid": f"<a_{i}>", "items": [f"x{i}"]} for i in range(20)]
    if rank:
        groups[rank - 1] = {"sid": "<a_99>", "items": ["t", *(f"y{i}" for i in range(size - 1))]}
    return {"target": "t", "target_sid": "<a_99>", "ranked": groups}


@pytest.mark.parametrize(
    ("rank", "kind"),
    [
        (1, "has the target first"),
        (2, "has it among the first 10"),
        (10, "has it among the first 10"),
        (11, "has it further down"),
        (0, "does not list it"),
    ],
)
def test_kinds_by_rank(rank, kind):
    assert rank_of(row(rank)) == ((rank, rank) if rank else None)
    assert kind_of(rank_of(row(rank))) == kind


def test_items_of_one_sid_share_their_ranks():
    assert rank_of(row(3, size=2)) == (3, 4)


def test_rows_of_every_kind_are_drawn_and_the_same_for_a_seed():
    rows = [row(rank) for rank in [0] * 200 + [1] * 50 + [5] * 50 + [15] * 50]
    chosen = choose_rows(rows, np.random.default_rng(1))
    assert chosen == choose_rows(rows, np.random.default_rng(1)) != choose_rows(rows, np.random.default_rng(2))
    kinds = [kind_of(rank_of(rows[i])) for i in chosen]
    assert kinds == (
        ["has the target first"] * 3
        + ["has it among the first 10"] * 3
        + ["has it further down"] * 2
        + ["does not list it"] * 2
    )


@pytest.mark.parametrize("ranks", [[0] * 40, [1] * 40, [0, 1] * 20, [0, 5, 1], [3]])
def test_what_a_kind_lacks_others_fill_and_no_row_comes_twice(ranks):
    chosen = choose_rows([row(rank) for rank in ranks], np.random.default_rng(0))
    assert len(chosen) == len(set(chosen)) == min(10, len(ranks))


def test_what_is_shown_of_a_row_by_hand(result_of, toy, tmp_path):
    histories = [["0", "4", "7", "1", "5", "6", "2"], []]
    near = result_of(tmp_path / "near", [["2", "0"], []], ["1", "7"], histories=histories, alone=False)
    exact = result_of(tmp_path / "exact", [["0", "1"], ["7"]], ["1", "7"], histories=histories)
    measures = Measures(["hr@1"], 3, list(toy.sids), {})
    methods, _ = read_methods({"near": [near], "exact": [exact]}, {}, measures, "near", lambda rows: range(2))
    first, second = examples("near", methods, toy)
    assert (first["user"], first["kind"], first["earlier"]) == ("u0", "does not list it", 1)
    assert first["history"] == [f"thing number {i}" if i != 7 else "item 7" for i in (4, 7, 1, 5, 6, 2)]
    assert first["target"] == "thing number 1" and first["target_sid"] == "<a_0><b_0><c_1>"
    shown = first["methods"]["near"]
    assert shown["rank"] is None and shown["wrong"] == 2 and shown["sid"] == ["<a_0>", "<b_1>", "<c_0>"]
    assert shown["top"][0] == {"title": "thing number 3", "alike": 1, "right": False}  # the more popular on that SID
    assert first["methods"]["exact"]["rank"] == (2, 2)
    assert [item["right"] for item in first["methods"]["exact"]["top"]] == [False, True]
    assert second["history"] == [] and second["target"] == "item 7"
    assert second["methods"]["near"] == {"rank": None, "top": [], "sid": [], "wrong": -1}
    assert second["methods"]["exact"]["wrong"] == 0


def test_long_titles_are_cut_and_items_without_one_are_told_by_id(toy):
    toy = toy.__class__(sids=toy.sids, titles={"0": "x" * (TITLE + 1), "1": "y" * TITLE})
    assert title_of("0", toy) == "x" * (TITLE - 1) + "…"
    assert title_of("1", toy) == "y" * TITLE and title_of("7", toy) == "item 7"


@pytest.mark.parametrize(
    ("wrong", "spans"),
    [
        (0, [Span("<a_1><b_2><c_3>", "code")]),
        (-1, [Span("<a_1><b_2><c_3>", "code")]),
        (1, [Span("<a_1><b_2><c_3>", "wrong"), Span(" level 1", "soft")]),
        (3, [Span("<a_1><b_2>", "code"), Span("<c_3>", "wrong"), Span(" level 3", "soft")]),
        (4, [Span("<a_1><b_2><c_3>", "code"), Span(" level 4", "soft")]),  # it ends too early
    ],
)
def test_a_sid_is_marked_from_the_level_on_that_is_wrong(wrong, spans):
    assert _marked_sid({"sid": SID, "wrong": wrong}) == spans


def test_ranks_as_text():
    assert (_rank((3, 3)), _rank((3, 4)), _rank(None)) == ("3", "3–4", Span("–", "soft"))


def test_the_right_item_is_ticked_and_the_others_on_its_sid_are_told():
    top = [{"title": "A", "alike": 0, "right": True}, {"title": "B", "alike": 2, "right": False}]
    assert _top(top) == [[Span("✓ A", "good"), ""], ["B", " (or 2 more on its SID)"]]
