"""Train rows -> the sequences that they come from, in numbers, cut to what a network reads at once.

Rows of a .inter file overlap: a user's next row has the target of the one before at the end of its history. Chained,
each event is read once, and every position of a sequence is one thing to learn.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mimigenrec.interactions.inter_file import History


def user_sequences(rows: Iterable[History]) -> list[list[str]]:
    """Items oldest first, one sequence a user; a row that does not continue its user's sequence begins another."""
    of_user: dict[str, list[list[str]]] = {}
    for row in rows:
        own = of_user.setdefault(row.user, [])
        if own and row.items and own[-1][-len(row.items) :] == list(row.items):
            own[-1].append(row.target)
        else:
            own.append([*row.items, row.target])
    return [sequence for own in of_user.values() for sequence in own]


def windows(sequences: Iterable[Sequence[int]], length: int) -> list[list[int]]:
    """Pieces of at most length + 1 items, cut from the end, one item shared: every item but the first of a sequence
    is a target once. A sequence of one item gives nothing."""
    pieces = []
    for sequence in sequences:
        for end in range(len(sequence), 1, -length):
            pieces.append(list(sequence[max(0, end - length - 1) : end]))
    return pieces


def numbers(items: Iterable[str], number: Mapping[str, int]) -> list[int]:
    """Item ids -> their numbers from 1; an id that is not known is left out."""
    return [number[item] for item in items if item in number]


def padded(rows: Sequence[Sequence[int]], device: str | torch.device = "cpu") -> Tensor:
    """(B, T) long, 0 behind the end of a shorter row."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long, device=device)
