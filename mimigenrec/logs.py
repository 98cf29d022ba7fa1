"""Append-only JSONL: one line per event, flushed as it comes, readable while the run goes on and after a kill."""

import json
import os
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import writing


class JsonlWriter:
    """Appends to a file, first cutting off a last line that a kill left half-written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = open(self.path, "ab+")
        size = self.handle.seek(0, os.SEEK_END)
        if size:
            self.handle.seek(0)
            whole = self.handle.read().rfind(b"\n") + 1
            self.handle.truncate(whole)

    def write(self, event: dict[str, Any]) -> None:
        self.handle.write(_line(event))
        self.handle.flush()

    def close(self) -> None:
        self.handle.close()

    def __enter__(self) -> "JsonlWriter":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All whole lines; a last line without its newline (a write cut short) is left out.

    Raises UserError naming the line if a whole line is not JSON.
    """
    events = []
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.endswith(b"\n"):
                break
            try:
                events.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}); delete the file to start anew") from error
    return events


def cut_back(path: str | Path, counter: str, last: int, summary: str | None = None) -> None:
    """Leaves the lines of a log up to a state that training goes on from: what came after it will come again.

    counter   key of each line that counts up to `last`: "step", "epoch"
    last      below 0: nothing stays, whatever it is
    summary   key by which the closing line of an end that was not reached is known, and dropped too
    raises    UserError naming a line without the counter
    """
    if not Path(path).is_file():
        return
    events = read_jsonl(path) if last >= 0 else []  # a new training has no use for what is there
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get(counter), int):
            raise UserError(
                f"{path}: {str(event)[:80]!r} tells of no {counter}; delete the file, which is a log alone"
            )
    with writing(path, "wb") as out:
        out.writelines(_line(event) for event in events if event[counter] <= last and summary not in event)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"
