"""What train could tell about test. Counted in every run, part of its report.

targets_in_train_histories   events that are a target of valid or test and stand in a history of train: always 0,
                             or the split is broken and the run stops; a warning if the split is the source's own
train_rows_after_first_test  train rows later than the first test target. 0 for --split time; with leave_one_out
                             every other user's future is in train. Not known (null) if the source has no times, but
                             an order alone
items_only_in_test           items that are a target of test and occur nowhere in train, and the rows they are in
users_only_in_test           users with a test row and no train row
targets_in_own_history       test rows whose target the user had already (within the history that is written)
same_history_as_train, ...   test rows whose history, item by item, is also that of a row of train or valid
same_history_and_target_...  the same with the same target: the answer was in train
best_hr1                     what a model that knows the test rows but sees histories alone could reach in HR@1:
                             rows with one history and several targets cannot all be right
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mimigenrec.interactions.events import pl
from mimigenrec.interactions.sequences import Sequences
from mimigenrec.interactions.splits import history_starts

log = logging.getLogger(__name__)


def check_leakage(
    sequences: Sequences,
    rows: Mapping[str, np.ndarray],
    history: int,
    hashes: Mapping[str, np.ndarray],
    has_times: bool = True,
    given: bool = False,
) -> dict[str, Any]:
    """rows: split -> places of its targets; hashes: split -> (rows,) uint64, one number per history text."""
    seen = events_in_histories(sequences, rows["train"], history)
    held_out = np.concatenate([rows["valid"], rows["test"]])
    if leaked := int(seen[held_out].sum()):
        finding = f"{leaked} targets of valid and test stand in train histories"
        if not given:
            raise AssertionError(f"{finding}: the split is broken")
        log.warning("%s, as the files are split: what is trained on them knows those answers", finding)
    seen[rows["train"]] = True
    items_of_train = np.zeros(len(sequences.items), dtype=bool)
    items_of_train[sequences.item[seen]] = True
    test = rows["test"]
    new = ~items_of_train[sequences.item[test]]
    train_users = np.unique(sequences.user[rows["train"]])
    starts = history_starts(sequences, test, history)
    later = int((sequences.time[rows["train"]] > sequences.time[test].min()).sum()) if has_times else None
    report = {
        "targets_in_train_histories": leaked,
        "train_rows_after_first_test": later,
        "items_only_in_test": len(np.unique(sequences.item[test[new]])),
        "test_rows_of_those_items": int(new.sum()),
        "users_only_in_test": len(np.setdiff1d(sequences.user[test], train_users)),
        "targets_in_own_history": _repeats(sequences.item, test, starts),
    }
    keys = {split: (hashes[split], sequences.item[rows[split]]) for split in rows}
    for other in ("train", "valid"):
        report[f"same_history_as_{other}"] = _shared(keys["test"][:1], keys[other][:1])
        report[f"same_history_and_target_as_{other}"] = _shared(keys["test"], keys[other])
    pairs = pl.DataFrame({"history": keys["test"][0], "target": keys["test"][1]})
    best = pairs.group_by("history", "target").len().group_by("history").agg(pl.col("len").max())["len"].sum()
    report["best_hr1"] = round(best / len(test), 6)
    return report


def events_in_histories(sequences: Sequences, rows: np.ndarray, history: int) -> np.ndarray:
    """(n,) bool: the event stands in the history of at least one of the rows."""
    edges = np.zeros(len(sequences.user) + 1, dtype=np.int64)
    np.add.at(edges, history_starts(sequences, rows, history), 1)
    np.add.at(edges, rows, -1)
    return np.cumsum(edges[:-1]) > 0


def _repeats(item: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> int:
    """How many rows have their target in their history; looks one event further back each time."""
    repeats, back = 0, 0
    while len(rows):
        back += 1
        inside = rows - back >= starts
        rows, starts = rows[inside], starts[inside]
        new = item[rows - back] != item[rows]
        repeats += int((~new).sum())
        rows, starts = rows[new], starts[new]
    return repeats


def _shared(these: tuple[np.ndarray, ...], those: tuple[np.ndarray, ...]) -> int:
    """How many rows of `these` occur among `those`, all columns together."""
    names = [str(i) for i in range(len(these))]
    left, right = (pl.DataFrame(dict(zip(names, columns, strict=True))) for columns in (these, those))
    return len(left.join(right.unique(), on=names, how="semi"))
