"""Events -> sequences: who is left, who is number 0, and what each user had, oldest first.

Rules, in this order, each counted:
1. an event outside [since, until) is left out; with min_rating, so is one rated below it or not rated;
2. so is one whose item has no text that --require_title and --max_title_words accept;
3. duplicates: `keep` all lines; `exact` keeps the first line of a user, item and time; `first` and `last` keep a
   user's first or last event with an item;
4. k-core.
A user's events are ordered by time. What happens in the same instant stays in the order of the source's lines
(ties: line), or is put in an order drawn with the seed (ties: shuffle): Amazon's times are whole days, and the order
of lines may say more than a recommender could know.
Users are numbered in the order of their first line that is left; items as they first come when the users' sequences
are read one after the other, user 0 first.
"""

from dataclasses import dataclass

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import Events, pl
from mimigenrec.interactions.kcore import k_core

RULES = {  # what counts call a rule -> the flags that set it
    "before_since": "--since",
    "from_until_on": "--until",
    "rated_low": "--min_rating",
    "without_item_text": "the rule that an item needs a title (--items, --require_title, --max_title_words)",
    "k_core": "the k-core of --user_k and --item_k",
}


@dataclass
class Sequences:
    """All events that are left, sorted by user, then time. n events, U users."""

    user: np.ndarray  # (n,) int32, ascending
    item: np.ndarray  # (n,) int32
    time: np.ndarray  # (n,) int64, ms
    line: np.ndarray  # (n,) place in the source
    start: np.ndarray  # (U + 1,) where each user's events begin; start[U] = n
    users: list[str]  # raw name by number
    items: list[str]


@dataclass
class Rules:
    since: int | None = None  # ms, first instant that counts
    until: int | None = None  # ms, first instant that does not
    min_rating: float | None = None
    items: set[str] | None = None  # raw ids that may stay; None: all
    duplicates: str = "keep"
    user_k: int = 0
    item_k: int = 0
    ties: str = "line"
    seed: int = 0


def make_sequences(events: Events, rules: Rules, counts: dict[str, int]) -> Sequences:
    """counts gets how many events each rule left out. Raises UserError if nothing is left, naming the last rule."""
    frame = events.frame
    _count(counts, "read", frame)

    def keep(rule: str, condition: pl.Expr) -> None:
        nonlocal frame
        before = len(frame)
        frame = frame.filter(condition)
        counts[f"dropped_{rule}"] = before - len(frame)
        if before and not len(frame):
            raise UserError(f"no interaction is left: {RULES[rule]} dropped the last {before:,}; ease that")

    if not len(frame):
        raise UserError("the files of --interactions hold no interaction; give others, or another --source")
    if rules.since is not None:
        keep("before_since", pl.col("time") >= rules.since)
    if rules.until is not None:
        keep("from_until_on", pl.col("time") < rules.until)
    if rules.min_rating is not None:
        if events.frame["rating"].null_count() == len(events.frame):
            raise UserError(
                "--min_rating is set, and no interaction has a rating; leave it out, or name the --rating_column of a "
                "--source table"
            )
        keep("rated_low", pl.col("rating") >= rules.min_rating)
    if rules.items is not None:
        allowed = np.fromiter((name in rules.items for name in events.items), bool, len(events.items))
        keep("without_item_text", pl.lit(pl.Series(allowed[frame["item"].to_numpy()])))
    frame = _drop_duplicates(frame, rules.duplicates, counts)
    stays, counts["k_core_rounds"] = k_core(
        frame["user"].to_numpy(), frame["item"].to_numpy(), rules.user_k, rules.item_k
    )
    keep("k_core", pl.lit(pl.Series(stays)))
    return _number(frame, events, rules, counts)


def _drop_duplicates(frame: pl.DataFrame, rule: str, counts: dict[str, int]) -> pl.DataFrame:
    before = len(frame)
    if rule == "exact":
        frame = frame.unique(["user", "item", "time"], keep="first", maintain_order=True)
    elif rule in ("first", "last"):
        ordered = frame.sort("time", "line")
        frame = ordered.unique(["user", "item"], keep=rule, maintain_order=True).sort("line")
    counts["dropped_duplicates"] = before - len(frame)
    return frame


def _number(frame: pl.DataFrame, events: Events, rules: Rules, counts: dict[str, int]) -> Sequences:
    user, user_names = renumber(frame["user"].to_numpy(), events.users)
    frame = frame.with_columns(pl.Series("user", user))
    tie = "line"
    if rules.ties == "shuffle":
        tie = "tie"
        frame = frame.with_columns(pl.Series(tie, np.random.default_rng(rules.seed).permutation(len(frame))))
    frame = frame.sort("user", "time", tie)
    item, item_names = renumber(frame["item"].to_numpy(), events.items)
    user, time = frame["user"].to_numpy(), frame["time"].to_numpy()
    start = np.searchsorted(user, np.arange(len(user_names) + 1))
    counts["same_instant_as_the_one_before"] = int(((np.diff(user) == 0) & (np.diff(time) == 0)).sum())
    _count(counts, "left", frame)
    return Sequences(user, item, time, frame["line"].to_numpy(), start, user_names, item_names)


def renumber(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Codes in the order in which they first come, and the names in that order."""
    first = np.full(len(names), len(codes), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # the last write to a place is its first occurrence
    order = np.argsort(first, kind="stable")[: int((first < len(codes)).sum())]
    new = np.full(len(names), -1, dtype=np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    return new[codes], [names[code] for code in order]


def _count(counts: dict[str, int], when: str, frame: pl.DataFrame) -> None:
    counts[f"interactions_{when}"] = len(frame)
    counts[f"users_{when}"] = frame["user"].n_unique()
    counts[f"items_{when}"] = frame["item"].n_unique()
