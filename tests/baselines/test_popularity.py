"""Popularity on a handful of rows whose order can be seen."""

from mimigenrec.baselines.popularity import Popularity
from mimigenrec.interactions.inter_file import History

TRAIN = [History(i, "u", (), target) for i, target in enumerate(["10", "9", "9", "10", "3", "77"])]


def test_most_bought_first_then_by_id_as_a_number_and_the_never_bought_last():
    ranked = Popularity(["3", "10", "9", "100"], TRAIN).rank(["9"])
    assert ranked == [("9", 2.0), ("10", 2.0), ("3", 1.0), ("100", 0.0)]


def test_what_is_not_in_the_catalogue_is_not_ranked():
    assert "77" not in dict(Popularity(["3", "9"], TRAIN).rank([]))
