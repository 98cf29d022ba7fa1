"""First-order Markov on a handful of rows whose order can be seen."""

from mimigenrec.baselines.markov import Markov
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
