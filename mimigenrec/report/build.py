"""Several methods on the same rows, as one page to believe or not: `mimigenrec report`.

mimigenrec report --config r.yaml

report.json   every number of the page
report.html   one file with style and pictures inside, opens without a network
report.md     the same as Markdown, with its pictures as SVG files beside it

Results come from `evaluate` and `baseline`; docs/report.md says how the page is read. The same results and seed give
the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimigenrec.catalog import item_vectors, load_catalog
from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.evaluation.curves import find_log, panels, read_log, thinned
from mimigenrec.evaluation.outputs import check_own
from mimigenrec.evaluation.slices import count_targets
from mimigenrec.files import write_json, writing
from mimigenrec.interactions.inter_file import raw_file, read_inter
from mimigenrec.manifest import make_manifest
from mimigenrec.page import pictures_of, svg_file, to_html, to_markdown
from mimigenrec.report.about import cautions, describe, method_facts, starts
from mimigenrec.report.examples import choose_rows, examples
from mimigenrec.report.figures import (
    beyond_figures,
    in_order,
    level_figures,
    pair_tests,
    seed_cautions,
    slice_figures,
    table,
)
from mimigenrec.report.methods import Measures, cut_off, folders_of, read_methods
from mimigenrec.report.sections import sections
from mimigenrec.report.verdict import verdict
from mimigenrec.schema import fits

POINTS = 60  # of a curve; more are drawn as the means of so many stretches


@dataclass
class ReportConfig:
    """Methods on the same test rows: what is best, how sure that is, where each is good, and ten users to look at."""

    methods: dict = arg("result folders: {name: folder, or a list with one folder per seed}")
    data: Path = arg("folder written by preprocessing: catalogue and titles")
    raw: Path = arg("folder of C/C.train.inter, or of C.train.inter itself; C is --category", aliases=["data_dir"])
    category: str = arg("name of the category, C")
    output: Path = arg("folder for report.html, report.md with its pictures, and report.json")
    models: list[str] = arg("methods that are tested against the others, their baselines", factory=list)
    training: dict = arg("training folders, for curves and time: {name: folder, or one per seed}", factory=dict)
    failed: dict = arg('runs that failed: {"tiger": reason, "rl/3": reason of seed 3}', factory=dict)
    costs: dict = arg("measured costs: {name: {seconds: 1.0, cpu_seconds: 2.0, peak_memory_gb: 3.0}}", factory=dict)
    vectors: Path | None = arg(
        "C.emb-NAME.npy of the items: diversity of a list is then by them; default: by SID levels", default=None
    )
    metrics: list[str] = arg(
        "columns of the table", factory=lambda: ["ndcg@10", "hr@10", "hr@50", "ndcg@50", "hr@5", "mrr@10"]
    )
    tested: list[str] = arg(
        "metrics that are tested; the first one, decided beforehand, decides",
        factory=lambda: ["ndcg@10", "hr@10", "hr@50"],
    )
    title: str = arg("heading of the page", default="Benchmark")
    resamples: int = arg(
        "number of resamples of the permutation tests; 10,000 tell p down to 0.0001", default=10_000, least=1
    )
    seed: int = arg("random seed of intervals, tests and the choice of users", default=42, least=0, most=2**32 - 1)


def main(config: ReportConfig) -> None:
    own = {"report.json": b'"verdict"', "report.md": b"mimigenrec", "report.html": b"mimigenrec"}
    check_own("report", {config.output / name: mark for name, mark in own.items()})
    report = build(config)
    write_report(config.output, report)
    for statement in report["verdict"]:
        print(statement["text"])
    print(f"\n{config.output / 'report.html'}")


def build(config: ReportConfig) -> dict[str, Any]:
    """What report.json holds."""
    folders, training = folders_of("methods", config.methods), folders_of("training", config.training)
    check_config(config, folders)
    catalog = load_catalog(config.data)
    train = raw_file(config.raw, config.category, "train.inter")
    counts = count_targets(read_inter(train))
    metrics = list(dict.fromkeys([*config.tested, *config.metrics]))
    vectors = item_vectors(catalog, config.vectors) if config.vectors else None
    measures = Measures(metrics, cut_off(config.tested[0]), list(catalog.sids), counts, vectors)
    looked_at = next((name for name in reversed(config.models) if name in folders), next(iter(folders)))
    rng = np.random.default_rng(config.seed)
    methods, rows = read_methods(folders, config.failed, measures, looked_at, lambda rows: choose_rows(rows, rng))
    methods = in_order(methods, config.models, config.tested[0])
    began = starts(config.models, training, methods)
    tests = pair_tests(methods, config.models, began, config.tested, config.resamples, config.seed)
    about = describe(config.data, catalog, rows, methods)
    results = [run.folder / "final_result.json" for method in methods for run in method.runs]
    inputs = [config.data / "id2sid.json", train, *([config.vectors] if config.vectors else []), *results]
    report = {
        "title": config.title,
        "about": about,
        "cautions": [*cautions(about, methods), *seed_cautions(tests)],
        "methods": [
            method_facts(method, config.models, training.get(method.name, ()), config.costs.get(method.name))
            for method in methods
        ],
        "models": [name for name in config.models if name in folders],
        "metrics": measures.metrics,
        "tested": config.tested,
        "k": measures.k,
        "resamples": config.resamples,
        "table": table(methods, config.models, tests, config.seed),
        "tests": tests,
        "curves": [curves_of(name, paths) for name, paths in training.items()],
        "slices": slice_figures(methods, rows, counts, config.tested[:2], config.seed),
        "levels": level_figures(methods),
        "beyond": beyond_figures(methods),
        "vectors": config.vectors and config.vectors.name,
        "examples": {"model": looked_at, "users": examples(looked_at, methods, catalog)},
        "manifest": make_manifest(config, inputs, config.seed),
    }
    return {"title": config.title, "verdict": verdict(report), **report}


def check_config(config: ReportConfig, folders: Mapping[str, Sequence[Path]]) -> None:
    """Raises UserError for what no result can mend."""
    if not folders:
        raise UserError("methods names no result; give {name: folder} of what `evaluate` and `baseline` wrote")
    if not config.tested:
        raise UserError("tested names no metric; the first of them decides what is best")
    for name in config.models:
        if name not in folders and name not in config.failed:
            raise UserError(f"models names {name!r}, which is not among the methods {', '.join(folders)}")
    for metric in (*config.tested, *config.metrics):
        cut_off(metric)
    for name, cost in config.costs.items():
        if not isinstance(cost, dict) or not all(value is None or fits(value, float) for value in cost.values()):
            raise UserError(f"costs: {name!r} must be a map of numbers, as {{seconds: 1.0}}, found {cost!r}")


def curves_of(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """{"training", "x", "panels": {panel: {curve: [points of a seed, ...]}}, "lost"}; points are [x, y].

    lost: how many logged values are no finite numbers, as those of a training that diverged; they are not drawn.
    """
    drawn: dict[str, dict[str, list]] = {}
    lost = 0
    logs = [find_log(folder) for folder in folders]
    for log in logs:
        for panel, curves in panels(read_log(log)).items():
            for curve, points in curves.items():
                finite = [point for point in points if math.isfinite(point[1])]
                lost += len(points) - len(finite)
                if finite:
                    drawn.setdefault(panel, {}).setdefault(curve, []).append(thinned(finite, POINTS))
    return {
        "training": name,
        "x": "epoch" if logs[0].name == "training.jsonl" else "step",
        "panels": drawn,
        "lost": lost,
    }


def write_report(folder: str | Path, report: Mapping[str, Any]) -> None:
    """The three forms. Nothing is measured here, so they cannot differ in a number."""
    folder = Path(folder)
    drawn = sections(report)
    pictures = [picture for section in drawn for picture in pictures_of(section.blocks)]
    check_own("report", {folder / f"{picture.name}.svg": b"--card" for picture in pictures})
    about, made = report["about"], report["manifest"]
    subtitle = (
        f"{about['rows']:,} test rows, {about['items']:,} items, {len(report['table'])} methods; "
        f"ranks of the target item among all items"
    )
    footer = (
        f"mimigenrec {made['versions']['mimigenrec']}, seed {made['seed']}. All numbers are in report.json; "
        f"docs/report.md says how the page is read, docs/metrics.md has the formulas."
    )
    write_json(folder / "report.json", report)
    for picture in pictures:
        with writing(folder / f"{picture.name}.svg") as out:
            out.write(svg_file(picture.svg))
    with writing(folder / "report.md") as out:
        out.write(to_markdown(report["title"], subtitle, drawn, footer))
    with writing(folder / "report.html") as out:
        out.write(to_html(report["title"], subtitle, drawn, footer))


if __name__ == "__main__":
    start(main, ReportConfig)
