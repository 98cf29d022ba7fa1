import numpy as np
import pytest

from mimigenrec.interactions.leakage import check_leakage, events_in_histories
from mimigenrec.interactions.splits import history_starts, split_rows
from tests.interactions.test_splits import random_sequences, sequences


def hashes(s, rows, history):
    """As the files have them: one number per history text."""
    names = {}
    return {
        split: np.array(
            [
                names.setdefault(tuple(s.item[a:b]), len(names))
                for a, b in zip(history_starts(s, part, history), part, strict=True)
            ],
            dtype=np.uint64,
        )
        for split, part in rows.items()
    }


@pytest.mark.parametrize("how", ["time", "leave_one_out"])
@pytest.mark.parametrize("seed", range(4))
def test_every_figure_against_loops(seed, how):
    s, history = random_sequences(seed), 3
    rows = split_rows(s, how, [8, 1, 1])
    told = {
        split: [(tuple(s.item[a:b].tolist()), int(s.item[b])) for a, b in zip(starts, part, strict=True)]
        for split, part in rows.items()
        for starts in [history_starts(s, part, history)]
    }
    train_items = {item for items, target in told["train"] for item in (*items, target)}
    report = check_leakage(s, rows, history, hashes(s, rows, history))
    best = {}
    for items, target in told["test"]:
        best.setdefault(items, []).append(target)
    new = [target for _, target in told["test"] if target not in train_items]
    first = min(s.time[rows["test"]])
    assert report == {
        "targets_in_train_histories": 0,
        "train_rows_after_first_test": sum(s.time[place] > first for place in rows["train"]),
        "items_only_in_test": len(set(new)),
        "test_rows_of_those_items": len(new),
        "users_only_in_test": len({s.user[r] for r in rows["test"]} - {s.user[r] for r in rows["train"]}),
        "targets_in_own_history": sum(target in items for items, target in told["test"]),
        "same_history_as_train": sum(i in {x for x, _ in told["train"]} for i, _ in told["test"]),
        "same_history_and_target_as_train": sum(row in told["train"] for row in told["test"]),
        "same_history_as_valid": sum(i in {x for x, _ in told["valid"]} for i, _ in told["test"]),
        "same_history_and_target_as_valid": sum(row in told["valid"] for row in told["test"]),
        "best_hr1": round(sum(max(map(t.count, t)) for t in best.values()) / len(told["test"]), 6),
    }


def test_a_split_that_hands_train_a_test_target_stops_the_run():
    s = sequences([[(0, 1), (1, 2), (2, 3), (3, 4)]])
    rows = {"train": np.array([3]), "valid": np.array([1]), "test": np.array([2])}
    with pytest.raises(AssertionError, match="2 targets of valid and test stand in train histories"):
        check_leakage(s, rows, 10, hashes(s, rows, 10))


def test_events_in_histories_by_hand():
    s = sequences([[(0, 1), (1, 2), (2, 3), (3, 4)], [(4, 1), (5, 2)]])
    assert events_in_histories(s, np.array([3]), 2).tolist() == [False, True, True, False, False, False]
    assert events_in_histories(s, np.array([1, 5]), 0).tolist() == [True, False, False, False, True, False]
