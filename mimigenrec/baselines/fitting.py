"""Training of a sequence baseline with early stopping on valid; fit.py says how it is stopped and gone on with.

    training.pt      the state of the training, written after every epoch
    training.jsonl   {"epoch", "loss", "ndcg@10", "seconds"} a line

With more epochs or patience a finished training goes on. With fewer it cannot go back.
"""

import hashlib
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimigenrec.baselines.network import Network
from mimigenrec.errors import UserError
from mimigenrec.fit import Schedule, fit
from mimigenrec.interactions.inter_file import History

FREE = ("device", "epochs", "patience")  # where and how long: no epoch depends on them


def fit_network(
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
    raises       UserError if nothing is to be learnt, and as fit.fit does
    """
    if not examples:
        raise UserError("train holds no sequence of two items that have a SID; there is nothing to learn")
    fit(
        model,
        torch.optim.Adam(model.parameters(), lr=network.learning_rate, weight_decay=network.weight_decay),
        lambda numbers: {"loss": loss([examples[number] for number in numbers.tolist()])},
        Schedule(len(examples), network.batch_size, network.epochs, seed, network.patience),
        settings={
            **{name: value for name, value in asdict(network).items() if name not in FREE},
            "seed": seed,
            "examples": _hash(examples),
            **{name: value if isinstance(value, str | bool) else _hash(value) for name, value in depends_on.items()},
        },
        state_file=folder / "training.pt",
        log_file=folder / "training.jsonl",
        overwrite=overwrite,
        validate=lambda: {"ndcg@10": ndcg()},
    )


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


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
