import random

import numpy as np
import pytest

from mimigenrec.interactions.sequences import Sequences
from mimigenrec.interactions.splits import history_starts, split_rows


def sequences(per_user: list[list[tuple[int, int]]]) -> Sequences:
    """[[(item, time), ...] per user]"""
    flat = [(user, item, time) for user, events in enumerate(per_user) for item, time in events]
    user, item, time = (np.array(column) for column in zip(*flat, strict=True))
    start = np.searchsorted(user, np.arange(len(per_user) + 1))
    names = [str(i) for i in range(item.max() + 1)]
    return Sequences(user, item, time, np.arange(len(user)), start, [str(u) for u in range(len(per_user))], names)


def random_sequences(seed: int) -> Sequences:
    rng = random.Random(seed)
    return sequences(
        [
            [(rng.randrange(9), time) for time in sorted(rng.choices(range(20), k=rng.randrange(2, 9)))]
            for _ in range(30)
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_order_of_time_are_cut_eight_one_one(seed):
    s = random_sequences(seed)
    expected = []  # the recipe as it is told: user by user, position by position, then a stable sort by time
    for user in range(len(s.users)):
        expected += range(s.start[user] + 1, s.start[user + 1])
    expected.sort(key=lambda place: s.time[place])
    n = len(expected)
    rows = split_rows(s, "time", [8, 1, 1])
    assert rows["train"].tolist() == expected[: int(n * 0.8)]
    assert rows["valid"].tolist() == expected[int(n * 0.8) : int(n * 0.9)]
    assert rows["test"].tolist() == expected[int(n * 0.9) :]


def test_leave_one_out_by_hand():
    s = sequences([[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)], [(5, 9)]])
    rows = split_rows(s, "leave_one_out", [8, 1, 1])
    assert {split: part.tolist() for split, part in rows.items()} == {
        "train": [1, 2],  # user 0
        "valid": [3, 8],  # user 0 and 2
        "test": [4, 6, 9],
    }


def test_a_history_is_the_latest_items_of_the_same_user():
    s = sequences([[(0, 1), (1, 2), (2, 3), (3, 4)], [(4, 1), (5, 2)]])
    rows = np.array([1, 2, 3, 5])
    assert history_starts(s, rows, 2).tolist() == [0, 0, 1, 4]
    assert history_starts(s, rows, 0).tolist() == [0, 0, 0, 4]


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="split train is empty: 1 rows of 1 users"):
        split_rows(sequences([[(0, 1), (1, 2)]]), "time", [8, 1, 1])
    with pytest.raises(ValueError, match="split train is empty"):
        split_rows(sequences([[(0, 1), (1, 2), (2, 3)]]), "leave_one_out", [8, 1, 1])
