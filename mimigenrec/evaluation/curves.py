"""What a training logged, as curves over its steps. Logs, told apart by their content:

trainer_log.jsonl    LLaMA-Factory: {"current_steps": 10, "loss": ..., "lr": ...} a line
rl_log.jsonl         ours: {"step": 10, "loss": ..., "reward": ...} a line
training.jsonl       a network among the baselines: {"epoch": 1, "loss": ..., "ndcg@10": ...} a line
trainer_state.json   transformers: {"log_history": [{"step": 10, "loss": ...}, ...]}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.logs import read_jsonl
from mimigenrec.schema import check, read_map

STEP_KEYS = ("step", "current_steps", "epoch")  # the first that a line has; an epoch where no step is counted
LOGS = ("rl_log.jsonl", "trainer_log.jsonl", "training.jsonl")
WINDOWS = 20  # half a smoothing window is this part of a curve

Curve = list[tuple[float, float]]  # (step, value)


def find_log(folder: str | Path) -> Path:
    """The log that training wrote into its folder. Raises FileNotFoundError naming those that were looked for."""
    logs = [path for name in LOGS if (path := Path(folder) / name).is_file()]
    if not logs:
        raise FileNotFoundError(f"{folder} holds no log of a training ({', '.join(LOGS)})")
    return logs[0]


def read_log(path: Path) -> dict[str, Curve]:
    """Name -> curve, for all that is a number and comes with a step. Raises UserError if there is nothing."""
    if path.suffix == ".json":
        events = read_map(path, {"log_history?": [dict]}, made_by="transformers' Trainer").get("log_history", [])
    else:
        events = read_events(path)
    curves: dict[str, Curve] = {}
    for event in events:
        step = next((event[key] for key in STEP_KEYS if key in event), None)
        for name, value in event.items():
            if _is_number(step) and _is_number(value):
                curves.setdefault(name, []).append((step, value))
    if not curves:
        raise UserError(f"{path} holds no line with a step and a number; training has logged nothing yet")
    return curves


def read_events(path: Path) -> list[dict]:
    """The lines of a log. Raises FileNotFoundError, and UserError naming a line that is no map."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; training writes it as it goes")
    events = read_jsonl(path)
    for number, event in enumerate(events, 1):
        check(event, dict, f"{path}, line {number}", "it comes from training")
    return events


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


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over a window around each point, which narrows towards both ends so that it stays centred."""
    half = max(1, len(values) // WINDOWS)
    means = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        means.append(sum(window) / len(window))
    return means


def thinned(curve: Curve, points: int) -> Curve:
    """At most so many points: the means of as many stretches of about equal length."""
    if len(curve) <= points:
        return list(curve)
    edges = [i * len(curve) // points for i in range(points + 1)]
    stretches = [curve[start:end] for start, end in zip(edges[:-1], edges[1:], strict=True)]
    return [tuple(sum(values) / len(values) for values in zip(*stretch, strict=True)) for stretch in stretches]


def _is_reward_mean(name: str) -> bool:
    """TRL's own name for the mean of one reward function: rewards/<function>/mean."""
    return name.startswith("rewards/") and name.endswith("/mean")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_metric(name: str) -> bool:
    return name.removeprefix("eval_").startswith(("hr@", "ndcg@"))
