"""Files whole or not at all: written under a temporary name, then renamed; read with errors that name the file."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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


def read_json(path: str | Path, made_by: str) -> Any:
    """The JSON in a file. made_by: which command or file of the user's it comes from, for the error.

    Raises FileNotFoundError if it is missing, ValueError with line and column if it is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it comes from {made_by}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); it comes from {made_by}, write it again") from error


def sha256(path: str | Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
