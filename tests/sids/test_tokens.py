import json

import pytest

from mimigenrec.sids import tokens


def index(tmp_path, content):
    path = tmp_path / "index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_index_comes_back_as_written_with_lengths_as_they_are(tmp_path):
    sids = {"9": ("<a_1>", "<b_2>"), "10": ("[shoes-3]",), "x": ("<a_1>", "<b_2>", "<c_1>", "<d_4>")}
    tokens.write_index(tmp_path / "id2sid.json", sids)
    assert tokens.read_index(tmp_path / "id2sid.json") == sids


def test_new_tokens_are_sorted_and_distinct(tmp_path):
    sids = {"1": ("<b>", "<z>"), "2": ("<a>", "<z>")}
    tokens.write_new_tokens(tmp_path / "new_tokens.json", sids)
    assert tokens.read_new_tokens(tmp_path / "new_tokens.json") == ["<a>", "<b>", "<z>"]


def test_a_sid_in_a_text_is_found_and_joined_again():
    assert tokens.split_sid("the item <a_1><b_2>[c-3] of 1 < 2") == ["<a_1>", "<b_2>", "[c-3]"]
    assert tokens.join_sid(["<a_1>", "<b_2>"]) == "<a_1><b_2>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not JSON"),
        ([], "map item ids"),
        ({}, "at least one item"),
        ({"1": []}, "item '1' needs a list of 1 to 8"),
        ({"1": [f"<l{i}>" for i in range(9)]}, "item '1' needs a list of 1 to 8"),
        ({"1": "<a_1><b_2>"}, "item '1' needs a list"),
        ({"1": ["a_1"]}, "'a_1'; a SID token is a bracketed name"),
        ({"1": ["<a 1>"]}, "bracketed name"),
        ({"1": [7]}, "bracketed name"),
        ({"1": ["<x>", "<y>"], "2": ["<y>"]}, "<y> stands at level 2 and, for item '2', at level 1"),
        ({"1": ["<x>", "<x>"]}, "<x> stands at level 1 and, for item '1', at level 2"),
    ],
)
def test_a_wrong_index_is_refused_by_file_and_item(tmp_path, content, message):
    with pytest.raises(ValueError, match="index.json.*") as error:
        tokens.read_index(index(tmp_path, content))
    assert message in str(error.value)


@pytest.mark.parametrize("content", [{}, [], ["<a>", "<a>"], ["a"], ["<a>", 3]])
def test_wrong_new_tokens_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match="index.json"):
        tokens.read_new_tokens(index(tmp_path, content))


def test_a_missing_index_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="comes from a SID method"):
        tokens.read_index(tmp_path / "index.json")
