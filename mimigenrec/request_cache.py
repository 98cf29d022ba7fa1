"""Answers that cost time or money, kept in one sqlite file by what was asked, so that nothing is paid twice.

    cache = RequestCache("answers.sqlite")
    with cache.alone([key]):                      # another thread or process with the same request waits here
        if key not in (known := cache.get([key])):
            cache.put({key: (request, answer)})   # on the disk before it is used

answers(key, request, answer, checksum)    key: key_of(request); request: its JSON, for people to read; answer: bytes;
                                           checksum: of key and answer

Threads and processes may share the file: every access opens it anew, under sqlite's own locks. A file that sqlite
finds damaged, or a row whose checksum is wrong, stops the run with a message; it is not taken for an empty cache,
because all answers would then be paid again. `<file>.lock` beside it holds no data.
"""

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, EAGAIN
from pathlib import Path
from threading import Condition
from typing import Any

from mimigenrec.errors import UserError

APPLICATION = 0x4D494D49  # "MIMI", in sqlite's header: the file is a cache of ours
PATIENCE = 60.0  # seconds to wait for another process's write
AT_ONCE = 500  # keys per query; sqlite takes at least 999 values
POLL = 0.05  # seconds between two looks at a lock that another process holds

logger = logging.getLogger(__name__)


def as_json(request: Mapping[str, Any]) -> str:
    """One text per request, whatever the order of its keys. Raises UserError for what JSON cannot hold."""
    try:
        return json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"a request holds a value that JSON cannot express ({error}); give plain values") from error


def key_of(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()


class RequestCache:
    """Raises UserError naming the file if it is damaged, is no cache, or cannot be written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                db.execute("BEGIN IMMEDIATE")  # another process may be making the same file
                [[number]] = db.execute("PRAGMA application_id").fetchall()
                if number != APPLICATION and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise UserError(f"{self.path} is an sqlite file of another program; choose another file as cache")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT NOT NULL, "
                    "answer BLOB NOT NULL, checksum TEXT NOT NULL)"
                )
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute("COMMIT")
        self._held = _Held.of(self.path)

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """The answers that are there, by key."""
        keys, answers = list(keys), {}
        with self._open() as db:
            for first in range(0, len(keys), AT_ONCE):
                some = keys[first : first + AT_ONCE]
                places = ",".join("?" * len(some))
                query = f"SELECT key, answer, checksum FROM answers WHERE key IN ({places})"
                for key, answer, checksum in db.execute(query, some):
                    if _checksum(key, bytes(answer)) != checksum:
                        raise self._damaged(f"the checksum of answer {key[:12]} is wrong")
                    answers[key] = bytes(answer)
        return answers

    def put(self, answers: Mapping[str, tuple[str, bytes]]) -> None:
        """answers: key -> (request, answer). All are on the disk when this returns; an answer already there stays."""
        rows = [(key, request, answer, _checksum(key, answer)) for key, (request, answer) in answers.items()]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
            db.execute("COMMIT")

    def __len__(self) -> int:
        with self._open() as db:
            return db.execute("SELECT count(*) FROM answers").fetchone()[0]

    @contextmanager
    def alone(self, keys: Collection[str]) -> Iterator[None]:
        """Nobody else, thread or process, is in a block with one of these keys. A process that dies lets go of its."""
        places = sorted({int(key[:8], 16) for key in keys})
        self._held.take(places)
        try:
            yield
        finally:
            self._held.release(places)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = None
        try:
            db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            yield db
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path} cannot be used as cache ({error}); see that the folder can be written, has space, and "
                f"lies on a file system with locks"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error
        finally:
            if db is not None:
                db.close()

    def _damaged(self, why: str) -> UserError:
        return UserError(
            f"{self.path} is damaged, or is no cache of answers ({why}), so nothing in it is used. Restore it from a "
            f"copy; or delete it, and all answers are asked, and paid, again"
        )


def _checksum(key: str, answer: bytes) -> str:
    return hashlib.sha256(key.encode() + answer).hexdigest()[:16]


class _Held:
    """Places of a lock file that this process holds: among threads by a set, among processes by byte-range locks.

    A process closing the file would let go of all its places, so one object per file lives as long as the process.
    """

    files: dict[tuple[int, Path], "_Held"] = {}  # by process too: a forked child shares no lock

    @classmethod
    def of(cls, path: Path) -> "_Held":
        return cls.files.setdefault((os.getpid(), path.resolve()), cls(path))

    def __init__(self, path: Path):
        self.path, self.handle = path.with_name(path.name + ".lock"), None
        self.places: set[int] = set()
        self.changed = Condition()

    def take(self, places: list[int]) -> None:
        """places: ascending, so that two processes never wait for each other."""
        with self.changed:
            self.changed.wait_for(lambda: self.places.isdisjoint(places))
            self.handle = self.handle or open(self.path, "ab")  # before places are held: it may fail
            self.places.update(places)
        try:
            for place in places:
                while not self._lock(place):
                    time.sleep(POLL)
        except BaseException:  # Ctrl-C while it waits
            self.release(places)
            raise

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in (EACCES, EAGAIN):
                return False
            logger.warning("%s: no locks here (%s); two processes may pay for the same answer", self.path, error)
        return True

    def release(self, places: list[int]) -> None:
        for place in places:
            try:
                fcntl.lockf(self.handle, fcntl.LOCK_UN, 1, place)
            except OSError:  # a file system without locks, which take() has said
                pass
        with self.changed:
            self.places.difference_update(places)
            self.changed.notify_all()
