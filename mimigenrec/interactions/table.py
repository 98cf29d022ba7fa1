"""Any two tables with named columns: interactions and, if there is one, items. CSV, TSV, Parquet or JSON lines.

CSV, TSV and JSON lines may be gzipped. Column names come from flags; other sources that are tables (MovieLens,
RecBole) call in here with the names they are known to have.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mimigenrec.cli import arg
from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Events, Item, Log, events_from_columns, pl
from mimigenrec.interactions.item_texts import ItemTexts, clean_text
from mimigenrec.interactions.json_lines import BadLines, read_lines, read_records

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass
class Columns:
    """Names of the columns, for --source table; for recbole they replace the usual names."""

    user_column: str | None = arg("who", default=None)
    item_column: str | None = arg("had which item", default=None)
    time_column: str | None = arg("when: a number (--time_unit), a date, or an ISO text", default=None)
    time_unit: Literal["s", "ms", "us", "ns"] = arg("unit of a time that is a number, since 1970 UTC", default="s")
    rating_column: str | None = arg("how it was rated, for --min_rating", default=None)
    review_column: str | None = arg("text about the item, for C.review.json", default=None)
    summary_column: str | None = arg("headline of that text", default=None)
    item_id_column: str | None = arg("item id in the table of items; --item_column if not given", default=None)
    title_column: str | None = arg("title in the table of items", default=None)
    description_column: str | None = arg("description in the table of items", default=None)
    brand_column: str | None = arg("brand in the table of items", default=None)
    category_column: str | None = arg("categories in the table of items", default=None)
    category_separator: str | None = arg("what separates several categories in one text", default=None)
    separator: str | None = arg("one character between CSV columns; a tab for .tsv, a comma otherwise", default=None)
    header: bool = arg("the first CSV line names the columns; if not, they are column_1, column_2, ...", default=True)


def read_tables(interactions: list[Path], items: list[Path], columns: Columns, bad: BadLines) -> Log:
    wanted = [columns.user_column, columns.item_column, columns.time_column, columns.rating_column]
    for flag, name in zip(("user_column", "item_column", "time_column"), wanted, strict=False):
        if name is None:
            raise UserError(f"--source table needs --{flag}, the name of a column in {interactions[0]}")
    texts = [name for name in (columns.review_column, columns.summary_column) if name]
    frame = read_frames(interactions, [name for name in wanted if name] + texts, columns, bad)
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
    for name in (columns.user_column, columns.item_column, columns.time_column):
        if empty := frame[name].null_count():
            row = frame[name].is_null().arg_max()
            raise UserError(f"{paths[0]}: column {name!r} is empty in {empty} rows, the first of them row {row + 1}")
    for name in (columns.user_column, columns.item_column):
        text = frame[name].cast(pl.String)
        spaced = text.str.contains(r"\s") | (text == "")
        if spaced.any():
            raise UserError(
                f"{paths[0]}: row {spaced.arg_max() + 1} has {name} {text[spaced.arg_max()]!r}; an id must not be "
                f"empty or hold white space, since the .inter format separates ids by spaces"
            )
    return events_from_columns(
        frame[columns.user_column],
        frame[columns.item_column],
        to_ms(frame[columns.time_column], columns.time_unit, paths[0]),
        frame[columns.rating_column] if columns.rating_column else None,
    )


def to_ms(time: pl.Series, unit: str, path: Path) -> pl.Series:
    """Numbers by their unit; dates, and texts without an offset, as UTC."""
    if time.dtype == pl.String:
        number = time.str.strip_chars().cast(pl.Float64, strict=False)
        if number.null_count() == 0:
            time = number
        else:
            parsed = time.str.to_datetime(time_unit="ms", time_zone="UTC", strict=False, ambiguous="earliest")
            if parsed.null_count():
                row = parsed.is_null().arg_max()
                raise UserError(f"{path}: row {row + 1}: {time[row]!r} in column {time.name!r} is not a time")
            return parsed.dt.epoch("ms")
    if time.dtype.is_temporal():
        zone = getattr(time.dtype, "time_zone", None)
        return (time if zone else time.cast(pl.Datetime("ms"))).dt.epoch("ms")
    if time.dtype.is_integer():
        return time.cast(pl.Int64) * 1000 // PER_SECOND[unit]
    if not time.is_finite().all():
        raise UserError(f"{path}: column {time.name!r} holds a time that is not a finite number")
    return (time * (1000 / PER_SECOND[unit])).round().cast(pl.Int64)


def item_texts(
    paths: list[Path], wanted: set[str] | None, columns: Columns, notes: dict[str, int], bad: BadLines
) -> dict[str, Item]:
    names = [columns.title_column, columns.description_column, columns.brand_column, columns.category_column]
    key = columns.item_id_column or columns.item_column
    found = ItemTexts(wanted, notes)
    if paths:
        if not columns.title_column:
            raise UserError(f"--title_column is needed: which column of {paths[0]} is the title?")
        frame = read_frames(paths, [key, *filter(None, names)], columns, bad)
        parts = [pl.col(name).alias(str(i)) if name else pl.lit(None).alias(str(i)) for i, name in enumerate(names)]
        for item, *texts in frame.select(pl.col(key).cast(pl.String), *parts).iter_rows():
            if item is None:
                raise UserError(f"{paths[0]}: column {key!r} is empty in a row; every item needs an id")
            if columns.category_separator and isinstance(texts[-1], str):
                texts[-1] = texts[-1].split(columns.category_separator)
            found.add(item, *texts)
    return found.items


def read_frames(paths: list[Path], wanted: list[str], columns: Columns, bad: BadLines) -> pl.DataFrame:
    """The wanted columns of all files, one below the other. Ids, titles and the like stay as they are written."""
    wanted = list(dict.fromkeys(wanted))
    frames = [read_frame(path, wanted, columns, bad) for path in paths]
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")


def read_frame(path: Path, wanted: list[str], columns: Columns, bad: BadLines) -> pl.DataFrame:
    """Raises FileNotFoundError; ValueError for a missing column, naming those there are, and for a damaged file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines(path, wanted, bad)
    if kind == ".parquet":
        _check_columns(path, wanted, list(pl.read_parquet_schema(path)))
        return pl.read_parquet(path, columns=wanted)
    separator = columns.separator or ("\t" if kind in (".tsv", ".inter", ".item", ".user") else ",")
    return read_csv(path, wanted, separator, columns.header)


def read_csv(path: Path, wanted: list[str], separator: str, header: bool) -> pl.DataFrame:
    """All columns as text, so that an id like 007 stays what it is. RecBole's types in the header are cut off."""
    quote = None if path.name.removesuffix(".gz").endswith((".inter", ".item")) else '"'
    head = [line for _, line in islice(read_lines(path), 1 + header)]
    if len(head) < 1 + header:
        raise UserError(f"{path} holds no row" + " below its header" * bool(head))
    first = head[0].decode().lstrip("\ufeff").rstrip("\r\n").split(separator)
    names = [name.strip().strip('"') for name in first]
    names = [name.partition(":")[0] for name in names] if quote is None else names
    names = names if header else [f"column_{i + 1}" for i in range(len(names))]
    _check_columns(path, wanted, names)
    try:
        return pl.read_csv(
            path,
            separator=separator,
            has_header=False,
            skip_rows=int(header),
            new_columns=names,
            columns=[names.index(name) for name in wanted],
            infer_schema=False,
            quote_char=quote,
        ).select(wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} cannot be read as CSV with {separator!r} between columns: {error}") from error


def _read_json_lines(path: Path, wanted: list[str], bad: BadLines) -> pl.DataFrame:
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    met: dict[str, None] = {}
    for _, _, record in read_records(path, bad):
        met.update(dict.fromkeys(record))
        for name in wanted:
            values[name].append(record.get(name))
    _check_columns(path, wanted, list(met))
    return pl.DataFrame({name: pl.Series(name, column, strict=False) for name, column in values.items()})


def _check_columns(path: Path, wanted: list[str], found: list[str]) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(found)}")
