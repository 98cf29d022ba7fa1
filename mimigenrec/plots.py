"""Training logs and metrics.json -> pictures, and the table of methods: `mimigenrec plot`.

The logs that it reads are named in evaluation/curves.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.evaluation.bars import COLOURS, draw_bars
from mimigenrec.evaluation.curves import Curve, panels, read_log, smoothed
from mimigenrec.evaluation.outputs import check_own
from mimigenrec.evaluation.result import read_metrics
from mimigenrec.evaluation.table import summary
from mimigenrec.files import read_json, writing
from mimigenrec.schema import fits

MANY = 40  # points from which a curve is drawn thin, with its smoothed form over it


@dataclass
class PlotConfig:
    """Training curves from logs, metric bars and a Markdown table from results; either or both."""

    output: Path = arg("folder for curves.png, bars.png and table.md")
    logs: list[Path] = arg("trainer_log.jsonl, rl_log.jsonl or trainer_state.json files", factory=list)
    results: list[Path] = arg("metrics.json files or the folders that hold one", factory=list)
    names: list[str] = arg("names of the results; default: those of their folders", factory=list)
    optimum: Path | None = arg(
        'JSON {"hr@10": 0.5, ...} of the most that any method could reach at item level, where it is known',
        default=None,
    )
    level: Literal["item", "sid"] = arg("rank of the target item, or of its SID", default="item")


def main(config: PlotConfig) -> None:
    if not config.logs and not config.results:
        raise UserError("nothing to draw; give --logs, --results or both")
    if config.optimum and config.level != "item":
        raise UserError("--optimum is about items; leave out --level sid")
    output = config.output
    if config.logs:
        check_own("plot", {output / "curves.png": b"Matplotlib"})
    if config.results:
        check_own("plot", {output / "bars.png": b"Matplotlib", output / "table.md": b"| method |"})
    if config.logs:
        draw_curves(output / "curves.png", {_log_name(path): read_log(path) for path in config.logs})
        print(f"{output / 'curves.png'}")
    if config.results:
        results = read_results(config.results, config.names)
        best = read_optimum(config.optimum, results) if config.optimum else None
        draw_bars(output / "bars.png", results, config.level, best)
        table = summary(results, config.level, best=best)
        with writing(output / "table.md") as out:
            out.write(table)
        print(f"{output / 'bars.png'}\n\n{table}")


def read_results(paths: Sequence[Path], names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """name -> metrics.json. Raises UserError unless there is a different name for each."""
    names = list(names) or [_folder_name(path) for path in paths]
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise UserError(f"{len(paths)} results need as many different --names, found {names}")
    return {name: read_metrics(path) for name, path in zip(names, paths, strict=True)}


def read_optimum(path: Path, results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """{"hr@10": 0.5, ...}; a key without @ is no metric and is left out.

    Raises UserError for a value that cannot be, and if the file names no metric that the results have.
    """
    content = read_json(path, made_by="whoever generated the data", kind=dict)
    best = {name: value for name, value in content.items() if "@" in name}
    for name, value in best.items():
        if not fits(value, float) or not 0 < value <= 1:
            raise UserError(f"--optimum {path}: {name} must be a number above 0 and at most 1, found {value!r}")
    if not any(name in metrics["item"] for name in best for metrics in results.values()):
        raise UserError(
            f"--optimum {path} names none of the metrics in the results: {', '.join(content) or 'nothing'}"
        )
    return best


def draw_curves(path: str | Path, logs: Mapping[str, Mapping[str, Curve]]) -> None:
    """One row of panels per log: loss, reward, HR and NDCG on validation, those that it has.

    Raises UserError if no log has any of them.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    rows = {name: panels(curves) for name, curves in logs.items()}
    rows = {name: drawn for name, drawn in rows.items() if drawn}
    if not rows:
        raise UserError(f"none of {', '.join(logs)} logs a loss, a reward, HR or NDCG; there is nothing to draw")
    width = max(map(len, rows.values()))
    figure = Figure(figsize=(4.6 * width, 3.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes_row, (name, drawn) in zip(grid, rows.items(), strict=True):
        for axes in axes_row[len(drawn) :]:
            axes.axis("off")
        for axes, (title, curves) in zip(axes_row, drawn.items(), strict=False):
            _draw_panel(axes, f"{name}: {title}", curves)
    with writing(path, "wb") as out:
        figure.savefig(out, format="png", dpi=130)


def _draw_panel(axes, title: str, curves: Mapping[str, Curve]) -> None:
    for place, (name, curve) in enumerate(curves.items()):
        steps, values = zip(*curve, strict=True)
        colour = COLOURS[place % len(COLOURS)]
        if len(curve) >= MANY:
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(values), color=colour, linewidth=1.6, label=f"{name} (smoothed)")
        else:
            axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=name)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def _log_name(path: Path) -> str:
    return path.resolve().parent.name


def _folder_name(path: Path) -> str:
    return path.parent.name if path.suffix == ".json" else path.name


if __name__ == "__main__":
    start(main, PlotConfig)
