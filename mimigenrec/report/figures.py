"""The numbers of a report: table, paired tests, slices, levels, beyond accuracy, as plain dicts and lists.

A model is a method that is tested against the others, which are its baselines. The tests of one metric are a family,
over which their p-values are adjusted (Holm), so "better" in a metric holds for all its pairs together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mimigenrec.evaluation.result import Row
from mimigenrec.evaluation.slices import slice_metrics, slices
from mimigenrec.evaluation.stats import (
    bootstrap,
    holm,
    over_seeds,
    paired_bootstrap,
    permutation_test,
    rows_over_seeds,
)
from mimigenrec.report.methods import Method

SURE = 0.05

Figures = dict[str, Any]


def pair_tests(
    methods: Sequence[Method],
    models: Sequence[str],
    starts: Mapping[str, str],
    tested: Sequence[str],
    resamples: int,
    seed: int,
) -> list[Figures]:
    """Every model against every baseline, and against the model that it started from.

    [{"model", "against", "kind": "baseline" or "start", "seeds", "metrics": {metric: {"mean", "low", "high", "p",
    "p_bootstrap", "holm"}}}]; mean is model minus the other, low, high and p_bootstrap its 95 % interval and p by
    paired bootstrap, p of the permutation test, holm that p adjusted. seeds: of a start where seeds failed, those
    that both have, which alone are compared; [] where that cannot be told, else None: all of both.
    """
    by_name = {m.name: m for m in methods if m.runs}
    pairs = [(model, other, "baseline") for model in models for other in by_name if other not in models]
    pairs += [(model, start, "start") for model, start in starts.items()]
    pairs = [pair for pair in pairs if pair[0] in by_name and pair[1] in by_name]
    tests = []
    for model, other, kind in tqdm(pairs, desc="paired tests", unit="pair", disable=None):
        seeds = shared_seeds(by_name[model], by_name[other]) if kind == "start" else None
        both = [_columns(by_name[name], tested, seeds) for name in (other, model)]
        differences = paired_bootstrap(*both, np.random.default_rng(seed))
        p = permutation_test(*both, np.random.default_rng(seed), resamples)
        metrics = {
            name: {"mean": d.mean, "low": d.low, "high": d.high, "p": p[name], "p_bootstrap": d.p}
            for name, d in differences.items()
        }
        tests.append({"model": model, "against": other, "kind": kind, "seeds": seeds, "metrics": metrics})
    for name in tested:
        adjusted = holm({i: pair["metrics"][name]["p"] for i, pair in enumerate(tests)})
        for i, value in adjusted.items():
            tests[i]["metrics"][name]["holm"] = value
    return tests


def shared_seeds(a: Method, b: Method) -> list[int] | None:
    """The seeds that both have, where some failed; None if none failed or all are shared, [] if that cannot be told.

    Seeds are those of the results' manifests; they match nothing where one has none or two of a method have the same.
    """
    seeds_a, seeds_b = ([run.manifest.get("seed") for run in method.runs] for method in (a, b))
    if not (a.failed or b.failed):
        return None
    if any(None in seeds or len(set(seeds)) < len(seeds) for seeds in (seeds_a, seeds_b)):
        return []
    return None if set(seeds_a) == set(seeds_b) else [seed for seed in seeds_a if seed in seeds_b]


def seed_cautions(tests: Sequence[Figures]) -> list[str]:
    return [
        f"{pair['model']} and {pair['against']}, from which it began, are compared by all seeds that each has: some "
        f"failed, and the manifests do not tell which of the others belong together"
        for pair in tests
        if pair["seeds"] == []
    ]


def _columns(method: Method, names: Sequence[str], seeds: Sequence[int] | None) -> dict[str, np.ndarray]:
    """Metric -> (N,), mean over the runs of these seeds; over all if there are none."""
    runs = [run.columns for run in method.runs if seeds and run.manifest["seed"] in seeds]
    columns = rows_over_seeds(runs) if runs else method.columns
    return {name: columns[name] for name in names}


def in_order(methods: Sequence[Method], models: Sequence[str], metric: str) -> list[Method]:
    """Models as they are named, then baselines, the best first, then what has no result."""

    def place(method: Method) -> tuple[int, float]:
        if not method.runs:
            return 2, 0.0
        return (0, models.index(method.name)) if method.name in models else (1, -method.columns[metric].mean())

    return sorted(methods, key=place)


def table(methods: Sequence[Method], models: Sequence[str], tests: Sequence[Figures], seed: int) -> Figures:
    """{method: {metric: {"mean", "low", "high", "sd", "seeds", "best", "mark"}}}, of methods with a result.

    low, high   95 % interval over rows, of each row's mean over seeds
    sd, seeds   spread over seeds, None with one; the value of each seed
    best        is it the highest of the column?
    mark        of a model, where tested: "better" or "worse" than the best baseline, "unclear", else ""
    """
    rows: Figures = {}
    for method in methods:
        if method.runs:
            intervals = bootstrap(method.columns, np.random.default_rng(seed))
            values = [{name: float(column.mean()) for name, column in run.columns.items()} for run in method.runs]
            spread = over_seeds(values)
            rows[method.name] = {
                name: {**interval._asdict(), "sd": spread[name].sd, "seeds": [run[name] for run in values]}
                for name, interval in intervals.items()
            }
    tested = {(pair["model"], pair["against"]): pair["metrics"] for pair in tests}
    for metric in next(iter(rows.values())):
        highest = max(cells[metric]["mean"] for cells in rows.values())
        baseline = best_baseline(rows, models, metric)
        for name, cells in rows.items():
            test = tested.get((name, baseline), {}).get(metric)
            cells[metric]["best"] = cells[metric]["mean"] == highest
            cells[metric]["mark"] = outcome(test) if test else ""
    return rows


def best_baseline(rows: Figures, models: Sequence[str], metric: str) -> str | None:
    """The method that is no model and has the highest mean; the first of equals, None if there is none.

    rows   of `table`
    """
    baselines = [name for name in rows if name not in models]
    return max(baselines, key=lambda name: rows[name][metric]["mean"], default=None)


def outcome(test: Mapping[str, float]) -> str:
    if test["holm"] >= SURE:
        return "unclear"
    return "better" if test["mean"] > 0 else "worse"


def slice_figures(
    methods: Sequence[Method], rows: Sequence[Row], train_counts: Mapping[str, int], metrics: Sequence[str], seed: int
) -> list[Figures]:
    """[{"family", "slice", "n", "methods": {method: {metric: {"mean", "low", "high"}}}}], empty slices too."""
    masks = slices(rows, train_counts)
    measured = {
        method.name: slice_metrics({metric: method.columns[metric] for metric in metrics}, masks, seed)
        for method in methods
        if method.runs
    }
    figures = []
    for family, named in masks.items():
        for name, mask in named.items():
            by_method = {
                method: {metric: means[family][name][metric]._asdict() for metric in metrics}
                for method, means in measured.items()
                if mask.any()
            }
            figures.append({"family": family, "slice": name, "n": int(mask.sum()), "methods": by_method})
    return figures


def level_figures(methods: Sequence[Method]) -> Figures:
    """{method: {"wrong": {level: share of rows}, "right", "none", "reached": {level: share}}}, means over seeds.

    wrong, right, none   where the first recommended SID leaves the target's: at a level, nowhere, no list or target
    reached              some SID of the first K agrees up to that level
    """
    figures: Figures = {}
    for method in methods:
        if method.runs:
            levels = sorted({level for run in method.runs for level in run.reached})
            wrong = np.concatenate([run.first_wrong for run in method.runs])
            deepest = max(int(wrong.max()), len(levels))
            figures[method.name] = {
                "wrong": {str(level): float((wrong == level).mean()) for level in range(1, deepest + 1)},
                "right": float((wrong == 0).mean()),
                "none": float((wrong < 0).mean()),
                "reached": {str(n): float(np.mean([run.reached.get(n, 0.0) for run in method.runs])) for n in levels},
            }
    return figures


def beyond_figures(methods: Sequence[Method]) -> Figures:
    """{method: {measure: mean over seeds}}; None where a seed has none."""
    figures: Figures = {}
    for method in methods:
        if method.runs:
            runs = [run.beyond for run in method.runs]
            figures[method.name] = {
                name: None if any(run[name] is None for run in runs) else float(np.mean([run[name] for run in runs]))
                for name in runs[0]
            }
    return figures
