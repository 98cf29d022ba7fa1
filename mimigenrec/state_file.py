"""The state of a training of our own in one file, to be gone on with: model, optimizer, and how far it got."""

import zipfile
from _pickle import UnpicklingError  # the class of torch.load's error; nothing is unpickled here
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mimigenrec.errors import UserError
from mimigenrec.files import writing


def write_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **facts: Any) -> None:
    """facts: what tells of which training this is and how far it got, by name."""
    with writing(path, "wb") as out:
        torch.save({**facts, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, out)


def read_state(path: Path, facts: Collection[str], device: str = "cpu") -> dict[str, Any]:
    """The facts of these names, "model" and "optimizer". Raises UserError if the file is not as written above."""
    try:
        with open(path, "rb") as file:  # torch.save writes a zip archive, whose end says what it holds
            if not zipfile.is_zipfile(file):
                raise EOFError
        state = torch.load(path, map_location=device, weights_only=True)
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


def _damaged(path: Path) -> str:
    return f"{path} is damaged, or by an earlier version; delete it to train from the start"
