"""Lines of JSON, or of the Python literals that the 2014 Amazon files have, streamed from plain or gzip files.

A line that is neither is bad: it is counted, and one more than the user allows stops the run. Literals are read by
ast.literal_eval, never run.
"""

import ast
import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mimigenrec.errors import UserError

log = logging.getLogger(__name__)


class BadLines:
    """Counts the bad lines of all files of a run."""

    def __init__(self, limit: int):
        self.limit = limit
        self.count = 0

    def add(self, path: Path, number: int, line: bytes, why: str) -> None:
        """Raises ValueError beyond the limit."""
        self.count += 1
        seen = f"{path}, line {number}: {why}: {line[:120].decode(errors='replace')!r}"
        if self.count > self.limit:
            raise UserError(
                f"{seen}. That is bad line number {self.count} and --max_bad_lines is {self.limit}; mend the file, or "
                f"allow more if losing these lines is fine"
            )
        log.warning("%s (left out)", seen)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line), with a progress bar over the file's bytes; empty lines are passed over.

    Raises FileNotFoundError; ValueError if a gzip file is cut short or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    number = 0
    with open(path, "rb") as raw, tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name) as bar:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            for number, line in enumerate(lines, 1):
                if number % 10_000 == 0:
                    bar.update(raw.tell() - bar.n)
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged or cut short after line {number} ({error}); get it again") from error
        bar.update(raw.tell() - bar.n)


def read_records(path: Path, bad: BadLines) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(line number, line, its content) of every line that is a map."""
    for number, line in read_lines(path):
        try:
            record = _parse(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            bad.add(path, number, line, "neither JSON nor a Python literal")
            continue
        if isinstance(record, dict):
            yield number, line, record
        else:
            bad.add(path, number, line, "not a map of names to values")


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return ast.literal_eval(line.decode().strip())
