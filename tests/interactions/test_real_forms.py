"""Every raw reader and the forms that people's files really have: each is read right, or refused with the remedy.

Two users, Ann and Bob, had a, b, c, d in this order; the lines stand in another order (that of LINES). A cell of a
table below is RIGHT, when exactly these sequences come out, or a pattern that the message of the refusal matches.
"""

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mimigenrec.errors import UserError
from mimigenrec.interactions.table import Columns

RIGHT = "right"
SECONDS = {"a": 1_467_331_200, "b": 1_467_331_205, "c": 1_483_228_800, "d": 1_509_494_400}  # 2016-07-01 ... 2017-11-01
LINES = [(user, item) for item in "dbac" for user in ("Ann", "Bob")]
NAMES = Columns(user_column="u", item_column="i", time_column="t")


def events(time, lines=LINES):
    """[(user, item, time as `time` writes it)]"""
    return [(user, item, time(SECONDS[item])) for user, item in lines]


# Writers: rows of (user, item, time) -> files, and the flags that read them. A time is written as it is.


def as_csv(folder, rows, separator=",", end="csv"):
    lines = [separator.join(("u", "i", "t")), *(separator.join(map(str, row)) for row in rows)]
    return _file(folder, f"log.{end}", "\n".join(lines) + "\n"), {"source": "table"}, NAMES


def as_tsv(folder, rows):
    return as_csv(folder, rows, "\t", "tsv")


def as_jsonl(folder, rows):
    text = "".join(json.dumps(dict(zip("uit", row, strict=True))) + "\n" for row in rows)
    return _file(folder, "log.jsonl", text), {"source": "table"}, NAMES


def as_parquet(folder, rows):
    path = folder / "log.parquet"
    pl.DataFrame(rows, schema=["u", "i", "t"], orient="row").write_parquet(path)
    return [path], {"source": "table"}, NAMES


def as_recbole(folder, rows):
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    return _file(folder, "x.inter", "\n".join(lines) + "\n"), {"source": "recbole"}, Columns()


def as_rows(folder, rows):
    """Amazon 2023's form. Histories follow the order of time, which the order of lines does not."""
    names = Columns(
        user_column="user_id", item_column="parent_asin", history_column="history", time_column="timestamp"
    )
    lines = ["user_id,parent_asin,rating,timestamp,history"]
    lines += [f"{user},{item},5.0,{time},{' '.join('abcd'[: 'abcd'.index(item)])}" for user, item, time in rows]
    return _file(folder, "rows.csv", "\n".join(lines) + "\n"), {"source": "rows"}, names


def as_amazon_2018(folder, rows):
    lines = [{"reviewerID": user, "asin": item, "unixReviewTime": time} for user, item, time in rows]
    return (
        _file(folder, "C_5.json", "".join(json.dumps(line) + "\n" for line in lines)),
        {"source": "amazon"},
        Columns(),
    )


def as_amazon_2023(folder, rows):
    lines = [{"user_id": user, "parent_asin": item, "timestamp": time} for user, item, time in rows]
    return (
        _file(folder, "C.jsonl", "".join(json.dumps(line) + "\n" for line in lines)),
        {"source": "amazon"},
        Columns(),
    )


def as_movielens_1m(folder, rows, separator="::", name="ratings.dat"):
    text = "".join(separator.join((user, item, "4", str(time))) + "\n" for user, item, time in rows)
    return _file(folder, name, text), {"source": "movielens"}, Columns()


def as_movielens_100k(folder, rows):
    return as_movielens_1m(folder, rows, "\t", "u.data")


def as_movielens_latest(folder, rows):
    text = "userId,movieId,rating,timestamp\n" + "".join(f"{user},{item},4,{time}\n" for user, item, time in rows)
    return _file(folder, "ratings.csv", text), {"source": "movielens"}, Columns()


def as_sequences_json(folder, rows):
    text = json.dumps({user: ordered(user, rows) for user in dict.fromkeys(user for user, *_ in rows)})
    return _file(folder, "C.inter.json", text), {"source": "sequences", "split": "leave_one_out"}, Columns()


def as_sequences_txt(folder, rows):
    users = dict.fromkeys(user for user, *_ in rows)
    text = "".join(" ".join((user, *ordered(user, rows))) + "\n" for user in users)
    return _file(folder, "C.txt", text), {"source": "sequences", "split": "leave_one_out"}, Columns()


def as_rows_inter(folder, rows):
    lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
    for user in dict.fromkeys(user for user, *_ in rows):
        items = ordered(user, rows)
        lines += [f"{user}\t{' '.join(items[:place])}\t{items[place]}" for place in range(1, len(items))]
    return _file(folder, "C.train.inter", "\n".join(lines) + "\n"), {"source": "rows"}, Columns()


def as_rows_minionerec(folder, rows):
    lines = ["user_id,history_item_id,item_id"]
    for user in dict.fromkeys(user for user, *_ in rows):
        items = ordered(user, rows)
        lines += [f'{user},"{items[:place]}",{items[place]}' for place in range(1, len(items))]
    return _file(folder, "train.csv", "\n".join(lines) + "\n"), {"source": "rows"}, Columns()


def as_mimigenrec(folder, rows):
    """Items are named by SID, users not at all; one user's sequence is enough to be found again."""
    items = ordered("Ann", rows)
    id2sid = folder / "id2sid.json"
    id2sid.write_text(json.dumps({item: [f"<a_{place}>"] for place, item in enumerate(sorted(items))}))
    sids = [f"<a_{sorted(items).index(item)}>" for item in items]
    content = [
        {
            "prompt": [{"role": "user", "content": f"items {', '.join(sids[:place])} in order"}],
            "reward_model": {"ground_truth": sids[place]},
            "extra_info": {"index": place, "task": "task1_sid_sft"},
        }
        for place in range(1, len(items))
    ]
    flags = {"source": "mimigenrec", "id2sid": id2sid, "split": "leave_one_out"}
    return _file(folder, "train.json", json.dumps(content)), flags, Columns()


def ordered(user, rows):
    return [item for who, item, _ in sorted(rows, key=lambda row: SECONDS.get(row[1], 0)) if who == user]


def _file(folder: Path, name: str, text: str) -> list[Path]:
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return [folder / name]


def sequences(build, written, **more):
    """raw user -> raw items, oldest first"""
    files, flags, columns = written
    out = build(files, columns=Columns(**(vars(columns) | more)), **({"split": "leave_one_out"} | flags))
    user = {new: raw for raw, new in out.user2id.items()}
    item = {int(new): raw for raw, new in out.item2id.items()}
    return {user[who]: [item[one] for one in items] for who, items in out.sequences.items()}


def check(cell, build, written, expected=None, **more):
    if cell == RIGHT:
        assert sequences(build, written, **more) == (expected or {"Ann": list("abcd"), "Bob": list("abcd")})
        return
    with pytest.raises(UserError, match=cell):
        sequences(build, written, **more)
    assert not list(written[0][0].parent.glob("out/*"))  # refused before anything is written


# Times

DATED = [as_csv, as_tsv, as_jsonl, as_parquet, as_recbole, as_rows]  # their unit and format can be said
BINARY = (as_jsonl, as_parquet)  # a number there is no text
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    ("write", "kind"),
    [(write, kind) for write in DATED for kind in (int, float)] + [(write, str) for write in BINARY],
    ids=lambda part: part.__name__,
)
def test_numbers_in_every_unit(build, tmp_path, write, unit, kind):
    rows = events(lambda second: kind(second * UNITS[unit]))
    check(RIGHT, build, write(tmp_path, rows), time_unit=unit)


def moment(form):
    return lambda second: datetime.fromtimestamp(second, UTC).strftime(form)


TEXTS = {  # what times look like -> the time of a second, flags, the cell
    "ISO with T": (moment("%Y-%m-%dT%H:%M:%S"), {}, RIGHT),
    "ISO with a space": (moment("%Y-%m-%d %H:%M:%S"), {}, RIGHT),
    "ISO with a fraction in some rows": (
        lambda second: moment("%Y-%m-%dT%H:%M:%S")(second) + ".500" * (second % 2), {}, RIGHT,
    ),
    "ISO with Z": (moment("%Y-%m-%dT%H:%M:%SZ"), {}, RIGHT),
    "ISO with an offset": (moment("%Y-%m-%d %H:%M:%S+02:00"), {}, RIGHT),
    "ISO with several offsets": (  # b is five seconds after a, and its clock shows five hours less
        lambda second: datetime.fromtimestamp(second - 18_000 * (second % 2), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        + ("-05:00" if second % 2 else "+00:00"), {}, RIGHT,
    ),
    "with the name UTC": (moment("%Y-%m-%d %H:%M:%S UTC"), {}, RIGHT),
    "year first with slashes": (moment("%Y/%m/%d %H:%M:%S"), {}, RIGHT),
    "Goodreads": (moment("%a %b %d %H:%M:%S -0700 %Y"), {}, RIGHT),
    "Goodreads by its format": (
        moment("%a %b %d %H:%M:%S -0700 %Y"), {"time_format": "%a %b %d %H:%M:%S %z %Y"}, RIGHT,
    ),
    "month first, said so": (moment("%m/%d/%Y %H:%M:%S"), {"time_format": "%m/%d/%Y %H:%M:%S"}, RIGHT),
    "day first, said so": (moment("%d.%m.%Y %H:%M:%S"), {"time_format": "%d.%m.%Y %H:%M:%S"}, RIGHT),
    "twelve hours": (moment("%m/%d/%Y %I:%M:%S %p"), {"time_format": "%m/%d/%Y %I:%M:%S %p"}, RIGHT),
    "month or day first": (
        moment("%m/%d/%Y %H:%M:%S"), {},
        "is 1 November 2017 if the month .* and 11 January 2017 if the day .* --time_format '%m/%d/%Y %H:%M:%S' or",
    ),
    "a year of two digits": (moment("%d/%m/%y %H:%M:%S"), {}, "two digits; give --time_format"),
    "year, month and day as one number": (
        moment("%Y%m%d%H%M%S"), {"time_format": "%Y%m%d%H%M%S"}, RIGHT,
    ),
    "the same without a format": (moment("%Y%m%d%H%M%S"), {}, "give --time_format '%Y%m%d%H%M%S'"),
    "the same, days alone": (moment("%Y%m%d"), {}, "look like dates.* give --time_format '%Y%m%d'"),
    "words": (lambda second: "yesterday", {}, "'yesterday' in column .* is not a time; .*--time_format"),
    "another format than said": (moment("%d.%m.%Y"), {"time_format": "%m/%d/%Y"}, "not a time of the form --time_for"),
    "a format with the name of a zone": (moment("%Y EST"), {"time_format": "%Y %Z"}, "take %z"),
    "a format of no date": (moment("%H:%M"), {"time_format": "%H:%M"}, "not from 1900 to 2099.*--time_format"),
    "milliseconds read as seconds": (lambda second: second * 1000, {}, "give --time_unit ms"),
    "microseconds read as seconds": (lambda second: second * 10**6, {}, "give --time_unit us"),
    "nanoseconds read as seconds": (lambda second: second * 10**9, {}, "give --time_unit ns"),
    "nanoseconds read as milliseconds": (lambda second: second * 10**9, {"time_unit": "ms"}, "give --time_unit ns"),
    "seconds read as milliseconds": (lambda second: second, {"time_unit": "ms"}, "give --time_unit s"),
    "seconds read as nanoseconds": (lambda second: second, {"time_unit": "ns"}, "give --time_unit s"),
    "dates made by the wrong unit": (lambda second: f"1970-01-01T00:00:01.{second // 10**7}", {}, "the wrong unit"),
    "a date far away": (lambda second: "9999-12-31", {}, "year 9999.*mend it"),
    "1e30": (lambda second: "1e30", {}, "cannot be seconds since 1970"),
    "1e300": (lambda second: "1e300", {}, "cannot be seconds since 1970"),
    "infinite": (lambda second: "inf", {}, "'inf' in column .* is not a finite number"),
    "fractions of a whole": (lambda second: (second - 1_467_331_200) / 10**12, {}, "steps below a thousandth"),
    "an order alone": (lambda second: sorted(SECONDS.values()).index(second), {}, RIGHT),
}  # fmt: skip


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize(
    "write", [as_csv, as_jsonl, as_parquet, as_recbole, as_rows], ids=lambda write: write.__name__
)
def test_times_of_every_form(build, tmp_path, write, form):
    time, flags, cell = TEXTS[form]
    check(cell, build, write(tmp_path, events(time)), **flags)


FIXED = {  # readers whose unit is that of the source: (reader, time) -> cell
    (as_amazon_2018, "int"): (int, RIGHT),
    (as_amazon_2018, "float"): (float, RIGHT),
    (as_amazon_2018, "text"): (str, RIGHT),
    (as_amazon_2018, "text of a float"): (lambda second: f"{second}.0", RIGHT),
    (as_amazon_2018, "milliseconds"): (lambda second: second * 1000, "line 1: .* give --time_unit ms"),
    (as_amazon_2018, "infinite"): (lambda second: float("inf"), "line 1: not a review: unixReviewTime is inf"),
    (as_amazon_2018, "NaN"): (lambda second: float("nan"), "line 1: not a review: unixReviewTime is nan"),
    (as_amazon_2018, "1e30"): (lambda second: 1e30, "line 1: .*unixReviewTime 1e\\+30 cannot be seconds"),
    (as_amazon_2018, "10 ** 30"): (lambda second: 10**30, "line 1: .*cannot be seconds"),
    (as_amazon_2018, "null"): (lambda second: None, "line 1: .*unixReviewTime is None, not a time"),
    (as_amazon_2018, "a date"): (moment("%Y-%m-%d"), "line 1: .*unixReviewTime is '2017-11-01', not a time"),
    (as_amazon_2018, "true"): (lambda second: True, "line 1: .*unixReviewTime is True, not a time"),
    (as_amazon_2023, "milliseconds"): (lambda second: second * 1000, RIGHT),
    (as_amazon_2023, "seconds"): (int, "line 1: .* in 1970 .*--source table --time_unit s"),
    (as_amazon_2023, "nanoseconds"): (lambda second: second * 10**9, "line 1: .* give --time_unit ns"),
    (as_movielens_1m, "int"): (int, RIGHT),
    (as_movielens_1m, "text of a float"): (float, RIGHT),
    (as_movielens_1m, "milliseconds"): (lambda second: second * 1000, "line 1: .* give --time_unit ms"),
    (as_movielens_1m, "infinite"): (lambda second: "inf", "line 1: the time is 'inf\\\\?'?"),
    (as_movielens_100k, "int"): (int, RIGHT),
    (as_movielens_100k, "1e30"): (lambda second: 1e30, "line 1: the time '1e\\+30' cannot be seconds"),
    (as_movielens_latest, "int"): (int, RIGHT),
    (as_movielens_latest, "milliseconds"): (lambda second: second * 1000, "give --time_unit ms"),
}


@pytest.mark.parametrize(("write", "form"), FIXED, ids=lambda part: getattr(part, "__name__", part))
def test_times_of_readers_with_a_unit_of_their_own(build, tmp_path, write, form):
    time, cell = FIXED[write, form]
    check(cell, build, write(tmp_path, events(time)))


@pytest.mark.parametrize("value", [float("inf"), 1e30, 10**30, None, "x"])
def test_bad_times_of_amazon_lines_are_counted(build, tmp_path, value):
    files, flags, _ = as_amazon_2018(tmp_path, [*events(int), ("Ann", "a", value)])
    assert build(files, split="leave_one_out", max_bad_lines=1, **flags).counts["bad_lines"] == 1


# Bytes

READERS = [
    as_csv, as_tsv, as_jsonl, as_recbole, as_rows, as_rows_minionerec, as_rows_inter, as_sequences_txt,
    as_sequences_json, as_amazon_2018, as_movielens_1m, as_movielens_100k, as_movielens_latest, as_mimigenrec,
]  # fmt: skip
WHOLE = (as_rows_inter, as_sequences_json, as_mimigenrec)  # read as they lie, not unpacked
BYTES = {  # what was done to the bytes -> new bytes, the cell, the cell of WHOLE
    "Windows line ends": (lambda text: text.replace(b"\n", b"\r\n"), RIGHT, RIGHT),
    "old Mac line ends": (lambda text: text.replace(b"\n", b"\r"), RIGHT, RIGHT),
    "byte-order mark": (lambda text: b"\xef\xbb\xbf" + text, RIGHT, RIGHT),
    "byte-order mark and Windows": (lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), RIGHT, RIGHT),
    "byte-order mark and old Mac": (lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r"), RIGHT, RIGHT),
    "blank lines at the end": (lambda text: text + b"\n\n", RIGHT, RIGHT),
    "no line end at the end": (lambda text: text.rstrip(b"\n"), RIGHT, RIGHT),
    "gzip, named otherwise": (gzip.compress, RIGHT, "gunzip"),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "iconv -f UTF-16", "iconv -f UTF-16"),
    "gzip cut short": (lambda text: gzip.compress(text)[:-9], "cut short|invalid gzip|corrupt", "gunzip"),
    "a zip archive": (lambda text: b"PK\x03\x04\x14\x00" + text + b"\xff", "unpack it first", "unpack it first"),
}


@pytest.mark.parametrize("form", BYTES)
@pytest.mark.parametrize("write", READERS, ids=lambda write: write.__name__)
def test_files_of_every_encoding(build, tmp_path, write, form):
    change, cell, whole = BYTES[form]
    written = write(tmp_path, events(lambda second: second * (1000 if write is as_amazon_2023 else 1)))
    path = written[0][0]
    path.write_bytes(change(path.read_bytes()))
    cell = whole if write in WHOLE else cell
    if form == "blank lines at the end" and write is as_rows_inter:
        cell = "line 8: expected user, history and one target"
    expected = {"user0": list("abcd")} if write is as_mimigenrec else None
    check(cell, build, written, expected)


@pytest.mark.parametrize("write", READERS, ids=lambda write: write.__name__)
def test_latin_1_is_refused_with_the_line(build, tmp_path, write):
    lines = [*LINES, *(("André", item) for item in "abcd")]
    rows = [(user, item, SECONDS[item]) for user, item in lines]
    written = write(tmp_path, rows)
    path = written[0][0]
    if write in (as_mimigenrec, as_sequences_json, as_jsonl, as_amazon_2018):  # json.dumps writes ASCII
        text = path.read_text().replace("\\u00e9", "é").replace("items <a_0>", "é items <a_0>")
        path.write_text(text, encoding="utf-8")
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(UserError, match=r"line \d+: not (UTF-8|user, movie).*(LATIN1|can't decode)"):
        sequences(build, written)


# Ids

IDS = {
    "spaces": "Captain Haddock",
    "leading zeros": "007",
    "emoji": "\N{BALLOON}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}",
    "right to left": "\u05e9\u05dc\u05d5\u05dd\u200f",
    "quotes and commas": "O'Neil",
    "not a name": "nan",
    "percent and backslash": "%d\\n",
}
SPACED = (as_rows_inter, as_sequences_txt)  # spaces separate ids there


@pytest.mark.parametrize("form", IDS)
@pytest.mark.parametrize("write", [*READERS[:-1], as_parquet, as_amazon_2023], ids=lambda write: write.__name__)
def test_ids_of_every_kind_stay_as_they_are(build, tmp_path, write, form):
    name = IDS[form]
    if form == "spaces" and write in SPACED:
        name = "Captain\u00a0Haddock\u2028"[:-1]  # a space that separates nothing
    factor = 1000 if write is as_amazon_2023 else 1
    rows = [(name, item, SECONDS[item] * factor) for item in "dbac"]
    check(RIGHT, build, write(tmp_path, rows), {name: list("abcd")})


NO_IDS = {
    "tab": ("a\tb", "control character"),
    "line end": ("a\nb", "control character"),
    "line separator": ("a\u2028b", "control character"),
    "half a character": ("a\ud800", "half a character"),
    "empty": ("", "empty"),
    "blank": ("  ", "empty"),
}


@pytest.mark.parametrize("form", NO_IDS)
@pytest.mark.parametrize("write", [as_jsonl, as_sequences_json, as_amazon_2018], ids=lambda write: write.__name__)
def test_ids_that_cannot_stand_in_a_line_are_refused(build, tmp_path, write, form):
    name, cell = NO_IDS[form]
    check(cell, build, write(tmp_path, [*events(int), *((name, item, SECONDS[item]) for item in "abcd")]))


def test_an_id_with_a_tab_or_line_end_in_a_quoted_field_is_refused(build, tmp_path):
    for name in ('"a\tb"', '"a\nb"'):
        check(
            "user of interaction 9.*control character",
            build,
            as_csv(tmp_path, [*events(int), (name, "a", 1_467_331_200)]),
        )


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("write", [as_jsonl, as_parquet], ids=lambda write: write.__name__)
def test_missing_values_are_refused_with_their_row(build, tmp_path, write, column, value):
    row = ["Ann", "a", 1_467_331_200]
    row[column] = value
    rows = [(1, 2, second) for _, _, second in events(int)] if column < 2 else events(int)  # one type in a column
    row = [1 if part == "Ann" else 2 if part == "a" else part for part in row] if column < 2 else row
    if write is as_parquet and value is not None:
        rows = [tuple(float(part) if place == column else part for place, part in enumerate(one)) for one in rows]
    check(
        "column '[uit]'.*(empty|is not a finite number)|row 9.*not a finite number",
        build,
        write(tmp_path, [*rows, tuple(row)]),
    )


def test_an_empty_field_of_a_csv_is_refused_and_a_blank_line_is_not(build, tmp_path):
    for row in ((",a,1467331200"), ("Ann,,1467331200"), ("Ann,a,")):
        written = as_csv(tmp_path, events(int))
        written[0][0].write_text(written[0][0].read_text() + row + "\n")
        check("is empty in 1 rows, the first of them row 9; fill them in", build, written)
    written = as_csv(tmp_path, events(int))
    written[0][0].write_text("\n" + written[0][0].read_text().replace("\n", "\n\n"))
    check(RIGHT, build, written)


# Columns and texts


@pytest.mark.parametrize("mark", [";", "|", "\t", "^", " "])
def test_separators_of_every_kind(build, tmp_path, mark):
    written = as_csv(tmp_path, events(int), mark)
    check(RIGHT, build, written, separator=mark)
    if mark in ";|\t":
        with pytest.raises(UserError, match="no column 'u', 'i', 't'; .*" + re.escape(f"give --separator {mark!r}")):
            sequences(build, written)


def test_a_separator_of_two_characters_is_refused_with_the_remedy(build, tmp_path):
    written = as_csv(tmp_path, events(int), "::")
    check("--separator takes one character, found '::'; .*such as a tab", build, written, separator="::")
    check(RIGHT, build, as_csv(tmp_path, events(int), "\t"), separator="\\t")  # as a shell passes '\t' on


def test_quoted_fields_may_hold_line_ends_and_separators(build, tmp_path):
    lines = ['u,i,"t",words'] + [f'{u},{i},{t},"good,\nbut ""small"""' for u, i, t in events(int)]
    for end in ("\n", "\r\n"):
        (tmp_path / "log.csv").write_bytes((end.join(lines) + end).encode())
        out = build([tmp_path / "log.csv"], columns=Columns(**(vars(NAMES) | {"review_column": "words"})),
                    source="table", split="leave_one_out")  # fmt: skip
        assert out.sequences == {"0": [0, 1, 2, 3], "1": [0, 1, 2, 3]}
        assert {entry["review"] for entry in out.reviews.values()} == {'good, but "small"'}


def test_one_bad_time_among_many_is_the_one_that_is_named(build, tmp_path):
    rows = [("Ann", "a", 1_000_000_000 + n) for n in range(600)] + [("Ann", "b", "soon")]
    check("row 601: 'soon' in column 't' is not a time", build, as_csv(tmp_path, rows))
    rows = [("Ann", "a", f"2016-10-03 12:00:{n % 60:02}") for n in range(600)] + [("Ann", "b", 5)]
    check("row 601: '5' in column 't' is not a time", build, as_csv(tmp_path, rows))


def test_dates_of_a_column_are_read_by_one_rule(build, tmp_path, caplog):
    """1/25/2018 can be month first alone, so 2/1/2018 is in February. Rows that contradict each other are refused."""
    rows = [("Ann", "b", "2/1/2018"), ("Ann", "a", "1/25/2018"), ("Ann", "c", "3/2/2018"), ("Ann", "d", "4/2/2018")]
    check(RIGHT, build, as_csv(tmp_path, rows), {"Ann": list("abcd")})
    assert "read month first, as '1/25/2018' (row 2) shows" in caplog.text
    rows.append(("Ann", "e", "31/1/2018"))
    check("'31/1/2018' .row 5., which is day first, and '1/25/2018' .row 2.", build, as_csv(tmp_path.parent, rows))


@pytest.mark.parametrize("value", ["five", "1e999", {"stars": 5}])
def test_a_rating_that_is_no_number_is_refused_with_its_row(build, tmp_path, value):
    records = [{"u": u, "i": i, "t": t, "r": 4} for u, i, t in events(int)]
    records[3]["r"] = value
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    columns = Columns(**(vars(NAMES) | {"rating_column": "r"}))
    with pytest.raises(UserError, match="row 4: .* in column 'r' is no rating"):
        build([tmp_path / "log.jsonl"], columns=columns, source="table", split="leave_one_out")


def test_missing_ratings_are_none_whatever_says_so(build, tmp_path):
    for value in (None, float("nan"), "NaN", "", " "):
        records = [{"u": u, "i": i, "t": t, "r": 4} for u, i, t in events(int)]
        records[0]["r"] = value
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        columns = Columns(**(vars(NAMES) | {"rating_column": "r"}))
        out = build([tmp_path / "log.jsonl"], columns=columns, source="table", split="leave_one_out", min_rating=1.0)
        assert out.counts["dropped_rated_low"] == 1


def test_movielens_without_ratings_is_not_told_of_a_column(build, tmp_path):
    (tmp_path / "u.data").write_text("".join(f"{u}\t{i}\tnan\t{t}\n" for u, i, t in events(int)))
    with pytest.raises(UserError, match="--min_rating is set, and no interaction has a rating; leave it out"):
        build([tmp_path / "u.data"], source="movielens", min_rating=1.0)


def test_nested_and_missing_texts(build, tmp_path):
    """A list beside a text, NaN in a list, half a character: no value changes another, none becomes a word."""
    files, flags, columns = as_jsonl(tmp_path, events(int))
    things = [
        {
            "i": "a",
            "title": "A\ud83d",
            "about": ["big", None, float("nan"), ["red", "hot"]],
            "tags": [["x"], ["y", "x"]],
        },
        {"i": "b", "title": "B", "about": "one text", "tags": ["x", "z"]},
        {"i": "c", "title": "C", "about": float("nan"), "tags": None},
        {"i": "d", "title": "D", "about": {"size": "10 cm", "set": ["d", 5]}, "tags": "x"},
    ]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(thing) + "\n" for thing in things))
    names = {"title_column": "title", "description_column": "about", "category_column": "tags"}
    out = build(files, [tmp_path / "things.jsonl"], columns=Columns(**(vars(columns) | names)),
                split="leave_one_out", **flags)  # fmt: skip
    found = [(item["title"], item["description"], item["categories"]) for item in out.items.values()]
    assert found == [
        ("A\ufffd", "big red hot", "x, y"),
        ("B", "one text", "x, z"),
        ("C", "", ""),
        ("D", "10 cm d 5", "x"),
    ]
    assert out.counts["lines_with_half_a_character"] == 1


def test_lists_of_a_parquet_are_texts(build, tmp_path):
    files, flags, columns = as_parquet(tmp_path, events(int))
    things = {"i": list("abcd"), "title": list("ABCD"), "tags": [["x", None], [], None, ["y", "x"]]}
    pl.DataFrame(things).write_parquet(tmp_path / "things.parquet")
    names = vars(columns) | {"title_column": "title", "category_column": "tags"}
    out = build(files, [tmp_path / "things.parquet"], columns=Columns(**names), split="leave_one_out", **flags)
    assert [item["categories"] for item in out.items.values()] == ["x", "", "", "y, x"]


def test_ids_of_json_keep_their_spelling_whatever_stands_beside_them(build, tmp_path):
    names = [1, "01", 2.5, 10**25, 2**63]
    rows = [(name, item, SECONDS[item]) for name in names for item in "abcd"]
    found = sequences(build, as_jsonl(tmp_path, rows))
    assert list(found) == ["1", "01", "2.5", str(10**25), str(2**63)]
