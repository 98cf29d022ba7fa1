"""ItemKNN by hand: three users, four items."""

import math

import numpy as np
import pytest

from mimigenrec.baselines.itemknn import ItemKNN
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History

TRAIN = [  # u had 1 2 3 (in two rows), v had 1 2, w had 1 4
    History(0, "u", ("1",), "2"),
    History(1, "u", ("1", "2"), "3"),
    History(2, "v", ("1",), "2"),
    History(3, "w", ("4",), "1"),
]
ITEMS = ["1", "2", "3", "4", "5"]


def scores(history, **options):
    return dict(ItemKNN(ITEMS, TRAIN, **options).rank(history))


def test_scores_are_cosines_of_who_had_both():
    after_1 = scores(["1"])
    assert after_1 == pytest.approx(
        {"1": 0, "2": 2 / math.sqrt(3 * 2), "3": 1 / math.sqrt(3), "4": 1 / math.sqrt(3), "5": 0}
    )
    assert scores(["1", "2", "1"])["3"] == pytest.approx(1 / math.sqrt(3) + 1 / math.sqrt(2))  # 1 counts once


def test_shrink_stands_below_the_fraction():
    assert scores(["1"], shrink=1.0)["2"] == pytest.approx(2 / (math.sqrt(6) + 1))


def test_only_the_nearest_neighbours_count_of_equals_the_more_popular():
    near = scores(["1"], neighbours=2)
    assert near["2"] > 0 and near["3"] > 0 and near["4"] == 0  # 3 was a target, 4 never


def test_every_item_comes_once_ties_by_popularity_then_id():
    method = ItemKNN(ITEMS, TRAIN)
    assert [item for item, _ in method.rank(["1"])] == ["2", "3", "4", "1", "5"]
    for history in ([], ["404"], ["5"]):  # nothing is known of 5
        assert [item for item, _ in method.rank(history)] == [item for item, _ in method.popularity.order]


def test_it_agrees_with_the_definition_on_random_users():
    rng = np.random.default_rng(0)
    had = rng.random((30, 8)) < 0.3
    had[:, 0] = True
    train = [History(i, str(i), tuple(map(str, np.flatnonzero(row)[1:])), "0") for i, row in enumerate(had)]
    users = had.sum(0)
    for history in (["1", "4"], ["7"]):
        found = dict(ItemKNN(list(map(str, range(8))), train).rank(history))
        for item in range(8):
            expected = sum(
                (had[:, item] & had[:, int(i)]).sum() / np.sqrt(users[item] * users[int(i)])
                for i in history
                if int(i) != item
            )
            assert found[str(item)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "value"), [("neighbours", 0), ("neighbours", -1), ("shrink", -1000.0), ("shrink", math.nan)]
)
def test_numbers_that_give_no_similarities_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}; it must be at least"):
        scores(["1"], **{name: value})
