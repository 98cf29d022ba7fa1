"""Any two tables with named columns: interactions and, if there is one, items. CSV, TSV, Parquet or JSON lines.

CSV, TSV and JSON lines may be gzipped. Column names come from flags; other sources that are tables (MovieLens,
RecBole, rows of others) call in here with the names they are known to have. Rows are counted from 1 below the header,
over all files of one kind, blank lines left out.
"""

import csv
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mimigenrec.cli import arg
from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Events, Item, Log, events_from_columns, pl
from mimigenrec.interactions.item_texts import ItemTexts, clean_text
from mimigenrec.interactions.json_lines import (
    BadLines,
    has_half_character,
    line_end,
    opened,
    read_records,
    read_text_lines,
)
from mimigenrec.interactions.names import whole_characters, why_no_id
from mimigenrec.interactions.times import first_line, read_times


@dataclass
class Columns:
    """Names of the columns, for --source table and rows; for recbole they replace the usual names."""

    user_column: str | None = arg("user id", default=None)
    item_column: str | None = arg("item id; for rows, the item that came next", default=None)
    time_column: str | None = arg(
        "time of the event: a number (--time_unit), a date, or a text (--time_format)", default=None
    )
    history_column: str | None = arg(
        "for rows: earlier items, oldest first, as a list or separated by spaces", default=None
    )
    time_unit: Literal["s", "ms", "us", "ns"] = arg("unit of a time that is a number, since 1970 UTC", default="s")
    time_format: str | None = arg("strptime format of a time that is no ISO text: '%%m/%%d/%%Y %%H:%%M'", default=None)
    rating_column: str | None = arg("rating, for --min_rating", default=None)
    review_column: str | None = arg("text about the item, for C.review.json", default=None)
    summary_column: str | None = arg("headline of that text", default=None)
    item_id_column: str | None = arg("item id in the table of items; --item_column if not given", default=None)
    title_column: str | None = arg("title in the table of items", default=None)
    description_column: str | None = arg("description in the table of items", default=None)
    brand_column: str | None = arg("brand in the table of items", default=None)
    category_column: str | None = arg("categories in the table of items", default=None)
    category_separator: str | None = arg("separator of several categories in one text", default=None)
    separator: str | None = arg("one character between CSV columns; a tab for .tsv, a comma otherwise", default=None)
    header: bool = arg("the first CSV line names the columns; if not, they are column_1, column_2, ...", default=True)

    def given(self) -> list[str]:
        """Names of the flags that are not at their defaults."""
        return [one.name for one in fields(self) if getattr(self, one.name) != one.default]


def read_tables(interactions: list[Path], items: list[Path], columns: Columns, bad: BadLines) -> Log:
    wanted = [columns.user_column, columns.item_column, columns.time_column, columns.rating_column]
    for flag, name in zip(("user_column", "item_column", "time_column"), wanted, strict=False):
        if name is None:
            raise UserError(f"--{flag} is needed, the name of a column in {interactions[0]}")
    texts = [name for name in (columns.review_column, columns.summary_column) if name]
    frame = read_frames(interactions, [name for name in wanted if name] + texts, columns, bad)
    if not len(frame):
        raise UserError(f"{together(interactions)}: there is no row")
    notes: dict[str, int] = {}

    def reviews():
        empty = pl.lit("")
        parts = [pl.col(name) if name else empty for name in (columns.review_column, columns.summary_column)]
        for review, summary in frame.select(parts[0].alias("review"), parts[1].alias("summary")).iter_rows():
            yield clean_text(review), clean_text(summary)

    return Log(
        to_events(frame, columns, interactions),
        lambda names: item_texts(items, names, columns, notes, bad),
        reviews if texts else None,
        [*interactions, *items],
        notes,
    )


def to_events(frame: pl.DataFrame, columns: Columns, paths: list[Path]) -> Events:
    path = together(paths)
    user, item = (as_ids(frame[name], path) for name in (columns.user_column, columns.item_column))
    check_filled(frame[columns.time_column], path)
    return events_from_columns(
        user,
        item,
        read_times(frame[columns.time_column], columns.time_unit, path, columns.time_format),
        to_ratings(frame[columns.rating_column], path) if columns.rating_column else None,
    )


def together(paths: list[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{', '.join(map(str, paths))}, one below the other"


def check_filled(column: pl.Series, path: Any) -> None:
    if empty := column.null_count():
        row = column.is_null().arg_max()
        raise UserError(
            f"{path}: column {column.name!r} is empty in {empty:,} rows, the first of them row {row + 1:,}; fill them "
            f"in, or leave them out"
        )


def as_ids(column: pl.Series, path: Any) -> pl.Series:
    """(n,) String. Raises UserError if one is missing or the column holds none; check_ids looks at their letters."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    check_filled(column, path)
    if column.dtype.is_nested() or column.dtype == pl.Object:
        raise UserError(f"{path}: column {column.name!r} holds {column[0]!r:.80}, and an id is a text or a number")
    try:
        ids = column.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: column {column.name!r} holds {column.dtype}, not texts or numbers") from error
    if len(ids) and ids.str.len_bytes().min() == 0:
        row = (ids == "").arg_max()
        raise UserError(f"{path}: row {row + 1:,}, column {column.name!r}: {why_no_id('')}")
    return ids


def to_ratings(column: pl.Series, path: Any) -> pl.Series:
    """(n,) Float64, null for what is missing or NaN. Raises UserError for what is no number."""
    if column.dtype == pl.Object or column.dtype.is_nested():
        numbers = [value if isinstance(value, (int, float)) else None for value in column.to_list()]
        ratings = pl.Series(column.name, numbers, dtype=pl.Float64, strict=False)
    else:
        ratings = column.cast(pl.Float64, strict=False)
    wrong = ratings.is_null() & column.is_not_null() | ratings.is_infinite().fill_null(False)
    if column.dtype == pl.String and wrong.any():
        wrong &= column.str.strip_chars() != ""
    if wrong.any():
        row = wrong.arg_max()
        raise UserError(
            f"{path}: row {row + 1:,}: {column[row]!r:.80} in column {column.name!r} is no rating, which is a number; "
            f"mend it, or leave --rating_column out"
        )
    return ratings.fill_nan(None)


def item_texts(
    paths: list[Path], wanted: set[str] | None, columns: Columns, notes: dict[str, int], bad: BadLines
) -> dict[str, Item]:
    names = [columns.title_column, columns.description_column, columns.brand_column, columns.category_column]
    key = columns.item_id_column or columns.item_column
    found = ItemTexts(wanted, notes)
    for path in paths:
        if not columns.title_column:
            raise UserError(f"--title_column is needed: which column of {path} is the title?")
        frame = read_frame(path, [key, *filter(None, names)], columns, bad)
        frame = frame.with_columns(as_ids(frame[key], path))
        parts = [pl.col(name).alias(str(i)) if name else pl.lit(None).alias(str(i)) for i, name in enumerate(names)]
        for item, *texts in frame.select(pl.col(key), *parts).iter_rows():
            if columns.category_separator and isinstance(texts[-1], str):
                texts[-1] = texts[-1].split(columns.category_separator)
            found.add(item, *texts)
    return found.items


def read_frames(paths: list[Path], wanted: list[str], columns: Columns, bad: BadLines) -> pl.DataFrame:
    """The wanted columns of all files, one below the other. Ids, titles and the like stay as they are written."""
    frames = [read_frame(path, wanted, columns, bad) for path in paths]
    if len(frames) == 1:
        return frames[0]
    try:
        return pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        for name in wanted:
            if len({frame[name].dtype for frame in frames}) > 1:
                kinds = ", ".join(f"{frame[name].dtype} in {path}" for path, frame in zip(paths, frames, strict=True))
                raise UserError(f"column {name!r} is {kinds}; write it alike in all files") from error
        raise


def read_frame(path: Path, wanted: list[str], columns: Columns, bad: BadLines, also: tuple = ()) -> pl.DataFrame:
    """The wanted columns, and those of `also` that the file has.

    Raises FileNotFoundError; UserError for a missing column, naming those there are, and for a damaged file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    wanted, kind = list(dict.fromkeys(wanted)), kind_of(path)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines(path, wanted, columns, bad, also)
    if kind == ".parquet":
        try:
            names = list(pl.read_parquet_schema(path))
            _check_columns(path, wanted, names)
            return pl.read_parquet(path, columns=[*wanted, *(name for name in also if name in names)])
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # damaged bytes: a panic
            raise UserError(f"{path} cannot be read as Parquet ({first_line(error)}); write it again") from error
    separator = columns.separator or ("\t" if kind in (".tsv", ".inter", ".item", ".user") else ",")
    return read_csv(path, wanted, separator, columns.header, also)


def kind_of(path: Path) -> str:
    """ ".csv" for log.csv and log.CSV.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_csv(path: Path, wanted: list[str], separator: str, header: bool, also: tuple = ()) -> pl.DataFrame:
    """All columns as text, so that an id like 007 stays what it is. RecBole's types in the header are cut off."""
    quote = None if kind_of(path) in (".inter", ".item") else '"'
    separator = {"\\t": "\t"}.get(separator, separator)
    if len(separator.encode()) != 1 or separator in '"\r\n':
        raise UserError(
            f"--separator takes one character, found {separator!r}; write the file with one, such as a tab "
            f"(sed 's/{separator}/\\t/g')"
        )
    with opened(path) as (_, _, start):
        end = line_end(start)
    head = list(islice(read_text_lines(path), 1 + header))
    if len(head) < 1 + header:
        raise UserError(f"{path} holds no row" + " below its header" * bool(head))
    first = head[0][1]
    try:
        names = next(csv.reader([first], delimiter=separator)) if quote else first.split(separator)
    except csv.Error as error:
        raise UserError(f"{path}, line {head[0][0]}: no header of a CSV file ({error}); write it again") from error
    names = [name.strip().strip('"') for name in names]
    names = [name.partition(":")[0] for name in names] if quote is None else names
    names = names if header else [f"column_{i + 1}" for i in range(len(names))]
    _check_columns(path, wanted, names, separator)
    wanted = list(dict.fromkeys([*wanted, *(name for name in also if name in names)]))
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{path} has {names.count(name)} columns of the name {name!r}; rename the one not meant")
    try:
        frame = pl.read_csv(
            path,
            separator=separator,
            has_header=False,
            skip_rows=head[-1][0] - 1,
            new_columns=list(map(str, range(len(names)))),  # names of other columns may be empty, or there twice
            infer_schema=False,
            columns=[names.index(name) for name in wanted],
            quote_char=quote,
            eol_char=end.decode(),
        ).select(pl.col(str(names.index(name))).alias(name) for name in wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        for _ in read_text_lines(path):  # names the line that is no UTF-8, or where the file is cut short
            pass
        raise UserError(
            f"{path} cannot be read as CSV with {separator!r} between columns: {first_line(error)}; see --separator, "
            f"or write it as Parquet"
        ) from error
    if frame[wanted[0]].null_count():
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    return frame


def _read_json_lines(path: Path, wanted: list[str], columns: Columns, bad: BadLines, also: tuple) -> pl.DataFrame:
    ids = {columns.user_column, columns.item_column, columns.item_id_column}
    values: dict[str, list[Any]] = {name: [] for name in dict.fromkeys([*wanted, *also])}
    met: dict[str, None] = {}
    halves = bad.half_characters
    for number, line, record in read_records(path, bad):
        met.update(dict.fromkeys(record))
        if bad.half_characters > halves:
            halves = bad.half_characters
            if half := [name for name in ids if name in values and has_half_character(record.get(name))]:
                bad.add(path, number, line, why_no_id(record[half[0]]))
                continue
        for name, column in values.items():
            column.append(record.get(name))
    _check_columns(path, wanted, list(met))
    return pl.DataFrame([_series(name, column) for name, column in values.items() if name in met])


def _series(name: str, values: list[Any]) -> pl.Series:
    """One type for all values, without a change to what any of them says; NaN is null.

    Whole numbers stay such, and ids of mixed types become texts: 1 and "01" are "1" and "01", 1 and 2.5 "1" and "2.5".
    Lists and maps stay Python's.
    """
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values, dtype=pl.Int64)
    if float in kinds:
        values = [None if value != value else value for value in values]
        if kinds == {float}:
            return pl.Series(name, values, dtype=pl.Float64)
    if kinds & {list, tuple, dict}:
        return pl.Series(name, values, dtype=pl.Object)
    return pl.Series(
        name, [None if value is None else whole_characters(str(value)) for value in values], dtype=pl.String
    )


def _check_columns(path: Path, wanted: list[str], found: list[str], separator: str = "") -> None:
    if missing := [name for name in wanted if name not in found]:
        other = next((mark for mark in ",;\t|" if len(found) == 1 and mark != separator and mark in found[0]), None)
        hint = f". If {other!r} separates them, give --separator {other!r}" if separator and other else ""
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(found)}{hint}")
