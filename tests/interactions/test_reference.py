"""Random logs give what a reference in plain Python says they give: files, counts, leakage check, and refusals.

The reference knows docs/interactions.md and calls nothing of the package.
"""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import event as note
from hypothesis import strategies as st

from mimigenrec.errors import UserError
from mimigenrec.interactions.build import InteractionsConfig, main
from mimigenrec.interactions.table import Columns
from tests.interactions.random_logs import COLUMNS, REVIEWS, TITLES, logs_without_ties, runs, write_items, write_log
from tests.interactions.reference import SPLITS, Event, events_left, in_sequences, in_splits, leakage

# What the command writes, and what it should write


def written(run: SimpleNamespace, base: Path) -> SimpleNamespace | str:
    """What the files hold, or the message with which the command refuses."""
    with TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        parts = [run.log[: run.cut], run.log[run.cut :]] if 0 < run.cut < len(run.log) else [run.log]
        config = InteractionsConfig(
            source={"i": "recbole", "a": "amazon"}.get(run.form[0], "table"),
            interactions=[write_log(folder, run, part, f"log{i}") for i, part in enumerate(parts)],
            items=[] if run.items is None else [write_items(folder, run)],
            category="C",
            output_dir=folder / "out",
            **run.rules.flags(),
        )
        columns = Columns()
        if config.source == "table":
            columns = replace(COLUMNS, time_unit="s" if run.unit == "iso" else run.unit)
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # progress bars, the report
                main(config, columns)
        except UserError as error:
            assert not (folder / "out").exists()  # refused before anything is written
            return str(error)
        return read_back(folder / "out" / "C")


def read_back(folder: Path) -> SimpleNamespace:
    """Line by line, without the package's readers."""
    text = {path.name.removeprefix("C."): path.read_bytes().decode() for path in folder.iterdir()}
    report = json.loads(text["interactions.json"])
    inter = {split: text[f"{split}.inter"].split("\n") for split in SPLITS}
    assert all(lines[0] == "user_id:token\titem_id_list:token_seq\titem_id:token" for lines in inter.values())
    assert all(lines.pop() == "" for lines in inter.values())
    return SimpleNamespace(
        sequences=json.loads(text["inter.json"]),
        reviews=json.loads(text["review.json"]),
        items=json.loads(text["item.json"]),
        user2id=[tuple(line.split("\t")) for line in text["user2id"].split("\n")[:-1]],
        item2id=[tuple(line.split("\t")) for line in text["item2id"].split("\n")[:-1]],
        rows={split: [tuple(line.split("\t")) for line in lines[1:]] for split, lines in inter.items()},
        counts=report["counts"],
        leakage=report["leakage"],
    )


def expected(run: SimpleNamespace, order=in_sequences) -> SimpleNamespace | None:
    """The same by the reference; None where nothing is left or a split is empty. order: events left -> sequences."""
    if run.rules.max_title_words and run.items is None:
        return None  # no titles to count the words of
    met, titles = {one.item for one in run.log}, {}
    for item, title in run.items or ():
        if run.rules.ids == "given" or item in met:
            titles[item] = titles.get(item) or TITLES[title]
    left, counts = events_left(run.log, run.rules, None if run.items is None else titles)
    sequences = order(left)
    parts = in_splits(sequences, run.rules)
    if not all(parts.values()):
        return None
    had = list(dict.fromkeys(one.item for events in sequences.values() for one in events))
    users = {user: str(i) for i, user in enumerate(sequences)}
    items = {item: str(i) for i, item in enumerate(had)}
    if run.rules.ids == "given":
        catalogue = {*had, *titles}
        if any(" " in user for user in users) or catalogue != {str(i) for i in range(len(catalogue))}:
            return None
        users, items = {user: user for user in users}, {str(i): str(i) for i in range(len(catalogue))}
    reviews: dict[str, dict[str, str]] = {}
    for one in left:
        if one.review:
            key = f"({users[one.user]}, {items[one.item]}, {one.time // 1000})"
            reviews.setdefault(key, {"review": REVIEWS[one.review], "summary": ""})
    return SimpleNamespace(
        sequences={users[user]: [int(items[e.item]) for e in events] for user, events in sequences.items()},
        reviews=reviews,
        items={
            new: {"title": titles.get(item, ""), "description": "", "brand": "", "categories": ""}
            for item, new in items.items()
        },
        user2id=list(users.items()),
        item2id=list(items.items()),
        rows={
            split: [
                (users[row.user], " ".join(items[item] for item in row.history), items[row.target]) for row in part
            ]
            for split, part in parts.items()
        },
        counts=counts | counted(run, titles, left, sequences, parts, items) | {"reviews": len(reviews)},
        leakage=leakage(parts),
    )


def counted(run, titles, left, sequences, parts, items) -> dict[str, int]:
    counts = {"items_in_catalogue": len(items), "bad_lines": 0}
    for when, log in (("read", run.log), ("left", left)):
        counts |= {f"interactions_{when}": len(log), f"users_{when}": len({one.user for one in log})}
        counts[f"items_{when}"] = len({one.item for one in log})
    counts |= {f"rows_{split}": len(part) for split, part in parts.items()}
    pairs = [pair for events in sequences.values() for pair in zip(events, events[1:], strict=False)]
    counts["same_instant_as_the_one_before"] = sum(a.time == b.time for a, b in pairs)
    if run.items is not None and (run.rules.require_title or run.rules.max_title_words):
        words = [len(titles[one].split()) for one in {one.item for one in run.log} if one in titles]
        counts["items_without_metadata"] = counts["items_read"] - len(words)
        counts["items_without_title"] = words.count(0)
        counts["items_with_title_too_long"] = sum(n > (run.rules.max_title_words or n) for n in words)
    return counts


def check_equals_the_reference(run, base) -> None:
    result, wanted = written(run, base), expected(run)
    note("refused" if wanted is None else f"goes through, {run.form}")
    if wanted is None:
        assert isinstance(result, str), "nothing is left, or a split is empty, and the command goes on"
        return
    assert not isinstance(result, str), result
    check_same(result, wanted)


def check_same(result: SimpleNamespace, wanted: SimpleNamespace) -> None:
    known = {name: result.counts.get(name) for name in wanted.counts}
    assert known == wanted.counts
    unknown = {
        "k_core_rounds",
        "lines_with_half_a_character",
        "items_listed_again",
        "items_listed_again_with_another_title",
    }
    assert result.counts.keys() - wanted.counts.keys() <= unknown
    for name in vars(wanted).keys() - {"counts"}:
        assert getattr(result, name) == getattr(wanted, name), name
    assert list(result.sequences) == list(wanted.sequences) and list(result.items) == list(wanted.items)


SETTINGS = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def quick(examples: int) -> settings:
    return settings(SETTINGS, max_examples=examples, derandomize=True)


def long(examples: int) -> settings:
    """Other logs each time; a failure prints what reproduces it."""
    return settings(SETTINGS, max_examples=examples, print_blob=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("logs")


@quick(150)
@given(runs())
def test_every_file_and_count_is_that_of_the_reference(base, run):
    check_equals_the_reference(run, base)


@pytest.mark.slow
@long(2000)
@given(runs())
def test_every_file_and_count_is_that_of_the_reference_at_length(base, run):
    check_equals_the_reference(run, base)


def check_ties_are_shuffled_within_their_instant(run, base) -> None:
    result = written(run, base)
    if isinstance(result, str):
        assert expected(run) is None  # the order of ties does not decide how many rows there are
        return

    def as_written(left: list[Event]) -> dict[str, list[Event]]:
        """The events left in the order of the result; fails unless each instant of a user holds what it should."""
        users, items = dict(result.user2id), {int(new): raw for raw, new in result.item2id}
        sequences = {}
        for user, events in in_sequences(left).items():
            pool, sequences[user] = list(events), []
            for item, there in zip(result.sequences[users[user]], events, strict=True):
                one = next(one for one in pool if (one.item, one.time) == (items[item], there.time))
                pool.remove(one)
                sequences[user].append(one)
        return sequences

    check_same(result, expected(run, as_written))


@quick(30)
@given(runs(ties="shuffle"))
def test_shuffled_ties_stay_within_their_instant_and_all_else_follows_from_their_order(base, run):
    check_ties_are_shuffled_within_their_instant(run, base)


@pytest.mark.slow
@long(2000)
@given(runs(ties="shuffle"))
def test_shuffled_ties_stay_within_their_instant_and_all_else_follows_from_their_order_at_length(base, run):
    check_ties_are_shuffled_within_their_instant(run, base)


def check_splits(run, base) -> None:
    """With whole histories a row tells the place of its target, so this needs no reference."""
    whole = written(SimpleNamespace(**vars(run) | {"rules": replace(run.rules, history=0)}), base)
    if isinstance(whole, str):
        return
    rows = {
        split: [(user, history.split(" "), target) for user, history, target in whole.rows[split]] for split in SPLITS
    }
    for user, history, target in (row for part in rows.values() for row in part):
        assert [*map(int, history), int(target)] == whole.sequences[user][: len(history) + 1]
    places = {split: {(user, len(history)) for user, history, _ in part} for split, part in rows.items()}
    every = {(user, place) for user, items in whole.sequences.items() for place in range(1, len(items))}
    assert sum(map(len, rows.values())) == len(every) and set().union(*places.values()) == every
    for user, place in places["train"]:  # its history holds the places before it
        assert all(place < other for name, other in places["valid"] | places["test"] if name == user)
    cut = written(run, base)
    for split, part in rows.items():
        assert cut.rows[split] == [
            (user, " ".join(history[-run.rules.history :]), target) for user, history, target in part
        ]


@quick(30)
@given(runs())
def test_every_event_but_a_users_first_is_one_row_and_train_histories_end_before_held_out_targets(base, run):
    check_splits(run, base)


@pytest.mark.slow
@long(1000)
@given(runs())
def test_every_event_but_a_users_first_is_one_row_and_train_histories_end_before_held_out_targets_at_length(base, run):
    check_splits(run, base)


def check_order_of_lines_is_without_effect(run, lines, base) -> None:
    def by_name(result):
        """What does not depend on the numbers, which go by the order of lines."""
        if isinstance(result, str):
            return None
        users, items = ({new: raw for raw, new in pairs} for pairs in (result.user2id, result.item2id))
        sequences = {users[user]: [items[str(item)] for item in had] for user, had in result.sequences.items()}
        rows = {
            split: sorted(
                (users[user], [items[item] for item in history.split(" ")], items[target])
                for user, history, target in part
            )
            for split, part in result.rows.items()
        }
        texts = {items[item]: text for item, text in result.items.items()}
        counts = {name: count for name, count in result.counts.items() if name != "k_core_rounds"}
        return sequences, rows, texts, counts, result.leakage

    shuffled = SimpleNamespace(**vars(run) | {"log": lines})
    assert by_name(written(shuffled, base)) == by_name(written(run, base))


@st.composite
def runs_and_other_orders(draw):
    run = draw(runs(logs_without_ties))
    return run, draw(st.permutations(run.log))


@quick(30)
@given(runs_and_other_orders())
def test_the_order_of_lines_is_without_effect_where_no_two_events_share_a_time(base, pair):
    check_order_of_lines_is_without_effect(*pair, base)


@pytest.mark.slow
@long(1000)
@given(runs_and_other_orders())
def test_the_order_of_lines_is_without_effect_where_no_two_events_share_a_time_at_length(base, pair):
    check_order_of_lines_is_without_effect(*pair, base)
