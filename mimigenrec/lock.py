"""One process at a time in a folder."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from mimigenrec.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def alone(path: str | Path, who: str, needed: bool = True, inherited: bool = False) -> Iterator[int | None]:
    """Holds the lock file `path` for as long as the block runs, and removes it then, with a folder that was made for
    it; the system lets go of it when the process dies. File systems without locks are told in a warning.

    who         who else may hold it, for the error: "another baseline"
    needed      False on all processes of a run but one, which lock nothing
    inherited   whether children are given its descriptor: they hold the lock for as long as they live, and the file
                stays
    yields      its file descriptor
    raises      UserError if another process holds it
    """
    if not needed:
        yield None
        return
    path = Path(path)
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{who} is at work in {path.parent}; wait for it or end it first (fuser {path} tells its process)"
            ) from error
        except OSError as error:
            if error.errno not in (ENOLCK, ENOSYS, EOPNOTSUPP):
                raise
            log.warning("%s: this file system has no locks (%s); start no second run there", path.parent, error)
        try:
            yield handle.fileno()
        finally:
            if not inherited:
                path.unlink(missing_ok=True)
                if new and not any(path.parent.iterdir()):
                    path.parent.rmdir()
