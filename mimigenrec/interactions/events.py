"""Events: who had which item when. Every source is read into this one table.

line     UInt32   zero-based place in the source; the order of what happened in the same instant
user     Int32    code, place in `users`
item     Int32    code, place in `items`
time     Int64    milliseconds since 1970-01-01 UTC
rating   Float64  null where the source has none
"""

import logging
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.interactions.names import MISSING, NOT_IN_AN_ID, is_id, why_no_id

try:
    import polars as pl
except ImportError as error:
    raise MissingPackage("reading raw logs needs polars: pip install 'mimigenrec[raw]'") from error


logger = logging.getLogger(__name__)


class Events(NamedTuple):
    frame: pl.DataFrame
    users: list[str]  # raw name by code
    items: list[str]


Item = dict[str, str]  # title, description, brand, categories: text without markup, "" where there is none


class Given(NamedTuple):
    """The split that a source has, for each event."""

    split: np.ndarray  # (events,) int8: 0 train, 1 valid, 2 test; -1 if the event is the target of no row
    row: np.ndarray  # (events,) int64: place of that row in its file; -1 for none


class Log(NamedTuple):
    """What a source gives. Items and reviews are functions: they are read after the events, and not always."""

    events: Events
    items: Callable[[set[str] | None], dict[str, Item]]  # texts by raw item id, of the items asked for (None: all)
    reviews: Callable[[], Iterator[tuple[str, str]]] | None  # (review, summary) of each event, in the order of lines
    inputs: list  # files that were read
    notes: dict[str, int]  # what was met while reading, counted
    has_times: bool = True  # if not, `time` is an order and no more
    given: Given | None = None


def events_from_rows(rows: Iterable[tuple[str, str, int, float | None]]) -> Events:
    """(user, item, time in ms, rating) one by one; memory holds codes and each name once."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    columns = array("i"), array("i"), array("q"), array("d")
    for user, item, time, rating in rows:
        columns[0].append(users.setdefault(user, len(users)))
        columns[1].append(items.setdefault(item, len(items)))
        columns[2].append(time)
        columns[3].append(float("nan") if rating is None else rating)
    types = {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64, "rating": pl.Float64}
    frame = pl.DataFrame(
        [pl.Series(name, values, dtype=kind) for (name, kind), values in zip(types.items(), columns, strict=True)]
    )
    frame = frame.with_columns(pl.col("rating").fill_nan(None)).with_row_index("line")
    return Events(frame, list(users), list(items))


def events_from_columns(user: pl.Series, item: pl.Series, time: pl.Series, rating: pl.Series | None) -> Events:
    """Whole columns at once: names of any type without a null, time in ms as integers, ratings as floats."""
    codes, names = {}, {}
    for column, values in (("user", user), ("item", item)):
        coded = values.cast(pl.String).to_arrow().dictionary_encode()
        codes[column] = pl.Series(column, coded.indices, dtype=pl.Int32)
        names[column] = coded.dictionary.to_pylist()
    empty = pl.lit(None, pl.Float64) if rating is None else rating.cast(pl.Float64)
    frame = pl.DataFrame([codes["user"], codes["item"], time.cast(pl.Int64).rename("time")])
    frame = frame.with_columns(empty.alias("rating")).with_row_index("line")
    return Events(frame, names["user"], names["item"])


def one_rating(value: Any) -> float | None:
    """None for a rating that is missing or NaN. Raises UserError for one that is no finite number."""
    try:
        rating = float("nan" if value is None else value)
    except (ValueError, TypeError, OverflowError):
        rating = math.inf
    if math.isinf(rating):
        raise UserError(f"the rating {value!r:.80} is no number; mend it, or leave it out")
    return None if math.isnan(rating) else rating


def check_ids(log: Log) -> None:
    """Raises UserError for the first user or item id that cannot stand in a line of C.item2id; see names.py.

    Warns of ids such as "nan", which may be a name, or what somebody's software wrote for a missing one.
    """
    for column, names in (("user", log.events.users), ("item", log.events.items)):
        if NOT_IN_AN_ID.search("".join(names)) or not all(map(str.strip, names)):
            code = next(code for code, name in enumerate(names) if not is_id(name))
            place = (log.events.frame[column] == code).arg_max() + 1
            files = ", ".join(str(path) for path in log.inputs[:3])
            raise UserError(f"{files}: {column} of interaction {place:,}: {why_no_id(names[code])}")
        for name in sorted(MISSING.intersection(names)):
            count = (log.events.frame[column] == names.index(name)).sum()
            logger.warning(
                "%s interactions have the %s %r, taken as a name; if it stands for a missing one, leave them out",
                f"{count:,}", column, name,
            )  # fmt: skip


def instant(text: str, flag: str) -> int:
    """ "2016", "2016-10", "2016-10-03" or any ISO time -> its first instant in ms, UTC unless the text has an offset.

    Raises UserError on anything else.
    """
    filled = text + {4: "-01-01", 7: "-01"}.get(len(text), "")
    try:
        moment = datetime.fromisoformat(filled)
    except ValueError as error:
        raise UserError(
            f"{flag} {text!r} is not a time; write 2016, 2016-10, 2016-10-03 or 2016-10-03T12:00"
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
