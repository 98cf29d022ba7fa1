"""Chance in little memory: rows in random order by way of a file on disk, and a random sample of a stream."""

import random
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from mimigenrec.files import one_line, writing

T = TypeVar("T")


def write_shuffled(path: str | Path, rows: Iterable[dict[str, Any]], rng: random.Random) -> int:
    """A JSON list of the rows, one a line, in random order. Returns how many there were.

    The rows wait in an unnamed file beside the target; memory holds where each begins, 8 bytes a row.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as waiting:
        starts, end = array("q"), 0
        for row in rows:
            starts.append(end)
            end += waiting.write(one_line(row).encode() + b"\n")
        rng.shuffle(starts)
        with writing(path, "wb") as out:
            out.write(b"[")
            for i, start in enumerate(starts):
                waiting.seek(start)
                out.write((b",\n" if i else b"\n") + waiting.readline().rstrip(b"\n"))
            out.write(b"\n]\n")
    return len(starts)


def subsample(stream: Iterable[T], limit: int, rng: random.Random) -> list[T]:
    """`limit` of the elements (all, if there are no more), each as likely as any other, in their order.

    Memory holds `limit` elements. Source: reservoir sampling, Vitter 1985, algorithm R.
    """
    kept: list[tuple[int, T]] = []
    for i, element in enumerate(stream):
        if i < limit:
            kept.append((i, element))
        elif (place := rng.randrange(i + 1)) < limit:
            kept[place] = (i, element)
    return [element for _, element in sorted(kept, key=lambda pair: pair[0])]
