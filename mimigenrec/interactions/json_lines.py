"""Lines of JSON, or of the Python literals that the 2014 Amazon files have, streamed from plain or gzip files.

A line that is neither is bad: it is counted, and one more than the user allows stops the run. Literals are read by
ast.literal_eval, never run. Lines end in \\n, \\r\\n or, in a file that has no \\n, \\r; in nothing else.
"""

import ast
import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.files import not_utf8
from mimigenrec.interactions.item_texts import flat
from mimigenrec.interactions.names import LONE_SURROGATE

START = 65_536  # bytes that tell what a file is

log = logging.getLogger(__name__)


class BadLines:
    """Counts the bad lines of all files of a run, and the lines that hold half a character (see names.py)."""

    def __init__(self, limit: int):
        self.limit = limit
        self.count = 0
        self.half_characters = 0

    def add(self, path: Path, number: int, line: bytes, why: str) -> None:
        """Raises UserError beyond the limit."""
        self.count += 1
        seen = f"{path}, line {number}: {why}: {line[:120].decode(errors='replace')!r}"
        if self.count > self.limit:
            raise UserError(
                f"{seen}. That is bad line number {self.count} and --max_bad_lines is {self.limit}; mend the file, or "
                f"allow more if losing these lines is fine"
            )
        log.warning("%s (left out)", seen)


@contextmanager
def opened(path: Path) -> Iterator[tuple[io.BufferedReader, io.BufferedReader, bytes]]:
    """(the file's bytes, unpacked if they are gzip whatever the name says; the file as it is; their first bytes).

    Raises FileNotFoundError; UserError if the file is UTF-16, a zip archive or an Excel workbook, or a damaged gzip.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with open(path, "rb", buffering=START) as raw:
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        content = io.BufferedReader(gzip.GzipFile(fileobj=raw), START) if zipped else raw
        try:
            start = content.peek(START)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path} is damaged or cut short at its start ({error}); get it again") from error
        if path.suffix.lower() in (".xlsx", ".xls"):
            raise UserError(f"{path} is an Excel workbook; save it as CSV UTF-8")
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or start[:4] == b"PK\x03\x04":
            raise UserError(not_utf8(path, 1, start[:4]))
        yield content, raw, start


def line_end(start: bytes) -> bytes:
    """\\r for a file as old Macs wrote them, by its first bytes; \\n, which may follow a \\r, otherwise."""
    return b"\r" if b"\r" in start.rstrip(b"\r") and b"\n" not in start else b"\n"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line), with a progress bar over the file's bytes; empty lines are passed over.

    A byte-order mark is left out. Raises what `opened` raises; UserError if a gzip file is cut short or damaged.
    """
    number = 0
    with opened(path) as (content, raw, start), _bar(path) as bar:
        lines: Iterable[bytes] = content
        try:
            if start.startswith(b"\xef\xbb\xbf"):
                content.read(3)
            if line_end(start) == b"\r":
                lines = content.read().split(b"\r")
            for number, line in enumerate(lines, 1):
                if number % 10_000 == 0:
                    bar.update(raw.tell() - bar.n)
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged or cut short after line {number} ({error}); get it again") from error
        bar.update(raw.tell() - bar.n)


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """read_lines as text, without line ends. Raises UserError, naming the line, if one is no UTF-8."""
    for number, line in read_lines(path):
        try:
            yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(not_utf8(path, number, line[:4])) from error


def _bar(path: Path) -> tqdm:
    return tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name)


def read_records(path: Path, bad: BadLines) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(line number, line, its content) of every line that is a map."""
    for number, line in read_lines(path):
        try:
            record = _parse(line)
        except UnicodeDecodeError:
            bad.add(path, number, line, "not UTF-8 text (if the file is Latin-1: iconv -f LATIN1 -t UTF-8)")
            continue
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            bad.add(path, number, line, "neither JSON nor a Python literal, of which each line must hold one")
            continue
        if isinstance(record, dict):
            if (b"\\ud" in line or b"\\uD" in line or b"\xed" in line) and has_half_character(record):
                bad.half_characters += 1
            yield number, line, record
        else:
            bad.add(path, number, line, "not a map of names to values (a JSON list becomes lines by jq -c '.[]')")


def has_half_character(value: Any) -> bool:
    return any(isinstance(part, str) and LONE_SURROGATE.search(part) for part in flat(value))


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        raise
    except ValueError:
        return ast.literal_eval(line.decode().strip())
