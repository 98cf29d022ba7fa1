import pytest

from mimigenrec.errors import UserError
from mimigenrec.items import (
    category_names,
    category_path,
    id_order,
    plain_text,
    read_entries,
    read_item_texts,
    read_items,
    spelled_list,
)
from tests.vectors.conftest import items_file


def test_numbers_sort_by_value_and_before_names():
    assert sorted(["b", "10", "9", "a"], key=id_order) == ["9", "10", "a", "b"]


def test_rows_stand_in_the_order_of_the_numbers_of_the_ids(tmp_path):
    path = items_file(tmp_path / "C.item.json", {"10": "ten", "9": "nine", "b": "bee", "a": "ay"})
    assert read_item_texts(path, "{title}") == {"9": "nine", "10": "ten", "a": "ay", "b": "bee"}


def test_a_text_is_made_of_the_fields_that_are_there(tmp_path):
    path = tmp_path / "C.item.json"
    path.write_text(
        '{"0": {"title": "Lamp", "description": "[\'Bright.\', \'Very.\']", "categories": ["Home", "Light"]},'
        ' "1": {"title": null}}'
    )
    texts = read_item_texts(path, "{title}\n{description}\nby {brand}\n{categories}")
    assert texts == {"0": "Lamp\nBright. Very.\nby\nHome, Light", "1": "by"}


def test_a_text_that_only_looks_like_a_list_or_like_code_stays_text():
    assert plain_text("[see the manual]") == "[see the manual]"
    assert plain_text("['', __import__('os').getcwd(), '']") == "['', __import__('os').getcwd(), '']"


def test_what_is_not_a_map_of_items_is_refused(tmp_path):
    path = tmp_path / "C.item.json"
    for content, message in (
        ("[]", "must map item ids"),
        ("{}", "at least one item"),
        ('{"7": 3}', "item '7' needs"),
        ('{"7": {}, "7": {}}', "holds the key '7' twice"),
        ('{"7": {"title": {"en": "x"}}}', "title of item '7' must be a text or a list of texts"),
        ('{"7": {"categories": ["a", "\\ud83d"]}}', "categories of item '7' holds .ud83d, half of a character"),
        ('{"\\ud83d": {}}', "holds .ud83d, half of a character"),
        ('{"7": {"title": ' + "[" * 50 + "]" * 50 + "}}", "title of item '7' must be"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_item_texts(path, "{title}")
    path.write_text('{"7": {}}')
    with pytest.raises(ValueError, match="names 'colour'; it may name title, description"):
        read_item_texts(path, "{colour}")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("A, B,,C", ("A", "B", "C")),
        (["A", "B"], ("A", "B")),
        ([["A", "B"], ["C"]], ("A", "B")),
        ("", ()),
        (None, ()),
        ([], ()),
        ("['A', 'B, C']", ("A", "B, C")),
        ("[['A', 'B'], ['C']]", ("A", "B")),
        (["A", None, " "], ("A",)),
        (float("nan"), ()),
        ("[]", ()),
        ("[{[1]}]", ("[{[1]}]",)),
    ],
)
def test_categories_come_in_every_form_of_the_data_sets(value, path):
    assert category_path({"categories": value}) == path


def test_the_names_of_all_ways_come_once_each():
    assert category_names({"categories": [["A", "B"], ["A", "C"]]}) == ["A", "B", "C"]
    assert category_names({"categories": "A, B, A"}) == ["A", "B"] and category_names({}) == []


@pytest.mark.parametrize("value", [5, ["A", ["B"]], [["A"], "B"], [[["A"]]], [{"a": 1}]])
def test_categories_that_are_no_names_are_refused_with_their_item(value):
    with pytest.raises(UserError, match="f.json: item '1' has categories .*; give a text, a list"):
        category_names({"categories": value}, "f.json: item '1'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("['one  part', \"another's part\"]", "one part another's part"),
        (" ['padded'] ", "padded"),
        ([" a", None, "", ["b", "c"]], "a b c"),
        ("[['a'], ['b']]", "a b"),
        ("[[['a']]]", "[[['a']]]"),
        ("[" * 50 + "]" * 50, "[" * 50 + "]" * 50),
        ("[1, 2]", "[1, 2]"),
        ("[{[1]: 2}]", "[{[1]: 2}]"),  # no key of a map
        ("['a', None]", "['a', None]"),
        ("('a', 'b')", "('a', 'b')"),
        ("['don't']", "['don't']"),
        ("[]", ""),
        (None, ""),
        (float("nan"), ""),
        (5, "5"),
    ],
)
def test_a_text_that_spells_a_list_of_texts_is_one_and_all_others_stay(value, text):
    assert plain_text(value) == text


def test_a_list_that_would_cost_time_to_read_stays_text():
    assert spelled_list("[" * 5000 + "]" * 5000) is None
    assert spelled_list(str(["a" * 100_000])) is None and spelled_list(str(["a" * 1000])) == ["a" * 1000]


def test_the_embedded_text_and_the_prompt_text_of_a_spelled_list_are_one(tmp_path):
    """They were joined by a comma in the one and by a space in the other."""
    from mimigenrec.tasks.clean import read_texts

    path = items_file(tmp_path / "C.item.json", {"0": "['Bright.', 'Very.']"})
    assert read_item_texts(path, "{title}") == read_texts(path, 100)[1] == {"0": "Bright. Very."}


def test_half_a_character_that_a_list_spells_is_refused(tmp_path):
    path = items_file(tmp_path / "C.item.json", {"7": "['\\ud83d']"})
    with pytest.raises(UserError, match="title of item '7' holds .ud83d, half of a character"):
        read_items(path)


def test_entries_come_in_the_order_of_the_file_with_every_key(tmp_path):
    (tmp_path / "C.item.json").write_text('{"b": {"price": 1}, "9": {}}')
    assert list(read_entries(tmp_path / "C.item.json").items()) == [("b", {"price": 1}), ("9", {})]
    assert list(read_items(tmp_path / "C.item.json")) == ["9", "b"]
