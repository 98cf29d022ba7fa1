import json

import pytest

from mimigenrec.schema import check, fits, read_map, read_rows, words

ROW = {"user": str, "row": int, "score?": float, "history": [str], "prompt?": [{"role": str, "content": (str, None)}]}
GOOD = {"user": "u", "row": 0, "history": ["1"], "prompt": [{"role": "user", "content": None}], "more": 5}

BAD = [  # what is changed in the row, and what the message says
    ({"user": 5}, "user must be a text, found 5"),
    ({"row": True}, "row must be a whole number, found True"),
    ({"row": 1.0}, "row must be a whole number, found 1.0"),
    ({"score": "high"}, "score must be a finite number, found 'high'"),
    ({"score": 10**400}, "score must be a finite number, found 1000"),  # no float holds it
    ({"score": float("-inf")}, "score must be a finite number, found -inf"),
    ({"score": float("nan")}, "score must be a finite number, found nan"),
    ({"history": "1 2"}, "history must be a list of texts, found '1 2'"),
    ({"history": ["1", 2]}, r"history\[1\] must be a text, found 2"),
    (
        {"prompt": [{"role": "user"}]},
        r"prompt\[0\].content is missing, which must be a text or null; found {'role': 'user'}",
    ),
    ({"prompt": ["hi"]}, r"prompt\[0\] must be a map with 'role' and 'content', found 'hi'"),
    ({"prompt": "hi"}, "prompt must be a list of maps with 'role' and 'content', found 'hi'"),
    ({"user": None}, "user must be a text, found None"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_the_message_names_file_row_key_found_and_wanted(tmp_path, change, message):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(ValueError, match=rf"rows\.json, row 1: {message}"):
        read_rows(path, ROW, made_by="a test")
    assert not fits(GOOD | change, ROW) and fits(GOOD, ROW)


def test_rows_come_back_as_they_are_and_may_lack_what_is_optional(tmp_path):
    rows = [GOOD, {"user": "v", "row": 2, "history": [], "score": 1}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert read_rows(tmp_path / "rows.json", ROW, made_by="a test") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold at least one row, found none; it comes from a test"),
        ({}, "must hold a list"),
        ([5], "row 0: must be a map with 'user', 'row' and 'history', found 5"),
        ([{"row": 1}], "row 0: user is missing, which must be a text; found {'row': 1}"),
    ],
)
def test_a_file_without_such_rows_is_refused(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "rows.json", ROW, made_by="a test")


def test_a_map_names_the_key_of_the_bad_value(tmp_path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"17": {"title": "a"}, "18": {"title": ["b"]}}))
    with pytest.raises(ValueError, match=r"items\.json: 18\.title must be a text, found \[.*; it comes from a test"):
        read_map(path, {str: {"title?": str}}, made_by="a test")
    assert read_map(path, {str: {"title?": (str, [str])}}, made_by="a test")["18"] == {"title": ["b"]}
    with pytest.raises(ValueError, match=r"items\.json: 17 must be a text"):
        read_map(path, {str: str}, made_by="a test")


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ValueError, match=r"place: must be a whole number, found 'x{79}\.\.\.$"):
        check("x" * 500, int, "place")


def test_a_schema_reads_as_words():
    assert words([(str, int)]) == "a list of texts or whole numbers"
    assert words([[float]]) == "a list of lists of finite numbers"
    assert words({str: [int]}) == "a map of lists of whole numbers"
    assert words({"a?": str}) == "a map" and words([bool]) == "a list of values true or false"
