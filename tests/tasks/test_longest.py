import random

import pytest

from mimigenrec.interactions.inter_file import History
from mimigenrec.tasks.longest import longest


def rows_of(user, sequence, cut=1000, first=0):
    """A row for every item but the first, histories cut to their last `cut` items."""
    places = range(1, len(sequence))
    return [History(first + n, user, tuple(sequence[:n][-cut:]), sequence[n]) for n in places]


def taught(rows, max_history):
    """(user, item before, item) that a model sees which learns every position of a row as it is written."""
    seen = set()
    for row in rows:
        written = (*row.items[-max_history:], row.target)
        seen |= {(row.user, *pair) for pair in zip(written, written[1:], strict=False)}
    return seen


def test_a_short_sequence_is_its_last_row():
    rows = rows_of("u", "abcd")
    assert list(longest(rows, 10)) == [rows[-1]]


def test_a_long_one_takes_rows_that_meet_in_one_item():
    rows = rows_of("u", "abcdefg")
    assert [(row.items[-2:], row.target) for row in longest(rows, 2)] == [
        (("e", "f"), "g"),
        (("c", "d"), "e"),
        (("a", "b"), "c"),
    ]


def test_users_whose_rows_are_mixed_in_time_keep_their_own_sequences():
    one, two = rows_of("u", "abcd"), rows_of("v", "wxyz")
    mixed = [row for pair in zip(one, two, strict=True) for row in pair]
    assert list(longest(mixed, 10)) == [one[-1], two[-1]]


def test_a_file_that_begins_with_the_longest_row_keeps_as_few():
    rows = rows_of("u", "abcd")
    assert list(longest(rows[::-1], 10)) == [rows[-1]]


def test_a_row_that_does_not_continue_the_one_before_starts_a_run_of_its_own():
    rows = rows_of("u", "abcd")
    assert list(longest([rows[0], rows[2]], 10)) == [rows[0], rows[2]]  # the row that answers c is missing


@pytest.mark.parametrize("cut", [3, 10, 1000])
@pytest.mark.parametrize("max_history", [1, 2, 5, 20])
def test_nothing_that_the_rows_teach_is_lost_and_no_more_rows_are_kept_than_needed(cut, max_history):
    rng = random.Random(max_history * 7 + cut)
    rows = []
    for user in range(30):
        sequence = [str(rng.randrange(6)) for _ in range(rng.randrange(2, 30))]  # few items, so that pairs repeat
        rows += rows_of(str(user), sequence, cut, len(rows))
    kept = list(longest(rows, max_history))
    assert taught(kept, max_history) == taught(rows, max_history)
    if max_history <= cut:
        targets = {user: sum(row.user == user for row in rows) for user in {row.user for row in rows}}
        assert len(kept) == sum(-(-count // max_history) for count in targets.values())


def test_no_rows_give_none():
    assert list(longest([], 5)) == []
