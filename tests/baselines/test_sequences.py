"""Rows become sequences again, each event once."""

import torch

from mimigenrec.baselines.sequences import numbers, padded, user_sequences, windows
from mimigenrec.interactions.inter_file import History, read_inter
from tests.conftest import shared


def test_rows_chain_into_the_sequence_they_come_from_whole_or_cut_histories():
    path = [str(i) for i in range(8)]
    for longest in (3, 10):
        rows = [History(i, "u", tuple(path[max(0, i - longest) : i]), path[i]) for i in range(2, 8)]
        assert user_sequences(rows) == [path]


def test_users_mixed_by_time_are_kept_apart_and_a_break_begins_anew():
    rows = [
        History(0, "u", ("1",), "2"),
        History(1, "v", ("1",), "3"),
        History(2, "u", ("1", "2"), "4"),
        History(3, "v", ("9",), "5"),
        History(4, "w", (), "6"),
    ]
    assert user_sequences(rows) == [["1", "2", "4"], ["1", "3"], ["9", "5"], ["6"]]


def test_every_target_of_real_rows_is_kept():
    rows = list(read_inter(shared("data", "amazon18-industrial-active") / "Industrial_and_Scientific.train.inter"))
    sequences = user_sequences(rows)
    targets = sum(len(sequence) for sequence in sequences)
    assert len(rows) + len(sequences) <= targets  # each row's target, and at least one item before it
    assert len(sequences) == len({row.user for row in rows})


def test_windows_share_one_item_so_each_is_a_target_once():
    assert windows([[1, 2, 3, 4, 5, 6], [7], [], [8, 9]], 2) == [[4, 5, 6], [2, 3, 4], [1, 2], [8, 9]]


def test_unknown_ids_are_left_out_and_rows_padded_behind():
    assert numbers(["a", "x", "b"], {"a": 1, "b": 2}) == [1, 2]
    assert torch.equal(padded([[1, 2], [3]]), torch.tensor([[1, 2], [3, 0]]))
