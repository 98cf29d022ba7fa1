"""Amazon reviews and metadata of 2014, 2018 and 2023, one record a line. Which year a line is from, its keys tell.

    reviews   2014, 2018   reviewerID asin unixReviewTime (seconds) overall reviewText summary
              2023         user_id parent_asin timestamp (milliseconds) rating text title
    items     2014         asin title description brand categories (list of lists)
              2018         asin title description (list) brand category (list)
              2023         parent_asin title description (list) store categories (list)

Sources: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html, https://nijianmo.github.io/amazon/,
https://amazon-reviews-2023.github.io/. Times are read from the integers, never from the local calendar. A file of the
same kind with other names or another unit of time is read by --source table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Item, Log, events_from_rows, one_rating
from mimigenrec.interactions.item_texts import ItemTexts, clean_text
from mimigenrec.interactions.json_lines import BadLines, read_records
from mimigenrec.interactions.names import is_id, why_no_id
from mimigenrec.interactions.times import EARLY, check_early, one_ms


class Review(NamedTuple):
    user: str
    item: str
    time: int  # ms
    rating: float | None
    text: Any
    summary: Any


def read_amazon(reviews: list[Path], items: list[Path], bad: BadLines) -> Log:
    notes: dict[str, int] = {}
    events = events_from_rows(review[:4] for review in read_reviews(reviews, bad))
    if len(events.frame):
        check_early(events.frame["time"], events.frame["time"] // 1000, "s", reviews[0])

    def read_texts() -> Iterator[tuple[str, str]]:
        again = BadLines(bad.limit)  # the same lines are bad the second time
        for review in read_reviews(reviews, again):
            yield clean_text(review.text), clean_text(review.summary)

    def texts(wanted: set[str] | None) -> dict[str, Item]:
        return read_items(items, wanted, notes, bad)

    return Log(events, texts, read_texts, [*reviews, *items], notes)


def read_reviews(paths: list[Path], bad: BadLines) -> Iterator[Review]:
    """A line without user, item or time is bad; a missing rating or text is none."""
    for path in paths:
        for number, line, record in read_records(path, bad):
            try:
                yield to_review(record)
            except KeyError as error:
                bad.add(path, number, line, f"not a review: it has no {error}; --source table reads other names")
            except UserError as error:
                bad.add(path, number, line, f"not a review: {error}")


def to_review(record: dict[str, Any]) -> Review:
    if "reviewerID" in record:
        user, item, time = record["reviewerID"], record["asin"], record["unixReviewTime"]
        time = one_ms(time, "s", "unixReviewTime")
        rating, text, summary = record.get("overall"), record.get("reviewText"), record.get("summary")
    else:
        user, item, time = record["user_id"], record.get("parent_asin") or record["asin"], record["timestamp"]
        time = one_ms(time, "ms", "timestamp")
        if 0 < time < EARLY * 1000:
            raise UserError(f"timestamp {record['timestamp']} is in 1970 if it is milliseconds, as those of 2023 are; "
                            f"read seconds by --source table --time_unit s")  # fmt: skip
        rating, text, summary = record.get("rating"), record.get("text"), record.get("title")
    for name in (user, item):
        if not is_id(name):
            raise UserError(why_no_id(name))
    return Review(user, item, time, one_rating(rating), text, summary)


def read_items(paths: list[Path], wanted: set[str] | None, notes: dict[str, int], bad: BadLines) -> dict[str, Item]:
    found = ItemTexts(wanted, notes)
    for path in paths:
        for number, line, record in read_records(path, bad):
            name = record.get("parent_asin") or record.get("asin")
            if not isinstance(name, str):
                bad.add(path, number, line, "an item without a text as asin or parent_asin")
                continue
            categories = record.get("category") or record.get("categories") or record.get("main_category")
            brand = record.get("brand") or record.get("store")
            found.add(name, record.get("title"), record.get("description"), brand, categories)
    return found.items
