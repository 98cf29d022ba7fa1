"""Random logs, the flags they are read with, and the files that hold them in every shape that is cheap to write.

Names, times, ratings and titles come from small sets, so that ties, duplicates and values at a threshold are common.
"""

import csv
import gzip
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from hypothesis import strategies as st

from mimigenrec.interactions.table import Columns
from tests.interactions.reference import Event

START = 1_514_764_800_000  # 2018-01-01 UTC, in ms
OFFSETS = (0, 0, 1000, 1000, 1500, 2000, 3000, 5000, 86_400_000, -1, -3_600_000, -31_536_000_000)
TIMES = {  # as --since and --until take them
    "2018": START,
    "2018-01": START,
    "2018-01-01": START,
    "2018-01-01T00:00:01": START + 1000,
    "2018-01-01T08:00:02+08:00": START + 2000,
    "2018-01-01 00:00:03.000": START + 3000,
    "2018-01-02": START + 86_400_000,
    "2017-12-31T23:59:59.999": START - 1,
    "2016": START - 63_158_400_000,
}
RATINGS = (None, float("nan"), 1.0, 3.9, 4.0, 4.0, 4.1, 5.0)
REVIEWS = {"": "", "good": "good", "<b>so</b>  so &amp; so": "so so & so"}
TITLES = {  # as it is written, as plain text
    "Lamp": "Lamp",
    "a b c": "a b c",
    "a b c d": "a b c d",
    "": "",
    " ": "",
    "<b>Pump</b> &amp; hose": "Pump & hose",
    '<span id="x">failed': "",
}
TRICKY = [
    "é",
    "e\u0301",
    "中文",
    "😀",
    "007",
    "7",
    "a,b",
    'a"b',
    "a'b",
    "\\n",
    "null",
    "nan",
    "1e3",
    "#",
    "\ufeffx",
    "\u200b",
    "a b",
    "中 文",
]
FORMS = ("csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet", "inter", "amazon14", "amazon18", "amazon23")
UNITS = ("s", "ms", "us", "ns", "iso")
COLUMNS = Columns("u", "i", "t", rating_column="r", review_column="v", item_id_column="i", title_column="n")


@dataclass
class Rules:
    """Flags of the command; since and until in ms, and as they are given."""

    since: int | None = None
    until: int | None = None
    min_rating: float | None = None
    require_title: bool = True
    max_title_words: int = 0
    duplicates: str = "keep"
    user_k: int = 0
    item_k: int = 0
    split: str = "time"
    ratio: list[int] = field(default_factory=lambda: [8, 1, 1])
    history: int = 10
    ties: str = "line"
    ids: str = "new"
    texts: dict[str, str | None] = field(default_factory=dict)  # since and until as text

    def flags(self) -> dict:
        names = (
            "min_rating require_title max_title_words duplicates user_k item_k split ratio history ties ids".split()
        )
        return {name: getattr(self, name) for name in names} | self.texts


@st.composite
def names(draw, most: int, numbers: bool):
    """One of up to `most` ids, the first ones more often: numbers, or any text that may be an id."""
    count = draw(st.sampled_from([most // 2, most, most, 1]))
    letters = st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])  # no white space
    texts = st.sampled_from(TRICKY) | st.text(letters, min_size=1, max_size=4)
    chosen = map(str, range(count)) if numbers else draw(st.lists(texts, min_size=count, max_size=count, unique=True))
    return st.sampled_from([name for place, name in enumerate(chosen) for _ in range(max(1, 4 - place))])


def rarely(*values):
    return st.sampled_from([None] * 4 * len(values) + list(values))


@st.composite
def logs(draw, numbers: bool) -> list[Event]:
    """Mostly long enough for three splits. Few users, items and times, so that all of them repeat."""
    user, item = (draw(names(most, numbers)) for most in (5, 8))
    time = st.sampled_from(OFFSETS).map(lambda offset: START + offset)
    one = st.builds(Event, user, item, time, st.sampled_from(RATINGS), st.sampled_from(sorted(REVIEWS)))
    size = draw(st.sampled_from([16, 24, 24, 32, 40, 40, 8, 4, 1, 0]))
    return draw(st.lists(one, min_size=size, max_size=size))


@st.composite
def logs_without_ties(draw, numbers: bool) -> list[Event]:
    """No two events in one instant."""
    log = draw(logs(numbers))
    times = draw(st.lists(st.integers(-50, 50), min_size=len(log), max_size=len(log), unique=True))
    return [one._replace(time=START + 1000 * time) for one, time in zip(log, times, strict=True)]


@st.composite
def catalogues(draw, log: list[Event]) -> list[tuple[str, str]]:
    """(item, title as written) of most items, some of them twice, some that nobody had."""
    known = sorted({one.item for one in log}) + ["never"] * draw(st.booleans())
    titles = st.sampled_from(["Lamp", "Lamp", "a b c", *TITLES])
    listed = [(item, draw(titles)) for item in known for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2])))]
    return draw(st.permutations(listed or [("never", "Lamp")]))


@st.composite
def runs(draw, log=logs, **fixed) -> SimpleNamespace:
    """A log, rules, a table of items or none, and the shape in which they are written."""
    ids = draw(st.sampled_from(["new", "new", "new", "given"]))
    log, form = draw(log(numbers=ids == "given")), draw(st.sampled_from(FORMS))
    if form in ("amazon14", "amazon18"):  # whole seconds
        log = [one._replace(time=one.time // 1000 * 1000) for one in log]
    if form in ("amazon14", "inter"):  # Python has no literal for NaN; atomic files of interactions hold no texts
        log = [one._replace(rating=None if one.rating != one.rating else one.rating) for one in log]
        log = [one._replace(review="" if form == "inter" else one.review) for one in log]
    items = draw(st.none() | catalogues(log))
    texts = {"since": draw(rarely("2016", *TIMES)), "until": draw(rarely("2018-01-02", *TIMES))}
    rules = {
        "min_rating": draw(st.sampled_from([None, None, None, 3.9, 4.0, 4.1])),
        "require_title": draw(st.booleans()),
        "max_title_words": draw(rarely(1, 3) if items else rarely(0, 0, 0, 0, 3)) or 0,
        "duplicates": draw(st.sampled_from(["keep", "keep", "exact", "first", "last"])),
        "user_k": draw(st.sampled_from([0, 0, 1, 2, 2, 3, 4])),
        "item_k": draw(st.sampled_from([0, 0, 1, 2, 2, 3, 4])),
        "split": draw(st.sampled_from(["time", "leave_one_out"])),
        "ratio": draw(st.sampled_from([[8, 1, 1], [1, 1, 1], [3, 2, 5]])),
        "history": draw(st.sampled_from([0, 1, 2, 10])),
    }
    windows = {name: TIMES.get(text) for name, text in texts.items()}
    rules = Rules(**windows, texts=texts, ids=ids, **rules | fixed)
    unit = draw(st.sampled_from(UNITS))
    cut = draw(st.integers(0, len(log)))  # where the log goes on in a second file
    return SimpleNamespace(log=log, rules=rules, items=items, form=form, unit=unit, cut=cut)


def written_time(ms: int, unit: str, line: int = 0) -> int | float | str:
    """line: us and ns get some digits below the millisecond, another in each line, which do not count."""
    if unit == "iso":
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat()
    if unit == "s":
        return ms // 1000 if ms % 1000 == 0 else ms / 1000
    per_ms = {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    return ms * per_ms + 617 * line % per_ms


def write_log(folder: Path, run: SimpleNamespace, log: list[Event], name: str) -> Path:
    if run.form.startswith("amazon"):
        return write_lines(folder / f"{name}.json", [amazon(run.form, e) for e in log], literals="14" in run.form)
    if run.form == "inter":
        rows = [(e.user, e.item, "" if e.rating is None else e.rating, written_time(e.time, "s")) for e in log]
        header = "user_id:token", "item_id:token", "rating:float", "timestamp:float"
        return write_text(
            folder / f"{name}.inter", "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows])
        )
    times = [written_time(event.time, run.unit, line) for line, event in enumerate(log)]
    rows = [(e.user, e.item, time, e.rating, e.review) for e, time in zip(log, times, strict=True)]
    return write_table(folder / f"{name}.{run.form}", ("u", "i", "t", "r", "v"), rows)


def write_items(folder: Path, run: SimpleNamespace) -> Path:
    if run.form.startswith("amazon"):
        key = "parent_asin" if run.form == "amazon23" else "asin"
        return write_lines(folder / "items.json", [{key: item, "title": title} for item, title in run.items])
    if run.form == "inter":
        rows = [("item_id:token", "title:token_seq"), *run.items]
        return write_text(folder / "C.item", "".join("\t".join(row) + "\n" for row in rows))
    return write_table(folder / f"items.{run.form}", ("i", "n"), run.items)


def amazon(form: str, event: Event) -> dict:
    if form == "amazon23":
        record = {"user_id": event.user, "parent_asin": event.item, "timestamp": event.time, "text": event.review}
        return record | ({} if event.rating is None else {"rating": event.rating})
    record = {"reviewerID": event.user, "asin": event.item, "unixReviewTime": event.time // 1000}
    return record | {"overall": event.rating, "reviewText": event.review}


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple]) -> Path:
    if "jsonl" in path.name:  # ids that are numbers are written as such beside those that are texts
        values = [[int(value) if value in ("0", "1", "2", "7") else value for value in row] for row in rows]
        return write_lines(path, [dict(zip(header, row, strict=True)) for row in values])
    if path.suffix == ".parquet":
        import polars as pl

        columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
        pl.DataFrame({name: pl.Series(name, values, strict=False) for name, values in columns.items()}).write_parquet(
            path
        )
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as out:
        csv.writer(out, delimiter="\t" if "tsv" in path.name else ",").writerows([header, *rows])
    return path


def write_lines(path: Path, records: list[dict], literals: bool = False) -> Path:
    return write_text(path, "".join((repr(r) if literals else json.dumps(r)) + "\n" for r in records))


def write_text(path: Path, text: str) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as out:
        out.write(text)
    return path
