import json
from collections import Counter

import pytest

from mimigenrec.tasks.clean import clean, read_texts


@pytest.mark.parametrize(
    ("value", "text", "counted"),
    [
        ("  two\n\twords ", "two words", {}),
        ("", "", {}),
        (None, "", {}),
        ("['one part', \"another's part\"]", "one part another's part", {"d_from_list": 1}),
        ("[]", "", {"d_from_list": 1}),
        (["a", "b"], "a b", {}),
        ("['5\" tube", "['5\" tube", {}),
        ("['don't']", "['don't']", {"d_list_not_literal": 1}),
        ("[new] glue [red]", "[new] glue [red]", {"d_list_not_literal": 1}),
        ("[1, 2]", "[1, 2]", {"d_list_not_literal": 1}),
        ("[" * 5000 + "]" * 5000, "[" * 20, {"d_list_not_literal": 1, "d_cut": 1}),
        ("twelve words of text and then some", "twelve words of text", {"d_cut": 1}),
        ("twelve words of textual", "twelve words of", {"d_cut": 1}),
        ("a" * 30, "a" * 20, {"d_cut": 1}),
    ],
)
def test_each_rule_by_hand(value, text, counted):
    counts = Counter()
    result = clean(value, max_chars=1000 if "part" in text or "glue" in text else 20, name="d", counts=counts)
    assert (result, dict(counts)) == (text, counted)


def test_a_description_is_never_run(tmp_path):  # the original files' reader called eval on such a text
    trap = f"['', __import__('os').mkdir('{tmp_path}/ran'), '']"
    counts = Counter()
    assert clean(trap, 1000, "description", counts) == trap
    assert counts == {"description_list_not_literal": 1}
    assert not (tmp_path / "ran").exists()


def test_empty_and_shared_texts_are_counted(tmp_path):
    items = {"1": {"title": "tape", "description": ""}, "2": {"title": "tape"}, "3": {"title": " ", "other": 5}}
    (tmp_path / "item.json").write_text(json.dumps(items))
    read, titles, descriptions, counts = read_texts(tmp_path / "item.json", 100)
    assert read == items and titles == {"1": "tape", "2": "tape"} and descriptions == {}
    assert counts == {"title_shared": 2, "title_empty": 1, "description_empty": 3, "description_shared": 0}


def test_texts_come_in_the_order_of_the_file(tmp_path):
    """The samples are made in this order before they are shuffled: another one would write other rows."""
    (tmp_path / "item.json").write_text(json.dumps({item: {"title": f"tape {item}"} for item in ("10", "b", "9")}))
    assert list(read_texts(tmp_path / "item.json", 100)[1]) == ["10", "b", "9"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must map item ids"),
        ({"1": "tape"}, "item '1' needs a map"),
        ({"1": {"title": 5}}, "title of item '1': expected a text, found 5"),
        ({"1": {"title": "x", "description": {"a": 1}}}, "description of item '1'"),
    ],
)
def test_wrong_texts_are_refused_by_file_and_item(tmp_path, content, message):
    (tmp_path / "item.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="item.json") as error:
        read_texts(tmp_path / "item.json", 100)
    assert message in str(error.value)
