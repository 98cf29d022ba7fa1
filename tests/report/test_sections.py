"""How a report's numbers are worded: marks and times."""

from mimigenrec.page import Span
from mimigenrec.report.sections import _file, _time, _value


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


def test_times_and_file_names():
    assert [_time(s) for s in (None, 0.34, 119.9, 120, 7199, 9000)] == [
        "",
        "0.3 s",
        "119.9 s",
        "2 min",
        "120 min",
        "2.5 h",
    ]
    assert _file("SASRec (BCE) / 2") == "SASRec-BCE-2" and _file("../x") == "..-x"
