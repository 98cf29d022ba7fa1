"""Sequences and rows as text, block by block, without a Python loop over events: for files of many million rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mimigenrec.interactions.sequences import Sequences
from mimigenrec.interactions.splits import history_starts

BLOCK = 2_000_000  # item ids in memory as text at once


def row_blocks(
    sequences: Sequences, rows: np.ndarray, history: int, users: Any, items: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """(users, histories, targets) as arrow strings. users, items: arrow strings, the id written for each number."""
    starts = history_starts(sequences, rows, history)
    for begin, end in _blocks(rows - starts):
        some = rows[begin:end]
        yield (
            users.take(sequences.user[some]),
            join_ranges(items, sequences.item, starts[begin:end], some, " "),
            items.take(sequences.item[some]),
        )


def user_blocks(sequences: Sequences, users: Any, items: Any) -> Iterator[tuple[list[str], list[str]]]:
    """(users, their items oldest first, joined by ", ")."""
    starts, ends = sequences.start[:-1], sequences.start[1:]
    for begin, end in _blocks(ends - starts):
        texts = join_ranges(items, sequences.item, starts[begin:end], ends[begin:end], ", ")
        yield users.slice(begin, end - begin).to_pylist(), texts.to_pylist()


def join_ranges(names: Any, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray, between: str) -> Any:
    """Arrow strings: for each i, the names of codes[starts[i]:ends[i]] joined."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(codes[places])))
    return pc.binary_join(lists, between)


def _blocks(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of rows that hold about BLOCK items each."""
    total = np.cumsum(lengths + 1)
    begin = 0
    while begin < len(lengths):
        base = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, base + BLOCK)))
        yield begin, min(end, len(lengths))
        begin = end
