"""Training of the autoencoder of rqvae and rqkmeans_plus, from k-means codebooks, to be stopped and gone on with.

An epoch depends on the state before it, the seed and its number alone. The state goes to a file now and then; a run
that finds the file of the same data and settings goes on from there, to the result it would have had, and one that
finds another's stops. The caller removes the file. The loss curve is one JSON line per epoch: {"epoch", "loss",
"reconstruction", "commitment"}.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.manifest import check_same_run, differences
from mimigenrec.sids import rqkmeans
from mimigenrec.sids.autoencoder import Autoencoder
from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, encode
from mimigenrec.sids.training import Training
from mimigenrec.state_file import put_back, read_state, write_state

SAVES = 50  # how often the state is saved, over the whole training

log = logging.getLogger(__name__)


def train(
    method: str,
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend,
    training: Training,
    skip: bool,
    state: Path | None = None,
    curve: Path | None = None,
    overwrite: bool = False,
) -> Codebooks:
    """vectors (items, dim) float32 -> codebooks with their encoder.

    skip       the encoder is x + MLP(x)          state, curve   files to go on from and of the losses; None: not kept
    overwrite  whether the state of another training may be replaced
    raises     UserError if the state is of another training, or a loss is not finite
    """
    device = choose_device(training.device)
    torch.manual_seed(seed)
    batch = min(training.batch_size, len(vectors))
    scale = float(vectors.std(0, dtype=np.float64).mean()) or 1.0
    model = Autoencoder(vectors.shape[1], sizes, training, batch, skip, 1 / scale)
    latent = encode(_codebooks(method, model), vectors)
    start, codes = rqkmeans.fit(latent, sizes, seed, backend)
    model.start_from(start.levels, [np.bincount(codes[:, i], minlength=size) for i, size in enumerate(sizes)])
    del latent

    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    run = _run(method, vectors, sizes, seed, backend, training)
    done = _load(state, run, model, optimizer, device, overwrite)
    data = torch.from_numpy(vectors * np.float32(model.scale))
    with _Curve(curve, done) as losses, tqdm(total=training.epochs, initial=done, desc="epochs", disable=None) as bar:
        for epoch in range(done + 1, training.epochs + 1):
            torch.manual_seed(seed * 1_000_003 + epoch)  # order of the items, and where dead entries go
            loss = epoch_losses(model, optimizer, _batches(data, batch, device), epoch)
            losses.write({"epoch": epoch, **loss})
            bar.update()
            bar.set_postfix(loss=f"{loss['loss']:.4g}")
            if state and (epoch % max(1, training.epochs // SAVES) == 0 or epoch == training.epochs):
                write_state(state, model, optimizer, run=run, epoch=epoch)
    return _codebooks(method, model.cpu(), backend)


def epoch_losses(
    model: Autoencoder, optimizer: torch.optim.Optimizer, batches: Iterator[torch.Tensor], epoch: int
) -> dict[str, float]:
    """Trains on the batches; mean losses. Raises UserError naming the step whose loss is not finite."""
    sums, count = np.zeros(2), 0
    for x in batches:
        reconstruction, commitment = model(x)
        optimizer.zero_grad()
        (reconstruction + commitment).backward()
        optimizer.step()
        losses, count = np.array((reconstruction.item(), commitment.item())), count + 1
        if not np.isfinite(losses).all():
            raise UserError(
                f"the loss of the autoencoder became NaN or infinite in epoch {epoch}, step {count}; lower "
                f"--learning_rate"
            )
        sums += losses
    reconstruction, commitment = (sums / count).tolist()
    return {"loss": reconstruction + commitment, "reconstruction": reconstruction, "commitment": commitment}


def _batches(data: torch.Tensor, batch: int, device: str) -> Iterator[torch.Tensor]:
    for rows in torch.randperm(len(data)).split(batch):
        yield data[rows].to(device)


def _codebooks(method: str, model: Autoencoder, backend: Backend | None = None) -> Codebooks:
    levels, weights = model.arrays()
    return Codebooks(method, levels, weights, {"skip": model.skip, "backend": backend})


class _Curve:
    """The JSONL of the losses, cut back to the epochs that the state has seen; nothing where there is no path."""

    def __init__(self, path: Path | None, done: int):
        self.writer = None
        if path:
            lines = read_jsonl(path) if done and path.is_file() else []
            kept = [line for line in lines if isinstance(line, dict) and 0 < line.get("epoch", 0) <= done]
            path.unlink(missing_ok=True)
            self.writer = JsonlWriter(path)
            for line in kept:
                self.writer.write(line)

    def write(self, line: dict) -> None:
        if self.writer:
            self.writer.write(line)

    def __enter__(self) -> "_Curve":
        return self

    def __exit__(self, *error) -> None:
        if self.writer:
            self.writer.close()


def _run(method, vectors: np.ndarray, sizes, seed: int, backend: Backend, training: Training) -> dict[str, Any]:
    """What the training depends on, in the form of a manifest."""
    settings = {"method": method, "sizes": list(sizes), "seed": seed, "backend": backend, **asdict(training)}
    content = hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()
    return {"config": {**settings, "torch": str(torch.__version__)}, "inputs": {"vectors": content}}


def _load(path: Path | None, run: Mapping, model: Autoencoder, optimizer, device: str, overwrite: bool) -> int:
    """The number of epochs done; 0 where there is no state of this training.

    Raises UserError for a damaged state, and for another training's unless it may be overwritten.
    """
    if not path or not path.is_file():
        return 0
    found = read_state(path, ("run", "epoch"), device)
    if differences(found["run"], run, ("device",)):
        if not overwrite:
            check_same_run(path, found["run"], run, ("device",), "--overwrite")
        return 0
    put_back(path, found, model, optimizer)
    log.info("going on after epoch %d, from %s", found["epoch"], path)
    return found["epoch"]
