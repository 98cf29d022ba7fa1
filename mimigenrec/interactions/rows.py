"""Rows of train, valid and test that others have made, one per prediction, read back into events.

MiniOneRec   train.csv valid.csv test.csv in this order; lists are Python literals
             user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid
.inter       C.train.inter C.valid.inter C.test.inter in this order (MIMIGenRec, ours)
others       any table whose columns flags name. Amazon 2023's, user_id,parent_asin,rating,timestamp,history, takes
             --user_column user_id --item_column parent_asin --history_column history --time_column timestamp
             --time_unit ms. A history is a list, [1, 2] or ['a', 'b'], or ids with spaces between them

A row adds its target to what its user had; what a user's first row has as history comes just before that row. With
--time_column the rows are put in the order of time first (of one instant, the shorter history is the earlier row) and
events have these times. Without it the order of rows is the order of time.

--split given keeps every row in the file it was in, in the order of the files; --split time and leave_one_out make the
rows anew from the events. With --user_k 0 --item_k 0 --duplicates keep --ids given and a --history as long as that of
the files, a set comes out as it went in. A row whose history does not end what its user had before cannot: --split
given refuses it, the others count it, and refuse the files if most rows are such.
Items: C.item.json; MiniOneRec's titles come from its rows if there is none.
"""

import ast
import json
import logging
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Events, Given, Item, Log, events_from_rows, pl
from mimigenrec.interactions.imported import Event, item_id, read_item_json
from mimigenrec.interactions.inter_file import History, read_inter
from mimigenrec.interactions.item_texts import ItemTexts
from mimigenrec.interactions.json_lines import BadLines
from mimigenrec.interactions.splits import SPLITS
from mimigenrec.interactions.table import Columns, as_ids, check_filled, kind_of, read_frame, together
from mimigenrec.interactions.times import read_times

USUAL = {  # user, history, target, by the end of a file's name
    ".csv": ("user_id", "history_item_id", "item_id"),
    ".inter": ("user_id", "item_id_list", "item_id"),
}
TABLES = (".csv", ".parquet", ".jsonl", ".ndjson", ".json")  # other names are .inter files, unless flags name columns
TITLES = ("history_item_title", "item_title")
PARTS = ("user", "history", "target", "known", "title", "time")  # known: titles of the history
NUMPY = re.compile(r"""['"]\s+['"]""")  # ['a' 'b'] is how NumPy prints; Python would read it as ['ab']

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """history.row: place in its file. time: ms, None if the order is all that is known. file: 0 train, 1 valid, ..."""

    history: History
    time: int | None
    file: int


def read_rows(interactions: list[Path], items: list[Path], columns: Columns, bad: BadLines, given: bool) -> Log:
    notes: dict[str, int] = {}
    titles: dict[str, str] = {}
    events, split = rows_to_events(_rows(interactions, columns, bad, titles), notes, interactions, given)

    def texts(wanted: set[str] | None) -> dict[str, Item]:
        if items:
            return read_item_json(items, wanted, notes)
        found = ItemTexts(wanted, notes)
        for item, title in titles.items():
            found.add(item, title)
        return found.items

    inputs = [*interactions, *items]
    return Log(events, texts, None, inputs, notes, has_times=columns.time_column is not None, given=split)


def rows_to_events(rows: Iterable[Row], notes: dict[str, int], paths: list[Path], given: bool) -> tuple[Events, Given]:
    """Row n happens at second n + 1, or at its time; a user's first history in the milliseconds before that.

    Counts in notes: rows_given_train, ...; rows_that_do_not_continue, whose history is not what the user had last.
    Raises UserError for the first such row if the split is to be kept as it is given, and at the end if they are more
    than half of the rows of users who had something before.
    """
    files, places = array("b"), array("q")
    known = wrong = 0

    def events() -> Iterator[Event]:
        nonlocal known, wrong
        had: dict[str, list[str]] = {}
        names: dict[str, str] = {}  # one text per item, however many rows name it
        for number, (row, time, file) in enumerate(rows):
            now = (number + 1) * 1000 if time is None else time
            before = had.get(row.user)
            if before is None:
                before = had[row.user] = [names.setdefault(item, item) for item in row.items]
                for place, item in enumerate(before):
                    files.append(-1)
                    places.append(-1)
                    yield row.user, item, now - len(before) + place, None
            else:
                known += 1
                if not row.items or row.items != tuple(before[-len(row.items) :]):
                    wrong += 1
                    if given:
                        raise UserError(_not_kept(paths[file], row, before))
            files.append(file)
            places.append(row.row)
            yield row.user, row.target, now, None
            before.append(names.setdefault(row.target, row.target))

    made = events_from_rows(events())
    split, where = np.array(files, np.int8), together(paths)
    notes |= {f"rows_given_{name}": int((split == file).sum()) for file, name in enumerate(SPLITS)}
    if 2 * wrong > known:
        raise UserError(
            f"{where}: {wrong:,} of {known:,} rows have a history that is not what their user had in the rows before; "
            f"are the files in order (train valid test), the histories oldest first, and their ids separated as "
            f"--history_column says?"
        )
    if wrong:
        notes["rows_that_do_not_continue"] = wrong
        log.warning(
            "%s: %s of %s rows do not continue what their user had; they add their target", where, wrong, known
        )
    return made, Given(split, np.array(places, np.int64))


def _not_kept(path: Path, row: History, before: list[str]) -> str:
    return (
        f"{path}, row {row.row + 1:,}: user {row.user!r} has the history {' '.join(row.items[-5:])!r:.80}, but had "
        f"{' '.join(before[-5:])!r:.80} by the rows before. --split given keeps rows that go on from each other; "
        f"--split time and leave_one_out make rows anew"
    )


def _rows(paths: list[Path], columns: Columns, bad: BadLines, titles: dict[str, str]) -> Iterator[Row]:
    flags = (columns.user_column, columns.history_column, columns.item_column)
    frames = []
    for file, path in enumerate(paths):
        if kind_of(path) not in TABLES and not any((*flags, columns.time_column)):
            yield from _rows_of_inter(path, file)
            continue
        frame = _frame(path, columns, bad, file)
        if columns.time_column:
            frames.append(frame)  # all are needed before the first is known
        else:
            yield from _rows_of(frame, paths, titles, columns.history_column is None)
    if frames:
        try:
            frame = pl.concat(frames, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{together(paths)}: columns differ in type between the files ({error})") from error
        time = frame["time"].alias(columns.time_column)
        check_filled(time, together(paths))
        ms = read_times(time, columns.time_unit, together(paths), columns.time_format).alias("time")
        history = frame["history"]
        length = (
            history.list.len() if history.dtype == pl.List else history.cast(pl.String).str.len_bytes().fill_null(0)
        )
        frame = frame.with_columns(ms, length.alias("length")).sort("time", "length", maintain_order=True)
        yield from _rows_of(frame, paths, titles, columns.history_column is None)


def _rows_of_inter(path: Path, file: int) -> Iterator[Row]:
    for row in read_inter(path):
        try:
            check_commas(row.items, row.target)
        except UserError as error:
            raise UserError(f"{path}, line {row.row + 2:,}: {error}") from error
        yield Row(row, None, file)


def _frame(path: Path, columns: Columns, bad: BadLines, file: int) -> pl.DataFrame:
    """PARTS, and row and file; null where the file has no such column."""
    usual = USUAL.get(kind_of(path), USUAL[".csv"])
    given = (columns.user_column, columns.history_column, columns.item_column)
    user, history, target = (name or default for name, default in zip(given, usual, strict=True))
    wanted = [user, history, target] + [columns.time_column] * bool(columns.time_column)
    try:
        frame = read_frame(path, wanted, columns, bad, TITLES)
    except UserError as error:
        if all(given) or "has no column" not in str(error):
            raise
        raise UserError(
            f"{error}. Name them: --user_column, --history_column, --item_column, --time_column"
        ) from error
    past = frame[history]
    if past.dtype == pl.Object:  # lists of JSON lines; Polars sorts no table that holds Python's own
        past = pl.Series([None if value is None else str(value) for value in past.to_list()], dtype=pl.String)
    texts = [frame[name] if name in frame.columns else pl.Series([None] * len(frame)) for name in TITLES]
    time = frame[columns.time_column] if columns.time_column else pl.Series([None] * len(frame))
    parts = [as_ids(frame[user], path), past, as_ids(frame[target], path), *texts, time]
    made = pl.DataFrame([part.alias(name) for part, name in zip(parts, PARTS, strict=True)])
    return made.with_row_index("row").with_columns(pl.lit(file, pl.Int8).alias("file"))


def _rows_of(frame: pl.DataFrame, paths: list[Path], titles: dict[str, str], only_lists: bool) -> Iterator[Row]:
    lists = [only_lists and kind_of(path) != ".inter" for path in paths]
    for user, past, target, known, title, time, row, file in frame.select(*PARTS, "row", "file").iter_rows():
        try:
            items = to_history(past, target, lists[file])
            if known is not None or title is not None:
                titles.update(zip(items, _list(known or "[]"), strict=False))
                titles[target] = title or ""
        except UserError as error:
            raise UserError(f"{paths[file]}, row {row + 1:,}: {error}") from error
        yield Row(History(row, user, items, target), time, file)


def to_history(value: Any, target: str, only_lists: bool) -> tuple[str, ...]:
    """Ids, oldest first, from a list, the text of one, or ids with spaces between them (not if only_lists)."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if not (only_lists or value.lstrip().startswith("[")):
            items = tuple(filter(None, re.split("[ \t]+", value)))
            check_commas(items, target)
            return items
        if NUMPY.search(value):
            raise UserError(f"a history is not a list, found {value!r:.80}; write commas between its items")
    items = _list(value)
    if set(map(type, items)) <= {str, int}:
        return tuple(map(str, items))
    return tuple(item_id(item, "a history") for item in items)


def check_commas(items: tuple[str, ...], target: str) -> None:
    if len(items) == 1 and "," in items[0] and "," not in target:
        raise UserError(f"the history {items[0]!r:.80} is one id; write spaces for its commas")


def _list(value: Any) -> list | tuple:
    if isinstance(value, (list, tuple)):
        return value
    try:
        items = _parse(str(value))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        items = None
    if not isinstance(items, (list, tuple)):
        raise UserError(f"a history is not a list, found {value!r:.80}; write [1, 2] or ['a', 'b']")
    return items


def _parse(text: str) -> Any:
    try:
        return json.loads(text)  # [1, 2] is JSON as well, and read ten times as fast
    except ValueError:
        return ast.literal_eval(text)
