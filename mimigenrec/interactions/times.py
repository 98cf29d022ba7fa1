"""Times of any spelling -> milliseconds since 1970-01-01 UTC, exact to the millisecond and cut off below it.

    numbers   of --time_unit s, ms, us or ns since 1970 UTC, as integers, floats or texts. Integers and texts of whole
              numbers are never made floats, so nanoseconds keep their order; events of one millisecond stay in the
              order of their lines
    ISO       2016-10-03, 2016-10-03T12:00:00.5, with a space for T, with Z or +02:00; UTC where there is no offset
    others    Fri Jul 14 09:00:00 -0700 2017 (Goodreads) is known; the rest by --time_format, a strptime format
    dates     of a Parquet file; UTC where they have no zone

One rule holds for a whole column, never for a row of its own. 1/12/2018 can be January or December: if a day above 12
decides and no other row contradicts it, the column is read that way, and a line says so. Otherwise it is refused.

What cannot be true is refused:
  - a time before 1900 or from 2100 on. A unit that is too small by a factor of 1000 lands in the year 40,000 or so.
    The bound is fixed, so that a file gives the same result on every day and on a machine whose clock is wrong
  - a column that lies in 1970 as a whole, where a unit that is too large lands, since different days would become one
    instant. Seconds are the exception: 0, 1, 2, ... may be a mere order, and a warning is enough. If that order has
    steps below a thousandth, as days and fractions of days have, it would be lost and is refused
  - years of two digits without --time_format
A column of which only a part lies before 1971 (0 and -1 often stand for a missing time) gets a warning with the count.
"""

import logging
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import pl

log = logging.getLogger(__name__)

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
FIRST, EARLY, LAST = -2_208_988_800, 31_536_000, 4_102_444_800  # seconds: 1900, 1971, 2100
LIKELY = 631_152_000  # seconds: 1990
ISO = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
ISO += [f"{form}%#z" for form in ISO if "H" in form]  # Z, +02, +0200, +02:00
GOODREADS = "%a %b %d %H:%M:%S %z %Y"
DAY_AND_MONTH = (
    r"^(\d{1,2})([/.-])(\d{1,2})([/.-])(\d{4}|\d{2})(?:([ T,]+)(\d{1,2}:\d{2})(:\d{2})?(\.\d+)?( ?[AaPp][Mm])?)?$"
)
MONTHS = "January February March April May June July August September October November December".split()


def read_times(time: pl.Series, unit: str, path: Any, form: str | None = None) -> pl.Series:
    """to_ms, refusing a column that cannot be true as a whole; see the module."""
    ms = to_ms(time, unit, path, form)
    numbers = form is None and len(time) > 0 and _numbers(time.head(1)) is not None
    check_early(ms, time, unit if numbers else None, path)
    return ms


def to_ms(time: pl.Series, unit: str, path: Any, form: str | None = None) -> pl.Series:
    """(n,) Int64. time: no nulls. path: named in errors. Raises UserError for the first row that is no time."""
    numbers = None if form else _numbers(time)
    if numbers is not None:
        return _from_numbers(numbers, time, unit, path)
    if form:
        ms = _by_format(time, form, path)
    elif time.dtype == pl.String:
        ms = _from_texts(time, path)
    elif time.dtype == pl.Date or time.dtype == pl.Datetime:
        ms = time.cast(pl.Datetime("ms", getattr(time.dtype, "time_zone", None))).dt.epoch("ms")
    else:
        raise UserError(
            f"{path}: column {time.name!r} holds {time.dtype}, found {time[0]!r:.80}; a time is a number, a text or a "
            f"date"
        )
    outside = (ms < FIRST * 1000) | (ms >= LAST * 1000)
    if outside.any():
        row = outside.arg_max()
        raise UserError(
            f"{path}: row {row + 1}: {_shown(time[row])} in column {time.name!r} lies in the year {_year(ms[row])}, "
            f"not from 1900 to 2099; mend it, or give the right --time_format"
        )
    return ms


def one_ms(value: Any, unit: str, name: str) -> int:
    """One time of a source whose unit is known, as a number or the text of one. Raises UserError."""
    per_second = PER_SECOND[unit]
    if type(value) is int and 0 <= value < LAST * per_second:  # most of them
        return value * 1000 // per_second
    try:
        number = value if type(value) is int else int(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None:
        try:
            number = float(value) if isinstance(value, (float, str)) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{name} is {value!r:.80}, not a time; it must be a number of {UNITS[unit]} since 1970 UTC"
            )
    if not FIRST * per_second <= number < LAST * per_second:
        raise UserError(f"{name} {value!r:.80} cannot be {UNITS[unit]}{_remedy(number, number)}")
    if type(number) is int:
        return number * 1000 // per_second
    return round(number * (1_000_000 / per_second)) // 1000


def check_early(ms: pl.Series, time: pl.Series, unit: str | None, path: Any) -> None:
    """Refuses, or warns of, times before 1971. unit: None for dates. time: what the column holds, for the message."""
    early = ms < EARLY * 1000
    if not early.any():
        return
    if not early.all():
        row = early.arg_max()
        log.warning(
            "%s: %s of %s times lie before 1971, the first of them in row %s: %s. If it stands for a missing time, "
            "leave these rows out",
            path, f"{early.sum():,}", f"{len(ms):,}", row + 1, _shown(time[row]),
        )  # fmt: skip
        return
    if unit is None:
        raise UserError(
            f"{path}: all dates of column {time.name!r} lie before 1971, the first is {_shown(time[0])}; they look "
            f"like numbers that were turned into dates by the wrong unit. Take the numbers and name their --time_unit"
        )
    low, high = _bounds(time)
    if unit != "s":
        raise UserError(
            f"{path}: all times of column {time.name!r} lie before 1971 if they are {UNITS[unit]}, the first is "
            f"{time[0]!r}{_remedy(low, high)}"
        )
    if _is_date(low) and _is_date(high):
        raise UserError(
            f"{path}: the times of column {time.name!r} look like dates, the first is {time[0]!r}, and would be read "
            f"as seconds since 1970; give --time_format '%Y%m%d' (of --source table, recbole or rows)"
        )
    if _numbers(time).n_unique() > ms.n_unique():
        raise UserError(
            f"{path}: the times of column {time.name!r} are no seconds since 1970 ({low} to {high}), and as an order "
            f"they have steps below a thousandth, which would be lost; multiply them, or write dates"
        )
    log.warning(
        "%s: all times of column %r lie before 1971 (%s to %s); they are taken as an order, not as dates",
        path, time.name, low, high,
    )  # fmt: skip


def _bounds(time: pl.Series) -> tuple[float, float]:
    numbers = _numbers(time)
    return numbers.min(), numbers.max()


def _remedy(low: float, high: float) -> str:
    """What numbers from low to high may be instead, as the end of a message."""
    for unit, per_second in PER_SECOND.items():
        if LIKELY * per_second <= low and high < LAST * per_second:
            return f"; if these are {UNITS[unit]}, give --time_unit {unit} (of --source table, recbole or rows)"
    for digits, form in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):
        if all(len(str(int(value))) == digits and _is_date(int(str(int(value))[:8])) for value in (low, high)):
            return f"; if these are dates, give --time_format '{form}' (of --source table, recbole or rows)"
    return "; mend it, or name its unit with --time_unit s, ms, us or ns (of --source table, recbole or rows)"


def _is_date(number: float) -> bool:
    """Whether a number is one such as 20170103."""
    try:
        return 1990 <= datetime.strptime(str(int(number)), "%Y%m%d").year < 2100
    except ValueError:
        return False


def _numbers(time: pl.Series) -> pl.Series | None:
    """The column as Int64, UInt64 or Float64, None if it holds no numbers; texts only if all are numbers."""
    if time.dtype == pl.String:
        text = time.str.strip_chars()
        for kind in (pl.Int64, pl.Float64):
            numbers = text.cast(kind, strict=False)
            if numbers.null_count() == 0:
                return numbers
        return None
    if time.dtype.is_integer():
        return time if time.dtype in (pl.UInt64, pl.Int128) else time.cast(pl.Int64)
    if time.dtype.is_decimal():
        return time.cast(pl.Int64 if time.dtype.scale == 0 else pl.Float64)
    return time.cast(pl.Float64) if time.dtype.is_float() else None


def _from_numbers(numbers: pl.Series, time: pl.Series, unit: str, path: Any) -> pl.Series:
    """numbers: the values of `time`, whose own spelling is for the message."""
    if numbers.dtype == pl.Float64 and not numbers.is_finite().all():
        row = (~numbers.is_finite()).arg_max()
        raise UserError(
            f"{path}: row {row + 1}: {time[row]!r} in column {time.name!r} is not a finite number; mend it, or leave "
            f"the row out"
        )
    per_second = PER_SECOND[unit]
    low, high = FIRST * per_second, LAST * per_second
    if len(numbers) and not (
        low <= numbers.min() and numbers.max() < high
    ):  # compared in Python, which never overflows
        row = numbers.arg_max() if numbers.max() >= high else numbers.arg_min()
        raise UserError(
            f"{path}: row {row + 1}: {time[row]!r} in column {time.name!r} cannot be {UNITS[unit]} since 1970: it "
            f"would lie {'after 2099' if numbers[row] > 0 else 'before 1900'}{_remedy(numbers[row], numbers[row])}"
        )
    if numbers.dtype == pl.Float64:
        return (numbers * (1_000_000 / per_second)).round().cast(pl.Int64) // 1000
    numbers = numbers.cast(pl.Int64)
    return numbers * (1000 // per_second) if per_second <= 1000 else numbers // (per_second // 1000)


def _by_format(time: pl.Series, form: str, path: Any) -> pl.Series:
    if "%Z" in form:
        raise UserError("--time_format: %Z, the name of a zone, is not read; take %z for +0200, or write UTC as it is")
    if "%f" in form.replace(".%f", ""):
        raise UserError("--time_format: %f is read behind a full stop alone, as in %S.%f")
    if time.dtype.is_float() and (time == time.round()).all():
        time = time.cast(pl.Int64)
    if not (time.dtype == pl.String or time.dtype.is_integer()):
        raise UserError(
            f"{path}: column {time.name!r} holds {time.dtype}, and --time_format reads texts; leave --time_format out"
        )
    text = time.cast(pl.String).str.strip_chars()
    try:
        ms = _parse(text, form)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"--time_format {form!r} is no format of a date: {first_line(error)}") from error
    if ms.null_count():
        row = ms.is_null().arg_max()
        raise UserError(
            f"{path}: row {row + 1}: {time[row]!r} in column {time.name!r} is not a time of the form --time_format "
            f"{form!r}; mend the row or the format"
        )
    return ms


def _parse(text: pl.Series, form: str) -> pl.Series:
    """(n,) Int64 ms, null where the text is of another form."""
    return text.str.to_datetime(form.replace(".%f", "%.f"), time_unit="ms", strict=False).dt.epoch("ms")


def _from_texts(time: pl.Series, path: Any) -> pl.Series:
    text = time.str.strip_chars()
    ms = _iso(text)
    if not ms.null_count():
        return ms
    if (goodreads := _parse(text, GOODREADS)).null_count() == 0:
        return goodreads
    day_and_month = text.str.contains(DAY_AND_MONTH)
    if day_and_month.all():
        return _day_and_month(text, path)
    known = max(text.cast(pl.Float64, strict=False).is_not_null(), ms.is_not_null(), day_and_month, key=pl.Series.sum)
    row = (~known).arg_max()  # the first row that is not what most rows are
    raise UserError(
        f"{path}: row {row + 1}: {time[row]!r} in column {time.name!r} is not a time; write 2016-10-03T12:00, or say "
        f"what it is, as in --time_format '%d %b %Y %H:%M'"
    )


def _iso(text: pl.Series) -> pl.Series:
    """(n,) Int64 ms, null where the text is no ISO time. Year first with / or . counts as well, and UTC for Z."""
    first = next((form for form in ISO if _parse(text.head(1), form).null_count() == 0), ISO[0])
    ms = _parse(text, first)
    for form in ISO:
        if form != first and ms.null_count():
            ms = _filled(ms, _parse(text, form))
    if ms.null_count():
        plain = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3").str.replace(" ?(UTC|GMT)$", "Z")
        if (plain != text).any():
            return _filled(ms, _iso(plain))
    return ms


def _filled(ms: pl.Series, others: pl.Series) -> pl.Series:
    return ms.zip_with(ms.is_not_null(), others)


def _day_and_month(text: pl.Series, path: Any) -> pl.Series:
    """1/12/2018 8:26 and the like, by the one reading under which every row is a date."""
    first, second, year = (text.str.extract(DAY_AND_MONTH, group) for group in (1, 3, 5))
    if (short := year.str.len_bytes() == 2).any():
        row = short.arg_max()
        forms = [_format(text[row], day_first) for day_first in (False, True)]
        raise UserError(
            f"{path}: row {row + 1}: {text[row]!r} in column {text.name!r} has a year of two digits; give "
            f"--time_format '{forms[0]}' (month first), '{forms[1]}' (day first) or another"
        )
    first, second = first.cast(pl.Int64), second.cast(pl.Int64)
    day_first, month_first = first > 12, second > 12
    if day_first.any() and month_first.any():
        rows = [int(which.arg_max()) for which in (day_first, month_first)]
        raise UserError(
            f"{path}: column {text.name!r} holds {text[rows[0]]!r} (row {rows[0] + 1}), which is day first, and "
            f"{text[rows[1]]!r} (row {rows[1] + 1}), which is month first; write them alike"
        )
    decided = day_first | month_first
    if decided.any():
        row = decided.arg_max()
        form = _format(text[row], day_first[row])
        order = "day" if day_first[row] else "month"
        log.warning("%s: column %r is read %s first, as %r (row %s) shows", path, text.name, order, text[row], row + 1)
    elif (first == second).all():
        form = _format(text[0], True)  # 3/3/2018 is one day either way
    else:
        row = (first != second).arg_max()
        a, b = first[row], second[row]
        raise UserError(
            f"{path}: row {row + 1}: {text[row]!r} in column {text.name!r} is {b} {MONTHS[a - 1]} {year[row]} if the "
            f"month comes first, and {a} {MONTHS[b - 1]} {year[row]} if the day does, and no row decides; give "
            f"--time_format '{_format(text[row], False)}' or --time_format '{_format(text[row], True)}'"
        )
    ms = _parse(text, form)
    if ms.null_count():
        row = ms.is_null().arg_max()
        raise UserError(
            f"{path}: row {row + 1}: {text[row]!r} in column {text.name!r} is not of the form {form!r} of other rows; "
            f"write them alike, or give --time_format"
        )
    return ms


def _format(sample: str, day_first: bool) -> str:
    """The strptime format of a text that DAY_AND_MONTH matches."""
    _, one, _, two, year, gap, clock, seconds, fraction, half = re.match(DAY_AND_MONTH, sample).groups()
    form = f"%d{one}%m{two}" if day_first else f"%m{one}%d{two}"
    form += "%Y" if len(year) == 4 else "%y"
    if clock:
        form += f"{gap}{'%I' if half else '%H'}:%M" + ":%S" * bool(seconds) + ".%f" * bool(fraction)
        form += f"{' ' * half.startswith(' ')}%p" if half else ""
    return form


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else str(value)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def as_text(ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")


def _year(ms: int) -> int:
    """Roughly, and for years that no calendar of ours has."""
    return 1970 + ms // 31_556_952_000
