"""A training of our own, epoch by epoch, to be stopped and gone on with: sequence baselines, autoencoders.

state file   model, optimizer, the settings, how far training got and, with validation, the best model so far
log file     {"epoch", "loss", its parts where it has several, what validation measured, "seconds"} a line

An epoch depends on the state before it, the seed and its number alone, so a training that was killed ends where it
would have ended, on a CPU to the bit. A state of other settings or data is refused, or replaced where the caller says
so. With more epochs or patience a finished training goes on, unless they are among its settings.
"""

import logging
import time
import zipfile
from _pickle import UnpicklingError  # the class of torch.load's error; nothing is unpickled here
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.files import writing
from mimigenrec.logs import JsonlWriter, cut_back
from mimigenrec.manifest import check_same_run

Loss = Callable[[Tensor], Mapping[str, Tensor]]

log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    examples: int  # how many there are
    batch_size: int
    epochs: int  # at most
    seed: int
    patience: int | None = None  # epochs without a better validation, after which training stops
    save_every: int = 1  # epochs between two saves of the state; the last epoch is always saved


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    schedule: Schedule,
    settings: Mapping[str, Any],
    state_file: Path | None,
    log_file: Path | None,
    overwrite: bool = False,
    validate: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Trains in place; with validation the model holds the weights of its best epoch at the end.

    loss         of the examples of these numbers (B,): its parts by name, scalars; their sum is minimised
    settings     what the result depends on, by name, as JSON
    state_file, log_file   None: not kept
    overwrite    starts anew where the state cannot be gone on with
    validate     metrics of the model as it is, by name; the first decides which epoch is best, higher is better
    raises       UserError if the loss or a weight is no number any more, or the state is damaged, of another training,
                 or of one that went further
    """
    state: dict[str, Any] = {"epoch": 0, "best": -1.0, "best_epoch": 0, "best_model": None, "waited": 0}
    state["settings"] = {**settings, "torch": str(torch.__version__)}
    if saved := _saved(state_file, state, schedule, overwrite):
        put_back(state_file, saved, model, optimizer)
        state = {name: saved[name] for name in state}
        log.info("going on after epoch %d, from %s", state["epoch"], state_file)
    if log_file:
        cut_back(log_file, "epoch", state["epoch"])
    steps = -(-schedule.examples // schedule.batch_size)
    bar = tqdm(total=schedule.epochs * steps, initial=state["epoch"] * steps, unit="batch", disable=None)
    with bar, JsonlWriter(log_file) if log_file else nullcontext() as lines:
        while state["epoch"] < schedule.epochs and not _patience_is_over(state, schedule):
            started, epoch = time.perf_counter(), state["epoch"] + 1
            state["waited"] = max(state["waited"], state["epoch"] - state["best_epoch"])
            bar.set_description(f"epoch {epoch}")
            line = {"epoch": epoch, **epoch_losses(model, optimizer, loss, schedule, epoch, bar)}
            if validate:
                metrics = _validated(model, validate)
                line |= {**metrics, "seconds": round(time.perf_counter() - started, 2)}
                score = next(iter(metrics.values()))
                if state["best_model"] is None or score > state["best"]:
                    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                    state |= {"best": score, "best_epoch": epoch, "best_model": weights}
            state["epoch"] = epoch
            if lines:
                lines.write(line)
            last = epoch == schedule.epochs or _patience_is_over(state, schedule)
            if state_file and (last or epoch % schedule.save_every == 0):
                write_state(state_file, model, optimizer, **state)
    if validate:
        model.load_state_dict(state["best_model"])
        log.info("best epoch %d of %d, with %.4f on valid", state["best_epoch"], state["epoch"], state["best"])
    model.eval()


def epoch_losses(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, schedule: Schedule, epoch: int, bar: tqdm
) -> dict[str, float]:
    """Means over the batches, in an order drawn from the seed and the epoch's number: {"loss": their sum, parts}.

    Raises UserError if the loss or a weight is no number any more: what such a model says would look like a result.
    """
    torch.manual_seed(schedule.seed * 1_000_003 + epoch)
    batches = torch.randperm(schedule.examples).split(schedule.batch_size)
    model.train()
    sums: dict[str, float] = {}
    for step, numbers in enumerate(batches, 1):
        parts = loss(numbers)
        total = sum(parts.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if not total.isfinite():
            raise UserError(f"the loss became NaN or infinite in epoch {epoch}, step {step}; lower --learning_rate")
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        bar.set_postfix(loss=f"{total.item():.4g}", refresh=False)
        bar.update()
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise UserError(f"weights are not numbers any more after epoch {epoch}; lower --learning_rate")
    means = {name: value / len(batches) for name, value in sums.items()}
    return {"loss": sum(means.values()), **(means if len(means) > 1 else {})}


def write_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **facts: Any) -> None:
    """facts: what tells of which training this is and how far it got, by name."""
    with writing(path, "wb") as out:
        torch.save({**facts, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, out)


def read_state(path: Path, facts: Collection[str]) -> dict[str, Any]:
    """The facts of these names, "model" and "optimizer". Raises UserError if the file is not as written above."""
    try:
        with open(path, "rb") as file:  # torch.save writes a zip archive, whose end says what it holds
            if not zipfile.is_zipfile(file):
                raise EOFError
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise UserError(_damaged(path)) from error
    if not isinstance(state, dict) or not {*facts, "model", "optimizer"} <= state.keys():
        raise UserError(_damaged(path))
    return state


def put_back(path: Path, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gives both what `read_state` found in `path`. Raises UserError if it is not theirs."""
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(_damaged(path)) from error


def _saved(path: Path | None, begun: dict[str, Any], schedule: Schedule, overwrite: bool) -> dict[str, Any] | None:
    """The state in the file; None where there is none, or where one that does not serve may be overwritten.

    begun   that of a training which has done nothing yet, with its settings

    Raises UserError if the file is damaged, of other settings, or further than epochs and patience allow.
    """
    if not path or not path.is_file():
        return None
    try:
        state = read_state(path, begun)
        before, now = {"config": state["settings"]}, {"config": begun["settings"]}
        check_same_run(path, before, now, free=(), overwrite="--overwrite")
        waited_longer = schedule.patience is not None and state["waited"] >= schedule.patience
        if state["epoch"] > schedule.epochs or waited_longer:
            raise UserError(
                f"{path} is at epoch {state['epoch']}, further than --epochs {schedule.epochs} and --patience "
                f"{schedule.patience} lead; raise them, take another folder, or --overwrite to start anew"
            )
    except UserError:
        if overwrite:
            return None
        raise
    return state


def _patience_is_over(state: Mapping[str, Any], schedule: Schedule) -> bool:
    return schedule.patience is not None and state["epoch"] - state["best_epoch"] >= schedule.patience


def _validated(model: nn.Module, validate: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    model.eval()
    with torch.no_grad():
        return validate()


def _damaged(path: Path) -> str:
    return f"{path} is damaged, or by an earlier version; delete it to train from the start"
