"""History + popularity by hand."""

from mimigenrec.baselines.history_popularity import HistoryPopularity
from mimigenrec.interactions.inter_file import History

TRAIN = [History(i, "u", (), target) for i, target in enumerate(["4", "4", "5", "1"])]


def test_what_was_had_most_often_then_latest_then_popularity():
    ranked = list(HistoryPopularity(["1", "2", "3", "4", "5"], TRAIN).rank(["2", "3", "1", "2", "77"]))
    assert [item for item, _ in ranked] == ["2", "1", "3", "4", "5"]
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True) and scores[0] == 2.0 > 1.0 > scores[3]


def test_an_empty_history_gives_popularity():
    assert [item for item, _ in HistoryPopularity(["1", "2", "4", "5"], TRAIN).rank([])] == ["4", "1", "5", "2"]
