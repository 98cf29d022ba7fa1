"""Training logs and metrics.json -> pictures, and the table of methods: `mimigenrec plot`.

Logs, told apart by their content:
    trainer_log.jsonl    LLaMA-Factory: {"current_steps": 10, "loss": ..., "lr": ...} a line
    rl_log.jsonl         ours: {"step": 10, "loss": ..., "reward": ...} a line
    trainer_state.json   transformers: {"log_history": [{"step": 10, "loss": ...}, ...]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mimigenrec.cli import arg, parse
from mimigenrec.evaluation.bars import COLOURS, draw_bars
from mimigenrec.evaluation.result import read_metrics
from mimigenrec.evaluation.table import summary
from mimigenrec.files import read_json, writing
from mimigenrec.logs import read_jsonl

STEP_KEYS = ("step", "current_steps")
MANY = 40  # points from which a curve is drawn thin, with its smoothed form over it
WINDOWS = 20  # half a smoothing window is this part of a curve

Curve = list[tuple[float, float]]  # (step, value)


@dataclass
class PlotConfig:
    """Training curves from logs, metric bars and a Markdown table from results; either or both."""

    output: Path = arg("folder for curves.png, bars.png and table.md")
    logs: list[Path] = arg("trainer_log.jsonl, rl_log.jsonl or trainer_state.json files", factory=list)
    results: list[Path] = arg("metrics.json files or the folders that hold one", factory=list)
    names: list[str] = arg("what to call the results; default: their folders' names", factory=list)
    optimum: Path | None = arg(
        'JSON {"hr@10": 0.5, ...} of the most that any method could reach at item level, where it is known',
        default=None,
    )
    level: Literal["item", "sid"] = arg("rank of the target item, or of its SID", default="item")


def main(config: PlotConfig) -> None:
    if not config.logs and not config.results:
        raise ValueError("nothing to draw; give --logs, --results or both")
    if config.optimum and config.level != "item":
        raise ValueError("--optimum is about items; leave out --level sid")
    output = config.output
    if config.logs:
        draw_curves(output / "curves.png", {_log_name(path): read_log(path) for path in config.logs})
        print(f"{output / 'curves.png'}")
    if config.results:
        results = read_results(config.results, config.names)
        best = read_json(config.optimum, made_by="whoever generated the data") if config.optimum else None
        draw_bars(output / "bars.png", results, config.level, best)
        table = summary(results, config.level, best=best)
        with writing(output / "table.md") as out:
            out.write(table)
        print(f"{output / 'bars.png'}\n\n{table}")


def read_results(paths: Sequence[Path], names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """name -> metrics.json. Raises ValueError unless there is a different name for each."""
    names = list(names) or [_folder_name(path) for path in paths]
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise ValueError(f"{len(paths)} results need as many different --names, found {names}")
    return {name: read_metrics(path) for name, path in zip(names, paths, strict=True)}


def read_log(path: Path) -> dict[str, Curve]:
    """Name -> curve, for all that is a number and comes with a step. Raises ValueError if there is nothing."""
    if path.suffix == ".json":
        events = read_json(path, made_by="transformers' Trainer").get("log_history", [])
    elif path.is_file():
        events = read_jsonl(path)
    else:
        raise FileNotFoundError(f"{path} is missing; training writes it as it goes")
    curves: dict[str, Curve] = {}
    for event in events:
        step = next((event[key] for key in STEP_KEYS if key in event), None)
        for name, value in event.items():
            if step is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
                curves.setdefault(name, []).append((step, value))
    if not curves:
        raise ValueError(f"{path} holds no line with a step and a number; training has logged nothing yet")
    return curves


def panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Panel title -> its curves; panels without a curve are left out.

    RL shows KL and entropy in place of its loss, which is near zero whatever happens: advantages sum to zero.
    """
    chosen = {
        "loss": [name for name in ("loss", "train_loss", "eval_loss") if name in curves],
        "reward": [name for name in curves if name in ("reward", "eval_reward") or _is_reward_mean(name)],
        "validation": [name for name in curves if _is_metric(name)],
    }
    if chosen["reward"]:
        chosen["loss"] = [name for name in chosen["loss"] if name == "eval_loss"]
        chosen["policy"] = [name for name in ("kl", "entropy") if name in curves]
    if "train_loss" in chosen["loss"] and "loss" in chosen["loss"]:
        chosen["loss"].remove("train_loss")  # the mean of the whole run, one point
    return {title: {name: curves[name] for name in names} for title, names in chosen.items() if names}


def draw_curves(path: str | Path, logs: Mapping[str, Mapping[str, Curve]]) -> None:
    """One row of panels per log: loss, reward, HR and NDCG on validation, those that it has.

    Raises ValueError if no log has any of them.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    rows = {name: panels(curves) for name, curves in logs.items()}
    rows = {name: drawn for name, drawn in rows.items() if drawn}
    if not rows:
        raise ValueError(f"none of {', '.join(logs)} logs a loss, a reward, HR or NDCG; there is nothing to draw")
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
            axes.plot(steps, _smoothed(values), color=colour, linewidth=1.6, label=f"{name} (smoothed)")
        else:
            axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=name)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def _smoothed(values: Sequence[float]) -> list[float]:
    """Mean over a window around each point, which narrows towards both ends so that it stays centred."""
    half = max(1, len(values) // WINDOWS)
    means = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        means.append(sum(window) / len(window))
    return means


def _is_reward_mean(name: str) -> bool:
    """TRL's own name for the mean of one reward function: rewards/<function>/mean."""
    return name.startswith("rewards/") and name.endswith("/mean")


def _is_metric(name: str) -> bool:
    return name.removeprefix("eval_").startswith(("hr@", "ndcg@"))


def _log_name(path: Path) -> str:
    return path.resolve().parent.name


def _folder_name(path: Path) -> str:
    return path.parent.name if path.suffix == ".json" else path.name


if __name__ == "__main__":
    main(*parse(PlotConfig))
