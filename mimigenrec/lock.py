"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimigenrec.errors import UserError


@contextmanager
def alone(path: str | Path, who: str) -> Iterator[int]:
    """Holds the lock file `path` for as long as the block runs; the system lets go of it when the process dies.

    who      who else may hold it, for the error: "another baseline"
    yields   its file descriptor; a child process that is given it keeps the lock for as long as it lives
    raises   UserError if another process holds it
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{who} is at work in {path.parent}; wait for it or end it first (fuser {path} tells its process)"
            ) from error
        yield handle.fileno()
