"""HR@K and NDCG@K of one or several methods as bars with their intervals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimigenrec.files import writing

COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860", "#DA8BC3", "#8C8C8C")
LEVELS = {"item": "item level", "sid": "SID level"}


def draw_bars(
    path: str | Path,
    results: Mapping[str, Mapping[str, Any]],
    level: str = "item",
    best: Mapping[str, float] | None = None,
) -> None:
    """results: method name -> metrics.json. Draws the cut-offs that all methods have.

    best   metric -> the most that any method could reach, drawn as a dashed line over its bars
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no state, any thread

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("hr", "ndcg"), strict=True):
        _draw_panel(axes, results, level, name, best or {})
    rows = {metrics["n_rows"] for metrics in results.values()}
    figure.suptitle(f"{' / '.join(map(str, sorted(rows)))} test rows, {LEVELS[level]}, 95 % intervals", fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    with writing(path, "wb") as out:
        figure.savefig(out, format="png", dpi=130)


def _draw_panel(axes, results: Mapping[str, Mapping[str, Any]], level: str, name: str, best: Mapping) -> None:
    first = next(iter(results.values()))[level]
    ks = [key.split("@")[1] for key in first if key.startswith(f"{name}@")]
    ks = [k for k in ks if all(f"{name}@{k}" in metrics[level] for metrics in results.values())]
    width = 0.8 / len(results)
    for place, (method, metrics) in enumerate(results.items()):
        values = [metrics[level][f"{name}@{k}"] for k in ks]
        means = [value["mean"] for value in values]
        errors = [[v["mean"] - v["low"] for v in values], [v["high"] - v["mean"] for v in values]]
        left = [i + (place + 0.5) * width - 0.4 for i in range(len(ks))]
        bars = axes.bar(left, means, width * 0.92, label=method, color=COLOURS[place % len(COLOURS)], zorder=2)
        axes.errorbar(left, means, errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2, zorder=3)
        if len(results) <= 3:
            for bar, mean, above in zip(bars, means, errors[1], strict=True):
                at = (bar.get_x() + bar.get_width() / 2, mean + above)
                axes.annotate(f"{mean:.3f}", at, (0, 3), textcoords="offset points", ha="center", fontsize=6.5)
    limits = [(i, best[f"{name}@{k}"]) for i, k in enumerate(ks) if f"{name}@{k}" in best]
    for i, limit in limits:
        label = "best possible" if i == limits[0][0] else None
        axes.plot([i - 0.45, i + 0.45], [limit, limit], color="black", linestyle="--", linewidth=1.2, label=label)
    axes.set_xticks(range(len(ks)), [f"@{k}" for k in ks])
    axes.set_ylabel(f"{name.upper()}@K")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#DDDDDD", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
