"""One evaluation as files, the same for a language model and for a baseline.

final_result.json   one row a line: {"user", "row", "history", "target", "target_sid", "ranked": [group, ...]}; a group
                    is {"sid", "items", "score"}, best first, its items not told apart (see metrics.py). Rows of files
                    that tell only SIDs have user, history and target null.
metrics.json        means with 95 % intervals at both levels, counts, what the numbers depend on
metrics.tsv         the same, one number a line: level, metric, k, mean, low, high
metrics.md          the same as a table; metrics.png as a picture
manifest.json       versions, config, input hashes, seed
"""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.catalog import Catalog
from mimigenrec.errors import UserError
from mimigenrec.evaluation.bars import draw_bars
from mimigenrec.evaluation.metrics import (
    KS,
    REPEAT_K,
    count_invalid,
    coverage,
    item_places,
    per_row,
    repeat_share,
    sid_places,
)
from mimigenrec.evaluation.stats import RESAMPLES, bootstrap
from mimigenrec.evaluation.table import one_result
from mimigenrec.files import read_json, write_json, write_json_rows, writing

logger = logging.getLogger(__name__)

Row = dict[str, Any]
FILES = ("final_result.json", "metrics.json", "metrics.tsv", "metrics.md", "metrics.png", "manifest.json")
ROW_KEYS = ("user", "row", "history", "target", "target_sid", "ranked")
MADE_BY = "`mimigenrec evaluate` or `mimigenrec baseline`"
COVERAGE_KS = (1, 10, 50)


class Result(NamedTuple):
    folder: Path
    rows: list[Row]
    metrics: dict[str, Any]
    manifest: dict[str, Any]


def write_result(
    folder: str | Path, rows: Sequence[Row], catalog: Catalog, k: int, manifest: dict[str, Any], **facts: Any
) -> dict[str, Any]:
    """Measures the rows and writes every file named above; returns what metrics.json holds.

    k        how long the lists are; metrics @K beyond it are not reported
    facts    further entries of metrics.json: method, contract, timing
    raises   UserError if there is no row, if a ranked SID is not in the catalogue, or for a score that is not finite
    """
    folder = Path(folder)
    check_rows(folder / "final_result.json", rows)
    metrics = {**facts, **measure(rows, catalog, k, seed=manifest["seed"])}
    write_json_rows(folder / "final_result.json", rows)
    write_json(folder / "manifest.json", manifest)
    with writing(folder / "metrics.tsv") as out:
        out.writelines("\t".join(map(str, line)) + "\n" for line in _tsv_lines(metrics))
    with writing(folder / "metrics.md") as out:
        out.write(one_result(metrics))
    draw_bars(folder / "metrics.png", {str(facts.get("method", "model")): metrics})
    write_json(folder / "metrics.json", metrics)
    return metrics


def measure(rows: Sequence[Row], catalog: Catalog, k: int, seed: int) -> dict[str, Any]:
    if not rows:
        raise UserError("the test set has no row; there is nothing to measure")
    ranked = [row["ranked"] for row in rows]
    invalid = count_invalid(ranked, catalog.sids)
    if invalid:
        raise UserError(
            f"{invalid} ranked SIDs are not in the catalogue or stand in one list twice. A search inside the trie "
            f"cannot give them: the predictions come from another catalogue or were edited; delete them and run again"
        )
    short = sum(_n_sids(groups) < k for groups in ranked)
    if short:
        logger.warning(
            "%d of %d rows have fewer than %d SIDs ranked: the catalogue or the filter left no more",
            short,
            len(rows),
            k,
        )
    ks = [cut for cut in KS if cut <= k]
    rng = np.random.default_rng(seed)
    shown = [cut for cut in COVERAGE_KS if cut <= k]
    return {
        "n_rows": len(rows),
        "n_items": len(catalog.sids),
        "n_sids": len(catalog.items_of),
        "k": k,
        "sid": _intervals(row_metrics(rows, "sid", ks), rng),
        "item": _intervals(row_metrics(rows, "item", ks), rng),
        "coverage": {f"@{cut}": coverage(ranked, catalog.sids, cut) for cut in shown},
        f"repeat@{REPEAT_K}": _repeats(rows, rng),
        "invalid": invalid,
        "rows_without_list": sum(not groups for groups in ranked),
        "rows_with_fewer_than_k": short,
        "targets_without_sid": sum(not row["target_sid"] for row in rows),
        "interval": {"level": 0.95, "resamples": RESAMPLES, "seed": seed},
    }


def row_metrics(rows: Sequence[Row], level: str, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """{"hr@10": (N,), ...} of the rows of a final_result.json. level: "sid" or "item"."""
    ranked, sids = [row["ranked"] for row in rows], [row["target_sid"] for row in rows]
    places = sid_places(ranked, sids) if level == "sid" else item_places(ranked, [r["target"] for r in rows], sids)
    return per_row(places, list(ks))


def read_result(path: str | Path) -> Result:
    """A folder that an evaluation wrote, or its final_result.json.

    Raises FileNotFoundError, and UserError naming the file and the row or key that is not of the form above, or is a
    number that is not finite.
    """
    path = Path(path)
    folder = path.parent if path.suffix == ".json" else path
    rows = read_json(folder / "final_result.json", MADE_BY, kind=list)
    if not rows:
        raise UserError(f"{folder / 'final_result.json'} must be a list with at least one row")
    check_rows(folder / "final_result.json", rows)
    metrics, manifest = read_metrics(folder), read_json(folder / "manifest.json", MADE_BY, kind=dict)
    k = metrics.get("k")
    cuts = [cut for cut in KS if is_whole(k) and cut <= k]
    for name in (f"{metric}@{cut}" for cut in cuts for metric in ("hr", "ndcg", "mrr")):
        if any(name not in metrics[level] for level in ("sid", "item")):
            raise UserError(f"{folder / 'metrics.json'} has k={k} and no {name}; evaluate again")
    if not cuts:
        raise UserError(f"{folder / 'metrics.json'}: k must be a whole number from 1, found {k!r}; evaluate again")
    for key in ("versions", "config", "inputs"):
        if not isinstance(manifest.get(key), dict):
            raise UserError(f"{folder / 'manifest.json'} has no map {key!r}; it comes from {MADE_BY}")
    return Result(folder, rows, metrics, manifest)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """metrics.json, or the one in a folder. Raises UserError if it holds no metrics of ours, or a number like NaN."""
    path = Path(path)
    path = path if path.suffix == ".json" else path / "metrics.json"
    metrics = read_json(path, MADE_BY)
    if not isinstance(metrics, dict) or not {"sid", "item", "n_rows"} <= metrics.keys():
        raise UserError(f"{path} is not a metrics.json: it needs n_rows, sid and item")
    for level in ("sid", "item"):
        intervals = metrics[level]
        if not isinstance(intervals, dict) or not intervals:
            raise UserError(f"{path}: {level} must be a map of metrics, found {str(intervals)[:80]!r}")
        for name, interval in intervals.items():
            numbers = [interval.get(key) for key in ("mean", "low", "high")] if isinstance(interval, dict) else [None]
            if "@" not in name or not all(map(is_finite, numbers)):
                raise UserError(
                    f"{path}: {level} {name} must be mean, low and high, finite numbers, found {str(interval)[:80]}; "
                    f"evaluate again"
                )
    if not is_whole(metrics["n_rows"]):
        raise UserError(f"{path}: n_rows must be a whole number from 1, found {metrics['n_rows']!r}")
    return metrics


def check_rows(path: Path, rows: Sequence[Any]) -> None:
    """Raises UserError naming the first row of a final_result.json that is not as the module says."""
    for i, row in enumerate(rows):
        missing = [key for key in ROW_KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise UserError(f"{path}: row {i} has no {', '.join(missing)}")
        for key in ("user", "target", "target_sid"):
            if not isinstance(row[key], str | None):
                raise UserError(f"{path}: row {i}: {key} must be text or null, found {row[key]!r}")
        if row["history"] is not None and not is_texts(row["history"]):
            raise UserError(f"{path}: row {i}: history must be a list of item ids, found {str(row['history'])[:80]!r}")
        if not isinstance(row["ranked"], list):
            raise UserError(f"{path}: row {i}: ranked must be a list of groups, found {str(row['ranked'])[:80]!r}")
        for group in row["ranked"]:
            if (
                not isinstance(group, dict)
                or not isinstance(group.get("sid"), str)
                or not is_texts(group.get("items"))
            ):
                raise UserError(
                    f'{path}: row {i}: a group must be {{"sid": text, "items": [item ids], "score": number}}, found '
                    f"{str(group)[:120]}"
                )
            if not is_finite(group.get("score")):
                raise UserError(
                    f"{path}: row {i} is ranked by the score {group.get('score')!r}, which is no finite number and "
                    f"ranks nothing: what made it is broken"
                )


def is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _n_sids(groups: Sequence[dict[str, Any]]) -> int:
    return len({group["sid"] for group in groups})


def _intervals(values: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, dict[str, float]]:
    return {name: interval._asdict() for name, interval in bootstrap(values, rng).items()}


def _repeats(rows: Sequence[Row], rng: np.random.Generator) -> dict[str, float] | None:
    """None where the rows do not tell their histories."""
    if any(row["history"] is None for row in rows):
        return None
    shares = repeat_share([row["ranked"] for row in rows], [row["history"] for row in rows])
    return _intervals({"repeat": shares}, rng)["repeat"]


def _tsv_lines(metrics: dict[str, Any]) -> Iterable[tuple]:
    yield "level", "metric", "k", "mean", "low", "high"
    for level in ("sid", "item"):
        for name, value in metrics[level].items():
            metric, k = name.split("@")
            yield level, metric, k, value["mean"], value["low"], value["high"]
    for k, value in metrics["coverage"].items():
        yield "item", "coverage", k.lstrip("@"), value, "", ""
    repeats = metrics[f"repeat@{REPEAT_K}"]
    if repeats:
        yield "item", "repeat", REPEAT_K, repeats["mean"], repeats["low"], repeats["high"]
