"""How a report's numbers are worded: marks, ranks, times, the part of a SID that is wrong."""

import pytest

from mimigenrec.evaluation.report_sections import _file, _marked_sid, _rank, _time, _top, _value
from mimigenrec.page import Span

SID = ["<a_1>", "<b_2>", "<c_3>"]


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


def test_a_value_with_all_its_marks():
    of = {"mean": 0.1, "low": 0.05, "high": 0.15, "sd": 0.01, "best": True, "mark": "better"}
    assert _value(of) == [
        Span("0.1000", "best"),
        Span(" ± 0.0100"),
        Span(" ▲", "good"),
        Span(" [0.0500, 0.1500]", "under"),
    ]
    plain = _value(of | {"sd": None, "best": False, "mark": ""})
    assert plain == [Span("0.1000"), Span(" [0.0500, 0.1500]", "under")]


def test_ranks_times_and_file_names():
    assert (_rank((3, 3)), _rank((3, 4)), _rank(None)) == ("3", "3–4", Span("–", "soft"))
    assert [_time(s) for s in (None, 0.34, 119.9, 120, 7199, 9000)] == [
        "",
        "0.3 s",
        "119.9 s",
        "2 min",
        "120 min",
        "2.5 h",
    ]
    assert _file("SASRec (BCE) / 2") == "SASRec-BCE-2" and _file("../x") == "..-x"


def test_the_right_item_is_ticked_and_the_others_on_its_sid_are_told():
    top = [{"title": "A", "alike": 0, "right": True}, {"title": "B", "alike": 2, "right": False}]
    assert _top(top) == [[Span("✓ A", "good"), ""], ["B", " (or 2 more on its SID)"]]
