"""First-order Markov on a handful of rows whose order can be seen."""

import pytest

from mimigenrec.baselines.markov import Markov
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History

STEPS = [("1", "2"), ("1", "3"), ("1", "3"), ("1", "10"), ("2", "1"), ("2", "1"), ("2", "9"), ("1", "77")]
TRAIN = [History(i, "u", ("5", last), target) for i, (last, target) in enumerate(STEPS)]
ITEMS = ["1", "2", "3", "9", "10"]


def test_followers_of_the_last_item_by_count_then_popularity_then_id_filled_by_popularity():
    order = [item for item, _ in Markov(ITEMS, TRAIN).rank(["2", "1"])]
    assert order == ["3", "2", "10", "1", "9"]  # 2 and 10 came once each after 1 and once overall: id decides


def test_every_item_comes_once_and_scores_never_rise():
    ranked = list(Markov(ITEMS, TRAIN).rank(["2"]))
    assert sorted(item for item, _ in ranked) == sorted(ITEMS)
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True)


def test_an_unknown_last_item_and_an_empty_history_fall_back_to_popularity():
    markov = Markov(ITEMS, TRAIN)
    popular = [item for item, _ in markov.popularity.order]
    for history in (["404"], []):
        assert [item for item, _ in markov.rank(history)] == popular


def test_back_off_asks_the_items_before_the_last_one_after_the_other_before_popularity():
    ranked = list(Markov(ITEMS, TRAIN, back_off=1).rank(["1", "2"]))
    assert [item for item, _ in ranked] == ["1", "9", "3", "2", "10"]  # after 2: 1, 9; after 1: 3, 2, 10
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True) and scores[1] >= 1 > scores[2]
    assert [item for item, _ in Markov(ITEMS, TRAIN).rank(["1", "2"])] == ["1", "9", "3", "2", "10"]


def test_back_off_goes_no_further_than_told_and_unknown_items_lead_nowhere():
    def order(back_off, history):
        return [item for item, _ in Markov(ITEMS, TRAIN, back_off).rank(history)]

    popular = order(0, [])
    assert popular == ["1", "3", "2", "9", "10"]
    assert order(1, ["2", "404", "404"]) == popular
    assert order(2, ["2", "404", "404"]) == ["1", "9", "3", "2", "10"]


def test_a_back_off_below_none_is_refused():
    with pytest.raises(UserError, match="back_off is -1; it must be at least 0"):
        Markov(ITEMS, TRAIN, back_off=-1)
