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
from mimigenrec.files import write_json, write_json_rows, writing
from mimigenrec.schema import check, read_map, read_rows, shown

logger = logging.getLogger(__name__)

Row = dict[str, Any]
FILES = ("final_result.json", "metrics.json", "metrics.tsv", "metrics.md", "metrics.png", "manifest.json")
RESULT_ROW = {
    "user": (str, None),
    "row": (int, None),
    "history": ([str], None),
    "target": (str, None),
    "target_sid": (str, None),
    "ranked": [{"sid": str, "items": [str], "score": float}],
}
ROW_KEYS = tuple(RESULT_ROW)
METRICS = {"n_rows": int, "sid": {str: dict}, "item": {str: dict}}
INTERVAL = {"mean": float, "low": float, "high": float}
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
    for i, row in enumerate(rows):
        check(row, RESULT_ROW, f"{folder / 'final_result.json'}, row {i}", "what made it is broken")
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
    rows = read_rows(folder / "final_result.json", RESULT_ROW, MADE_BY)
    metrics = read_metrics(folder)
    manifest = read_map(folder / "manifest.json", {"versions": dict, "config": dict, "inputs": dict}, MADE_BY)
    k = metrics.get("k")
    cuts = [cut for cut in KS if is_whole(k) and cut <= k]
    for name in (f"{metric}@{cut}" for cut in cuts for metric in ("hr", "ndcg", "mrr")):
        if any(name not in metrics[level] for level in ("sid", "item")):
            raise UserError(f"{folder / 'metrics.json'} has k={k} and no {name}; evaluate again")
    if not cuts:
        raise UserError(f"{folder / 'metrics.json'}: k must be a whole number from 1, found {k!r}; evaluate again")
    return Result(folder, rows, metrics, manifest)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """metrics.json, or the one in a folder. Raises UserError if it holds no metrics of ours, or a number like NaN."""
    path = Path(path)
    path = path if path.suffix == ".json" else path / "metrics.json"
    metrics = read_map(path, METRICS, MADE_BY)
    for level in ("sid", "item"):
        check(metrics[level], {str: INTERVAL}, f"{path}, {level}", "evaluate again")
        if not metrics[level] or not all("@" in name for name in metrics[level]):
            raise UserError(f"{path}: {level} must be a map of metrics@K, found {shown(metrics[level])}")
    if not is_whole(metrics["n_rows"]):
        raise UserError(f"{path}: n_rows must be a whole number from 1, found {metrics['n_rows']!r}")
    return metrics


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


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
