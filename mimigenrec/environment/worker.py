"""Calls in another process: an import that crashes Python, or prints, leaves the report whole."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mimigenrec.environment.chain import one_line

DIED = "Python itself died, without an error; `python -X faulthandler -c 'import ...'` shows where"


def in_worker(calls: Iterable[tuple[Callable, tuple]]) -> Iterator[tuple[Any, str | None]]:
    """(result, None) or (None, error in one line) of each (function, arguments), all in one process, one by one.

    A call that kills the process gets DIED, and the next call a new process.
    """
    pool = None
    for function, arguments in calls:
        if pool is None:
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_be_silent)
        try:
            yield pool.submit(function, *arguments).result(), None
        except BrokenProcessPool:
            pool = None
            yield None, DIED
        except Exception as error:
            error.__cause__ = None  # the pool's own, which holds the traceback of the other process
            yield None, one_line(error)
    if pool is not None:
        pool.shutdown()


def _be_silent() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
