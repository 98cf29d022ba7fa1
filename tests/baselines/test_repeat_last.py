"""Repeat-last by hand."""

from mimigenrec.baselines.repeat_last import RepeatLast


def test_the_history_backwards_each_item_once_and_nothing_else():
    ranked = RepeatLast(["1", "2", "3", "4"], []).rank(["2", "3", "1", "3"])
    assert ranked == [("3", 1.0), ("1", 0.5), ("2", 1 / 3)]


def test_items_outside_the_catalogue_are_passed_over_and_an_empty_history_gives_an_empty_list():
    method = RepeatLast(["1", "2"], [])
    assert method.rank(["2", "77"]) == [("2", 1.0)] and method.rank([]) == []
