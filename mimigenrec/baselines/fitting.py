"""Training of a network with early stopping on valid, to be stopped and gone on with.

    training.pt      model, optimizer, the best model so far and how far training got; written after every epoch
    training.jsonl   {"epoch", "loss", "ndcg@10", "seconds"} a line

An epoch depends on the state before it, the seed and its number alone, so a run that was killed ends where it would
have ended, on a CPU to the bit. With more epochs or patience a finished one goes on. With fewer it cannot go back.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mimigenrec.baselines.network import Network
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.manifest import check_same_run
from mimigenrec.state_file import put_back, read_state, write_state

FREE = ("device", "epochs", "patience")  # where and how long: no epoch depends on them

log = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    examples: Sequence[Any],
    loss: Callable[[list[Any]], Tensor],
    ndcg: Callable[[], float],
    network: Network,
    seed: int,
    folder: Path,
    depends_on: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Trains in place; at the end the model holds the weights of its best epoch.

    loss         of a batch of examples, nats, to be minimised
    ndcg         NDCG@10 on valid of the model as it is; higher is better
    depends_on   what else the result depends on, by name, as JSON
    overwrite    starts over where the folder holds a training that cannot be gone on with
    raises       UserError if nothing is to be learnt, the loss or a weight is no number any more, or the folder holds
                 another training, or one that went further
    """
    if not examples:
        raise UserError("train holds no sequence of two items that have a SID; there is nothing to learn")
    optimizer = torch.optim.Adam(model.parameters(), lr=network.learning_rate, weight_decay=network.weight_decay)
    state = {"epoch": 0, "best": -1.0, "best_epoch": 0, "best_model": None, "waited": 0}
    state["settings"] = {
        **{name: value for name, value in asdict(network).items() if name not in FREE},
        "seed": seed,
        "torch": str(torch.__version__),
        "examples": _hash(examples),
        **{name: value if isinstance(value, str | bool) else _hash(value) for name, value in depends_on.items()},
    }
    if there := _to_go_on_with(folder / "training.pt", state, network, overwrite):
        put_back(folder / "training.pt", there, model, optimizer)
        state = {name: there[name] for name in state}
        log.info("going on after epoch %d, from %s", state["epoch"], folder / "training.pt")
    with _curve(folder / "training.jsonl", state["epoch"]) as curve:
        while state["epoch"] < network.epochs and state["epoch"] - state["best_epoch"] < network.patience:
            started, epoch = time.perf_counter(), state["epoch"] + 1
            state["waited"] = max(state["waited"], state["epoch"] - state["best_epoch"])
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
            write_state(folder / "training.pt", model, optimizer, **state)
    model.load_state_dict(state["best_model"])
    model.eval()
    log.info("best epoch %d of %d: NDCG@10 %.4f on valid", state["best_epoch"], state["epoch"], state["best"])


def rows_to_stop_by(valid: Sequence[History], items: Container[str], network: Network) -> Sequence[History]:
    """The first rows of valid, as many as are asked for. Raises UserError if none has a target among the items."""
    rows = valid[: network.valid_rows]
    if not any(row.target in items for row in rows):
        raise UserError(f"none of the {len(rows)} valid rows has a target with a SID; nothing says when to stop")
    return rows


def no_numbers(method: str, row: int) -> str:
    """What to say where a trained network ranks by NaN or infinity, by which any order looks like a result."""
    return (
        f"{method} scores the items of row {row} by NaN or infinity: its weights are damaged, or training diverged; "
        f"train it again, with a lower --learning_rate"
    )


def _epoch(model, optimizer, examples, loss, batch_size: int, seed: int, epoch: int) -> float:
    """Mean loss of the batches, in an order drawn from the seed and the epoch's number.

    Raises UserError if the loss or a weight is no number any more: ranks by such scores would look like results.
    """
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
    if not math.isfinite(total):
        raise UserError(f"the loss is not a number any more in epoch {epoch}; lower --learning_rate")
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise UserError(f"weights are not numbers any more after epoch {epoch}; lower --learning_rate")
    return total / len(batches)


def _curve(path: Path, done: int) -> JsonlWriter:
    """The log, cut back to the epochs that the state has seen. Raises UserError naming a line that is none of ours."""
    lines = read_jsonl(path) if path.is_file() else []
    for line in lines:
        if not isinstance(line, dict) or not isinstance(line.get("epoch"), int):
            raise UserError(f"{path}: {str(line)[:80]!r} tells of no epoch; delete the file, which is a log alone")
    kept = [line for line in lines if line["epoch"] <= done]
    path.unlink(missing_ok=True)
    writer = JsonlWriter(path)
    for line in kept:
        writer.write(line)
    return writer


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _to_go_on_with(path: Path, begun: dict[str, Any], network: Network, overwrite: bool) -> dict | None:
    """The state in the file; None where there is none, or where one that does not serve may be overwritten.

    begun   that of a training which has done nothing yet, with its settings

    Raises UserError if the file is damaged, of other settings, or further than epochs and patience allow.
    """
    if not path.is_file():
        return None
    try:
        state = read_state(path, begun)
        before, now = {"config": state["settings"]}, {"config": begun["settings"]}
        check_same_run(path, before, now, free=(), overwrite="--overwrite")
        if state["epoch"] > network.epochs or state["waited"] >= network.patience:
            raise UserError(
                f"{path} is at epoch {state['epoch']}, further than --epochs {network.epochs} and --patience "
                f"{network.patience} lead; raise them, take another folder, or --overwrite to start anew"
            )
    except UserError:
        if overwrite:
            return None
        raise
    return state
