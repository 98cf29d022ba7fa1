"""Training of a network with early stopping on valid, to be stopped and gone on with.

    training.pt      model, optimizer, the best model so far and how far training got; written after every epoch
    training.jsonl   {"epoch", "loss", "ndcg@10", "seconds"} a line

An epoch depends on the state before it, the seed and its number alone, so a run that was killed ends where it would
have ended, on a CPU to the bit; with more epochs or patience a finished one goes on, with fewer one is ended.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mimigenrec.baselines.network import Network
from mimigenrec.errors import UserError
from mimigenrec.files import writing
from mimigenrec.interactions.inter_file import History
from mimigenrec.logs import JsonlWriter, read_jsonl

log = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    examples: Sequence[Any],
    loss: Callable[[list[Any]], Tensor],
    ndcg: Callable[[], float],
    network: Network,
    seed: int,
    folder: Path,
    depends_on: Any,
) -> None:
    """Trains in place; at the end the model holds the weights of its best epoch.

    loss         of a batch of examples, nats, to be minimised
    ndcg         NDCG@10 on valid of the model as it is; higher is better
    depends_on   what else the result depends on, as JSON: names a training in the folder that can be gone on with
    raises       ValueError if nothing is to be learnt, the loss is no number any more, or the folder holds another
                 training
    """
    if min(network.epochs, network.patience, network.batch_size) < 1:
        raise UserError(
            f"--epochs {network.epochs}, --patience {network.patience} and --batch_size {network.batch_size} must be "
            f"at least 1"
        )
    if not examples:
        raise UserError("train holds no sequence of two items that have a SID; there is nothing to learn")
    optimizer = torch.optim.Adam(model.parameters(), lr=network.learning_rate, weight_decay=network.weight_decay)
    state = {"epoch": 0, "best": -1.0, "best_epoch": 0, "best_model": None}
    free = {"device": None, "epochs": None, "patience": None}  # where and how long: no epoch depends on them
    state["settings"] = _hash({**asdict(network), **free}, seed, examples, depends_on)
    state = _load(folder / "training.pt", state, model, optimizer)
    with _curve(folder / "training.jsonl", state["epoch"]) as curve:
        while state["epoch"] < network.epochs and state["epoch"] - state["best_epoch"] < network.patience:
            started, epoch = time.perf_counter(), state["epoch"] + 1
            mean = _epoch(model, optimizer, examples, loss, network.batch_size, seed, epoch)
            model.eval()
            with torch.no_grad():
                score = ndcg()
            if score > state["best"]:
                weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                state |= {"best": score, "best_epoch": epoch, "best_model": weights}
            state["epoch"] = epoch
            seconds = round(time.perf_counter() - started, 2)
            curve.write({"epoch": epoch, "loss": mean, "ndcg@10": score, "seconds": seconds})
            _save(folder / "training.pt", state, model, optimizer)
    model.load_state_dict(state["best_model"])
    model.eval()
    log.info("best epoch %d of %d: NDCG@10 %.4f on valid", state["best_epoch"], state["epoch"], state["best"])


def device_of(network: Network) -> str:
    if network.device != "auto":
        return network.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def rows_to_stop_by(valid: Sequence[History], items: Container[str], network: Network) -> Sequence[History]:
    """The first rows of valid, as many as are asked for. Raises ValueError if none has a target among the items."""
    rows = valid[: network.valid_rows]
    if not any(row.target in items for row in rows):
        raise UserError(f"none of the {len(rows)} valid rows has a target with a SID; nothing says when to stop")
    return rows


def _epoch(model, optimizer, examples, loss, batch_size: int, seed: int, epoch: int) -> float:
    """Mean loss of the batches, in an order drawn from the seed and the epoch's number."""
    torch.manual_seed(seed * 1_000_003 + epoch)
    batches = torch.randperm(len(examples)).split(batch_size)
    model.train()
    total = 0.0
    bar = tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None)
    for rows in bar:
        value = loss([examples[row] for row in rows.tolist()])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += value.item()
        bar.set_postfix(loss=f"{value.item():.4g}")
    if not torch.isfinite(torch.tensor(total)):
        raise UserError(f"the loss is not a number any more in epoch {epoch}; lower --learning_rate")
    return total / len(batches)


def _curve(path: Path, done: int) -> JsonlWriter:
    """The log, cut back to the epochs that the state has seen."""
    kept = [line for line in read_jsonl(path) if line["epoch"] <= done] if path.is_file() else []
    path.unlink(missing_ok=True)
    writer = JsonlWriter(path)
    for line in kept:
        writer.write(line)
    return writer


def _hash(*settings: Any) -> str:
    return hashlib.sha256(json.dumps([*settings, torch.__version__]).encode()).hexdigest()


def _save(path: Path, state: dict, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with writing(path, "wb") as out:
        torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, out)


def _load(path: Path, fresh: dict, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """The state in the file, put into model and optimizer; `fresh` where there is none."""
    if not path.is_file():
        return fresh
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != fresh["settings"]:
        raise UserError(f"{path} is of other data, settings or versions; choose another --output or delete the file")
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    log.info("going on after epoch %d, from %s", state["epoch"], path)
    return state
