import numpy as np
import pytest

from mimigenrec.interactions.events import events_from_rows, instant
from mimigenrec.interactions.sequences import Rules, make_sequences, renumber

ROWS = [  # user, item, ms, rating; z and y are in no order of time
    ("z", "C", 5000, 4.0),
    ("y", "A", 3000, 2.0),
    ("z", "A", 1000, 5.0),
    ("z", "C", 5000, 1.0),
    ("y", "B", 2000, 5.0),
    ("z", "B", 5000, 5.0),
    ("y", "A", 9000, 5.0),
]


def told(rules=None, rows=ROWS):
    counts = {}
    s = make_sequences(events_from_rows(rows), rules or Rules(), counts)
    names = {s.users[u]: [] for u in range(len(s.users))}
    for user, item in zip(s.user, s.item, strict=True):
        names[s.users[user]].append(s.items[item])
    return {user: "".join(items) for user, items in names.items()}, counts, s


def test_users_as_they_come_items_as_sequences_tell_them():
    sequences, counts, s = told()
    assert sequences == {"z": "ACCB", "y": "BAA"}
    assert (s.users, s.items) == (["z", "y"], ["A", "C", "B"])
    assert s.start.tolist() == [0, 4, 7] and s.line.tolist() == [2, 0, 3, 5, 4, 1, 6]
    assert counts["same_instant_as_the_one_before"] == 2
    assert (counts["interactions_read"], counts["interactions_left"]) == (7, 7)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("keep", {"z": "ACCB", "y": "BAA"}),
        ("exact", {"z": "ACB", "y": "BAA"}),
        ("first", {"z": "ACB", "y": "BA"}),
        ("last", {"z": "ACB", "y": "BA"}),
    ],
)
def test_each_rule_for_duplicates(rule, expected):
    sequences, counts, s = told(Rules(duplicates=rule))
    assert sequences == expected
    assert counts["dropped_duplicates"] == 7 - len(s.user)
    assert s.time[-1] == (3000 if rule == "first" else 9000)


def test_duplicates_go_before_the_k_core():
    rows = [("u", "A", 1000, None), ("u", "A", 2000, None), ("v", "A", 1, None), ("v", "B", 2, None)]
    assert told(Rules(user_k=2), rows)[0] == {"u": "AA", "v": "AB"}
    assert told(Rules(user_k=2, duplicates="first"), rows)[0] == {"v": "AB"}


def test_the_window_begins_with_since_and_ends_before_until():
    sequences, counts, _ = told(Rules(since=2000, until=5000))
    assert sequences == {"y": "BA"}
    assert (counts["dropped_before_since"], counts["dropped_from_until_on"]) == (1, 4)


def test_ratings_and_items():
    assert told(Rules(min_rating=4.0))[0] == {"z": "ACB", "y": "BA"}
    sequences, counts, _ = told(Rules(items={"A", "B"}))
    assert sequences == {"z": "AB", "y": "BAA"} and counts["dropped_without_item_text"] == 2


def test_an_event_without_a_rating_is_below_every_min_rating():
    rows = [("u", "A", 1, 5.0), ("u", "B", 2, None), ("u", "C", 3, float("nan"))]
    assert told(Rules(min_rating=0.0), rows)[0] == {"u": "A"}
    with pytest.raises(
        ValueError, match="--min_rating dropped the last 2"
    ):  # the source has a rating, the window none
        told(Rules(min_rating=0.0, since=2), rows)


def test_a_rule_that_drops_everything_is_named():
    with pytest.raises(ValueError, match="--user_k and --item_k dropped the last 7"):
        told(Rules(user_k=9))
    with pytest.raises(ValueError, match="--until dropped the last 7"):
        told(Rules(until=1))
    with pytest.raises(ValueError, match="no interaction has a rating"):
        told(Rules(min_rating=1.0), [("u", "A", 1, None)])
    with pytest.raises(ValueError, match="hold no interaction"):
        told(rows=[])


def test_shuffled_ties_move_within_an_instant_alone_and_follow_the_seed():
    rows = [("u", f"I{i}", 1000 * (i // 8), None) for i in range(32)]
    plain = told(Rules(), rows)[2]
    first, again, other = (told(Rules(ties="shuffle", seed=seed), rows)[2] for seed in (1, 1, 2))
    assert first.items == again.items != other.items != plain.items
    assert [sorted(first.items[i : i + 8]) for i in range(0, 32, 8)] == [
        sorted(plain.items[i : i + 8]) for i in range(0, 32, 8)
    ]


def test_renumber_by_first_occurrence():
    codes, names = renumber(np.array([3, 1, 3, 0]), ["a", "b", "c", "d"])
    assert codes.tolist() == [0, 1, 0, 2] and names == ["d", "b", "a"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970", 0),
        ("2016-10", 1475280000),
        ("2018-11", 1541030400),
        ("2016-10-03", 1475452800),
        ("2016-10-03T12:00", 1475496000),
        ("2016-10-03T12:00+02:00", 1475488800),
    ],
)
def test_instants_are_utc(text, seconds):
    assert instant(text, "--since") == seconds * 1000


@pytest.mark.parametrize("text", ["October", "2016-13", "10/2016", "20161"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="is not a time; write 2016"):
        instant(text, "--since")
