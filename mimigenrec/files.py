"""Files whole or not at all: written under a temporary name, then renamed; read with errors that name the file."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mimigenrec.errors import UserError

one_line = json.JSONEncoder(ensure_ascii=False).encode  # a value as JSON text without a line break


@contextmanager
def writing(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A handle whose content appears at `path` only when the block ends without an error.

    mode "w" (UTF-8 text, newlines as written) or "wb". The temporary name is fixed, `.<name>.tmp` beside the target,
    so what a killed run left behind is overwritten by the next one. One process writes a given file at a time.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(temporary, mode, **text) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    with writing(path) as handle:
        handle.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def write_json_rows(path: str | Path, rows: Iterable[dict]) -> int:
    """A JSON list, one row a line, written as the rows come: memory holds one row. Returns how many there were."""
    count = 0
    with writing(path) as handle:
        handle.write("[")
        for row in rows:
            handle.write((",\n" if count else "\n") + one_line(row))
            count += 1
        handle.write("\n]\n")
    return count


def read_text(path: str | Path) -> str:
    """A whole UTF-8 file, a byte-order mark left out, line ends as they are.

    Raises FileNotFoundError, and UserError naming the first byte that is no UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or is no file")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(not_utf8(path, line, content[:4])) from error


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file: ends are \\n, \\r\\n or \\r and nothing else, since a
    title may hold U+2028. Blank lines are left out. Raises as read_text does."""
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if line := line.removesuffix("\n"):
            yield number, line


def not_utf8(path: str | Path, line: int, start: bytes) -> str:
    """What to say of a file whose bytes are no UTF-8. start: its first bytes, which often tell what it is."""
    kinds = {b"\x1f\x8b": "gzip", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip archive"}
    kind = next((name for magic, name in kinds.items() if start.startswith(magic)), None)
    remedy = {
        "gzip": "unpack it first (gunzip)",
        "a zip archive": "unpack it first",
        "UTF-16": "write it again as UTF-8 (iconv -f UTF-16 -t UTF-8)",
        None: "write it again as UTF-8 (iconv -f LATIN1 -t UTF-8, if it is Latin-1)",
    }[kind]
    return f"{path}, line {line}: not UTF-8 text" + (f", but {kind}" if kind else "") + f"; {remedy}"


def read_json(path: str | Path, made_by: str, kind: type | None = None, unique: bool = False) -> Any:
    """The JSON in a file.

    made_by   which command or file of the user's it comes from, for the error
    kind      dict or list: what the outermost value must be
    unique    whether a key that a map holds twice is an error, and not the last one taken
    raises    FileNotFoundError if it is missing; UserError, with line and column, if it is not JSON or of another kind
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it comes from {made_by}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise UserError(f"{path} holds the key {twice!r} twice; it comes from {made_by}, keep one of them")
        return found

    try:
        content = json.loads(read_text(path), object_pairs_hook=once if unique else None)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); it comes from {made_by}, write it again") from error
    if kind is not None and not isinstance(content, kind):
        wanted = {dict: "a map", list: "a list"}[kind]
        raise UserError(f"{path} must hold {wanted}, found {str(content)[:80]!r}; it comes from {made_by}")
    return content


def read_json_lines(path: str | Path) -> list[Any]:
    """The values of a JSON Lines file. Raises as read_text does; UserError naming a line that is not JSON."""
    values = []
    for number, line in read_lines(path):
        try:
            values.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); write it again") from error
    return values


def sha256(path: str | Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
