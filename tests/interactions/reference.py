"""What `mimigenrec interactions` should write, in plain Python: docs/interactions.md, rule by rule, no package code.

A log is a list of events in the order of the source's lines. Speed is of no interest here.
"""

from collections import Counter
from typing import Any, NamedTuple

SPLITS = ("train", "valid", "test")


class Event(NamedTuple):
    user: str
    item: str
    time: int  # ms
    rating: float | None
    review: str  # plain text


class Row(NamedTuple):
    user: str
    history: tuple[str, ...]
    target: str
    place: int  # of the target among the user's events
    time: int


def events_left(log: list[Event], rules: Any, titles: dict[str, str] | None) -> tuple[list[Event], dict[str, int]]:
    """Rules 1 to 4, and how many events each left out. titles: plain title by item, None without --items."""
    counts: dict[str, int] = {}

    def keep(rule: str, condition) -> None:
        nonlocal log
        counts[f"dropped_{rule}"] = len(log)
        log = [event for event in log if condition(event)]
        counts[f"dropped_{rule}"] -= len(log)

    if rules.since is not None:
        keep("before_since", lambda e: e.time >= rules.since)
    if rules.until is not None:
        keep("from_until_on", lambda e: e.time < rules.until)
    if rules.min_rating is not None:
        keep("rated_low", lambda e: e.rating is not None and e.rating >= rules.min_rating)
    if titles is not None and (rules.require_title or rules.max_title_words):
        most = rules.max_title_words or 10**9
        least = 1 if rules.require_title else 0
        keep("without_item_text", lambda e: least <= len(titles.get(e.item, "").split()) <= most)
    before = len(log)
    log = without_duplicates(log, rules.duplicates)
    counts["dropped_duplicates"] = before - len(log)
    before = len(log)
    log = k_core(log, rules.user_k, rules.item_k)
    return log, counts | {"dropped_k_core": before - len(log)}


def without_duplicates(log: list[Event], how: str) -> list[Event]:
    """Of equal events the first line stays with "exact"; "first" and "last" go by time, then line."""
    if how == "keep":
        return log
    lines = list(range(len(log)))
    if how in ("first", "last"):
        lines.sort(key=lambda line: (log[line].time, line), reverse=how == "last")
    chosen: dict[Any, int] = {}
    for line in lines:
        event = log[line]
        chosen.setdefault((event.user, event.item) + ((event.time,) if how == "exact" else ()), line)
    return [log[line] for line in sorted(chosen.values())]


def k_core(log: list[Event], user_k: int, item_k: int) -> list[Event]:
    while True:
        users, items = Counter(e.user for e in log), Counter(e.item for e in log)
        left = [e for e in log if users[e.user] >= user_k and items[e.item] >= item_k]
        if left == log:
            return log
        log = left


def in_sequences(log: list[Event]) -> dict[str, list[Event]]:
    """Users as they first come; the events of each by time, those of one instant in the order of lines."""
    sequences: dict[str, list[Event]] = {}
    for event in log:
        sequences.setdefault(event.user, []).append(event)
    return {user: sorted(events, key=lambda e: e.time) for user, events in sequences.items()}


def in_splits(sequences: dict[str, list[Event]], rules: Any) -> dict[str, list[Row]]:
    """Every event of a user but the first is a row. Users in order, a user's rows oldest first, unless by time."""
    parts: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for user, events in sequences.items():
        for place in range(1, len(events)):
            history = tuple(e.item for e in events[max(0, place - rules.history) if rules.history else 0 : place])
            row = Row(user, history, events[place].item, place, events[place].time)
            left = len(events) - place if rules.split == "leave_one_out" else 3
            parts[{1: "test", 2: "valid"}.get(left, "train")].append(row)
    if rules.split == "time":
        rows = sorted(parts["train"], key=lambda row: row.time)
        first, second = (len(rows) * sum(rules.ratio[:n]) // sum(rules.ratio) for n in (1, 2))
        parts = {"train": rows[:first], "valid": rows[first:second], "test": rows[second:]}
    return parts


def leakage(parts: dict[str, list[Row]]) -> dict[str, float]:
    """What interactions/leakage.py says it counts. In train: targets and histories of its rows."""
    train, test = parts["train"], parts["test"]
    items = {item for row in train for item in (*row.history, row.target)}
    new = [row.target for row in test if row.target not in items]
    counts = {
        "targets_in_train_histories": 0,
        "train_rows_after_first_test": sum(row.time > min(other.time for other in test) for row in train),
        "items_only_in_test": len(set(new)),
        "test_rows_of_those_items": len(new),
        "users_only_in_test": len({row.user for row in test} - {row.user for row in train}),
        "targets_in_own_history": sum(row.target in row.history for row in test),
    }
    for other in ("train", "valid"):
        histories = {row.history for row in parts[other]}
        both = {(row.history, row.target) for row in parts[other]}
        counts[f"same_history_as_{other}"] = sum(row.history in histories for row in test)
        counts[f"same_history_and_target_as_{other}"] = sum((row.history, row.target) in both for row in test)
    best: dict[tuple[str, ...], int] = {}
    for (history, _), count in Counter((row.history, row.target) for row in test).items():
        best[history] = max(best.get(history, 0), count)
    return counts | {"best_hr1": round(sum(best.values()) / len(test), 6)}
