"""The files of a data set: ids, items, sequences, reviews and rows.

Sequences and rows become text block by block, by Arrow, without a Python loop over events: they may be many million.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mimigenrec.files import writing
from mimigenrec.interactions.events import Item, Log, pl
from mimigenrec.interactions.inter_file import write_inter
from mimigenrec.interactions.sequences import Sequences
from mimigenrec.interactions.splits import history_starts

BLOCK = 2_000_000  # item ids in memory as text at once


def write_ids(path: str, names: Iterable[str], ids: Iterable[str]) -> None:
    with writing(path) as out:
        out.writelines(f"{name}\t{new}\n" for name, new in zip(names, ids, strict=True))


def write_items(path: str, catalogue: dict[str, Item]) -> None:
    with writing(path) as out:
        between = "{\n"
        for item, texts in catalogue.items():
            out.write(f"{between}{json.dumps(item)}: {json.dumps(texts, ensure_ascii=False)}")
            between = ",\n"
        out.write("\n}\n")


def write_sequences(path: str, sequences: Sequences, user_ids: list[str], item_ids: list[str]) -> None:
    with writing(path) as out:
        between = "{\n"
        for users, texts in user_blocks(sequences, arrow(user_ids), arrow(item_ids)):
            for user, items in zip(users, texts, strict=True):
                out.write(f"{between}{json.dumps(user)}: [{items}]")
                between = ",\n"
        out.write("\n}\n")


def write_reviews(path: str, log: Log, sequences: Sequences, user_ids: list[str], item_ids: list[str]) -> int:
    """Returns how many. The source is read again, so memory holds no text; the first review of a key is kept."""
    place = np.full(len(log.events.frame), -1, dtype=np.int64)
    place[sequences.line] = np.arange(len(sequences.line))
    written: set[str] = set()
    with writing(path) as out:
        out.write("{")
        for at, (review, summary) in zip(place, log.reviews() if log.reviews else (), strict=bool(log.reviews)):
            if at < 0 or not (review or summary):
                continue
            user, item = user_ids[sequences.user[at]], item_ids[sequences.item[at]]
            key = f"({user}, {item}, {sequences.time[at] // 1000})"
            if key not in written:
                out.write(",\n" if written else "\n")
                out.write(
                    f"{json.dumps(key)}: {json.dumps({'review': review, 'summary': summary}, ensure_ascii=False)}"
                )
                written.add(key)
        out.write("\n}\n")
    return len(written)


def write_split(
    path: str, sequences: Sequences, rows: np.ndarray, history: int, user_ids: list[str], item_ids: list[str]
) -> np.ndarray:
    """(rows,) uint64: one number per history, equal where histories are equal."""
    hashes = []

    def blocks():
        for users, histories, targets in row_blocks(sequences, rows, history, arrow(user_ids), arrow(item_ids)):
            hashes.append(pl.Series(histories).hash(seed=0).to_numpy())
            yield users, histories, targets

    write_inter(path, blocks())
    return np.concatenate(hashes)


def arrow(names: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(names, pa.string())


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
