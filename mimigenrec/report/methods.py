"""What a report is about: each method's results, one per seed, read one after the other and kept without their lists.

methods   {"markov": "results/markov", "rl": ["results/rl/1", "results/rl/2", "results/rl/3"]}
failed    {"tiger": "out of memory", "rl/3": "loss is nan"}; a key is a method, or a method, "/" and its seed

N test rows. A method's columns are a row's mean over its seeds, so that a table, an interval and a test speak of what
a training with any seed is expected to give.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.evaluation.beyond import beyond_accuracy
from mimigenrec.evaluation.compare import check_same_rows
from mimigenrec.evaluation.result import Result, Row, read_result, row_metrics
from mimigenrec.evaluation.slices import first_wrong_level, level_reached
from mimigenrec.evaluation.stats import rows_over_seeds


class Measures(NamedTuple):
    """What to measure of every result."""

    metrics: Sequence[str]  # "hr@10", "ndcg@10", ...
    k: int  # of the lists that are looked at beyond their metrics
    items: Sequence[str]  # the catalogue
    train_counts: Mapping[str, int]
    vectors: Mapping[str, np.ndarray] | None = None  # item -> (dim,), to tell how far two items are apart


class Run(NamedTuple):
    """One result without its lists."""

    folder: Path
    columns: dict[str, np.ndarray]  # metric -> (N,), item level
    first_wrong: np.ndarray  # (N,) of slices.first_wrong_level
    reached: dict[int, float]
    beyond: dict[str, float | None]
    metrics: dict[str, Any]  # metrics.json
    manifest: dict[str, Any]
    kept: dict[int, Row]  # the rows that are shown as examples


class Method(NamedTuple):
    name: str
    runs: list[Run]  # empty if none came to an end
    failed: list[str]  # why the others did not
    columns: dict[str, np.ndarray]  # metric -> (N,), mean over the runs


def folders_of(key: str, entries: Mapping[str, Any]) -> dict[str, list[Path]]:
    """{name: one or several folders}. Raises UserError naming the entry of the config that is neither."""
    folders = {}
    for name, value in entries.items():
        paths = [value] if isinstance(value, str | Path) else value
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str | Path) for path in paths):
            raise UserError(f"{key}: {name!r} needs a folder or a list of folders, one per seed, found {value!r}")
        if len(set(map(str, paths))) < len(paths):
            raise UserError(f"{key}: {name!r} names a folder twice, which would count as two seeds: {value!r}")
        folders[str(name)] = [Path(path) for path in paths]
    return folders


def read_methods(
    folders: Mapping[str, Sequence[Path]],
    failed: Mapping[str, Any],
    measures: Measures,
    shown: str,
    choose: Callable[[Sequence[Row]], Sequence[int]],
) -> tuple[list[Method], list[Row]]:
    """All methods, and the test rows without their lists.

    shown    the method whose first run gives the rows that `choose` picks examples from
    choose   rows -> places of those to keep
    raises   FileNotFoundError for a folder without a result; UserError if two are not about the same rows, or if a
             metric asks for longer lists than were predicted
    """
    chosen = list(choose(read_result(folders[shown][0]).rows))
    first: Result | None = None
    methods = []
    bar = tqdm(total=sum(map(len, folders.values())), desc="results", unit="result", disable=None)
    for name, paths in folders.items():
        runs = []
        for path in paths:
            result = read_result(path)
            check_lengths(name, result, measures.metrics)
            rows = [{key: value for key, value in row.items() if key != "ranked"} for row in result.rows]
            if first is None:
                first = result._replace(rows=rows)
            check_same_rows(first, result)
            runs.append(_measure(result, measures, chosen))
            bar.update()
        methods.append(Method(name, runs, reasons(name, failed), rows_over_seeds([run.columns for run in runs])))
    bar.close()
    lost = [key for key in failed if not any(_is_of(key, name) for name in folders)]
    return [*methods, *(Method(name, [], _texts(failed[name]), {}) for name in lost)], first.rows


def check_lengths(name: str, result: Result, metrics: Sequence[str]) -> None:
    """Raises UserError if a metric is cut off beyond the lists' length."""
    predicted = result.metrics["k"]
    for metric in metrics:
        if cut_off(metric) > predicted:
            raise UserError(
                f"{metric} of {name!r} asks for the first {cut_off(metric)}, but {result.folder} holds lists of "
                f"{predicted}. Predict it again with a larger k, or leave the metric out of `metrics` and `tested`"
            )


def cut_off(metric: str) -> int:
    """ "hr@10" -> 10. Raises UserError for what is no metric."""
    name, _, k = metric.partition("@")
    if name not in ("hr", "ndcg", "mrr") or not k.isdecimal() or int(k) < 1:
        raise UserError(f"no metric {metric!r}; there are hr@K, ndcg@K and mrr@K, K from 1")
    return int(k)


def reasons(name: str, failed: Mapping[str, Any]) -> list[str]:
    """Why a method or some of its seeds did not come to an end: "seed 3: loss is nan"."""
    own = [key for key in failed if _is_of(key, name)]
    return [
        f"seed {key.removeprefix(name + '/')}: {text}" if key != name else text
        for key in own
        for text in _texts(failed[key])
    ]


def _measure(result: Result, measures: Measures, chosen: Sequence[int]) -> Run:
    columns = row_metrics(result.rows, "item", sorted(set(map(cut_off, measures.metrics))))
    try:
        beyond = beyond_accuracy(result.rows, measures.items, measures.train_counts, measures.k, measures.vectors)
    except ValueError as error:
        raise UserError(f"{result.folder}: {error}; was it made on the data that --data names?") from error
    return Run(
        result.folder,
        {metric: columns[metric] for metric in measures.metrics},
        first_wrong_level(result.rows),
        level_reached(result.rows, measures.k),
        beyond,
        result.metrics,
        result.manifest,
        {i: result.rows[i] for i in chosen},
    )


def _is_of(key: str, name: str) -> bool:
    return key == name or key.rpartition("/")[0] == name


def _texts(value: Any) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else [str(value)]
