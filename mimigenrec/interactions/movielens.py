"""MovieLens in its three shapes, told apart by the file's name.

    u.data, u.item            ml-100k          tab and "|", Latin-1, no header, genres as 0/1 columns
    ratings.dat, movies.dat   ml-1m, ml-10m    "::", Latin-1 or UTF-8, no header
    ratings.csv, movies.csv   ml-latest, 20m+  comma, UTF-8, header

A title keeps its year, "Toy Story (1995)"; genres are the categories. Times are in seconds.
Source: the README in each archive, https://grouplens.org/datasets/movielens/.
"""

from collections.abc import Iterator
from pathlib import Path

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Item, Log, events_from_rows, one_rating
from mimigenrec.interactions.item_texts import ItemTexts
from mimigenrec.interactions.json_lines import BadLines, read_lines
from mimigenrec.interactions.table import Columns, as_ids, read_frame, read_tables
from mimigenrec.interactions.times import check_early, one_ms

GENRES_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()


def read_movielens(interactions: list[Path], items: list[Path], bad: BadLines) -> Log:
    if all(".csv" in path.name for path in interactions):
        names = {"user_column": "userId", "item_column": "movieId", "time_column": "timestamp"}
        log = read_tables(interactions, [], Columns(**names, rating_column="rating"), bad)
    else:
        log = Log(events_from_rows(_ratings(interactions, bad)), dict, None, interactions, {})
        if len(time := log.events.frame["time"]):
            check_early(time, time // 1000, "s", interactions[0])
    return log._replace(items=lambda wanted: _movies(items, wanted, log.notes, bad), inputs=[*interactions, *items])


def _ratings(paths: list[Path], bad: BadLines) -> Iterator[tuple[str, str, int, float | None]]:
    for path in paths:
        separator = "::" if path.name.removesuffix(".gz").endswith(".dat") else "\t"
        for number, line in read_lines(path):
            try:
                user, item, rating, time = line.decode().rstrip("\r\n").split(separator)
                event = user, item, one_ms(time, "s", "the time"), one_rating(rating)
            except UserError as error:
                bad.add(path, number, line, str(error))
            except ValueError as error:
                bad.add(path, number, line, f"not user, movie, rating and time separated by {separator!r} ({error})")
            else:
                yield event


def _movies(paths: list[Path], wanted: set[str] | None, notes: dict[str, int], bad: BadLines) -> dict[str, Item]:
    found = ItemTexts(wanted, notes)
    for path in paths:
        if ".csv" in path.name:
            frame = read_frame(path, ["movieId", "title", "genres"], Columns(), bad)
            for item, title, genres in frame.with_columns(as_ids(frame["movieId"], path)).iter_rows():
                found.add(item, title, categories=(genres or "").split("|"))
            continue
        separator = "::" if path.name.removesuffix(".gz").endswith(".dat") else "|"
        for number, line in read_lines(path):
            parts = _decode(line).rstrip("\r\n").split(separator)
            if separator == "::" and len(parts) == 3:
                found.add(parts[0], parts[1], categories=parts[2].split("|"))
            elif separator == "|" and len(parts) == 5 + len(GENRES_100K):
                flags = zip(GENRES_100K, parts[5:], strict=True)
                found.add(parts[0], parts[1], categories=[genre for genre, flag in flags if flag == "1"])
            else:
                bad.add(path, number, line, f"not a movie: {len(parts)} columns separated by {separator!r}")
    return found.items


def _decode(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")  # ml-100k and ml-1m
