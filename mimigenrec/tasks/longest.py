"""The fewest train rows that still hold every item of a user's sequence as something to predict.

A row says all that the user's shorter rows say, to a model that learns from every position of a row. Rows are written
with at most max_history items, so a longer sequence takes several.
"""

from collections.abc import Iterable, Iterator

from mimigenrec.interactions.inter_file import History


def longest(histories: Iterable[History], max_history: int) -> Iterator[History]:
    """Of each run of rows the last, then the one whose target is the first item that it writes, and so on.

    histories    rows of a train file; a run is rows of one user of which each continues the one before, as
                 leave-one-out and time splits give them, with whole histories or cut ones
    order        users by their first row, rows of a run from the last on
    """
    by_user: dict[str, list[History]] = {}
    for history in histories:
        by_user.setdefault(history.user, []).append(history)
    for rows in by_user.values():
        for run in _runs(sorted(rows, key=lambda row: len(row.items))):  # some files have the longest first
            at = len(run) - 1
            while at >= 0:
                yield run[at]
                at -= min(len(run[at].items), max_history)


def _runs(rows: list[History]) -> Iterator[list[History]]:
    run = rows[:1]
    for before, row in zip(rows, rows[1:], strict=False):
        grown = (*before.items, before.target)
        if row.items and row.items == grown[-len(row.items) :] and len(row.items) >= len(before.items):
            run.append(row)
        else:
            yield run
            run = [row]
    yield run
