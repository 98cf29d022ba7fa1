"""Training of the autoencoder of rqvae and rqkmeans_plus, from k-means codebooks, to be stopped and gone on with.

An epoch depends on the state before it, the seed and its number alone. The state goes to a file now and then; a run
that finds the file of the same data and settings goes on from there, to the result it would have had. The caller
removes the file. The loss curve is one JSON line per epoch: {"epoch", "loss", "reconstruction", "commitment"}.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.files import writing
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.sids import rqkmeans
from mimigenrec.sids.autoencoder import Autoencoder
from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, encode
from mimigenrec.sids.training import Training

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
) -> Codebooks:
    """vectors (items, dim) float32 -> codebooks with their encoder.

    skip   the encoder is x + MLP(x)          state, curve   files to go on from and of the losses; None: not kept
    """
    torch.manual_seed(seed)
    batch = min(training.batch_size, len(vectors))
    scale = float(vectors.std(0, dtype=np.float64).mean()) or 1.0
    model = Autoencoder(vectors.shape[1], sizes, training, batch, skip, 1 / scale)
    latent = encode(_codebooks(method, model), vectors)
    start, codes = rqkmeans.fit(latent, sizes, seed, backend)
    model.start_from(start.levels, [np.bincount(codes[:, i], minlength=size) for i, size in enumerate(sizes)])
    del latent

    device = training.device if training.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    settings = _hash(method, vectors, sizes, seed, backend, training)
    done = _load(state, settings, model, optimizer, device)
    data = torch.from_numpy(vectors * np.float32(model.scale))
    with _Curve(curve, done) as losses, tqdm(total=training.epochs, initial=done, desc="epochs", disable=None) as bar:
        for epoch in range(done + 1, training.epochs + 1):
            torch.manual_seed(seed * 1_000_003 + epoch)  # order of the items, and where dead entries go
            loss = epoch_losses(model, optimizer, _batches(data, batch, device))
            losses.write({"epoch": epoch, **loss})
            bar.update()
            bar.set_postfix(loss=f"{loss['loss']:.4g}")
            if state and (epoch % max(1, training.epochs // SAVES) == 0 or epoch == training.epochs):
                _save(state, settings, epoch, model, optimizer)
    return _codebooks(method, model.cpu(), backend)


def epoch_losses(model: Autoencoder, optimizer: torch.optim.Optimizer, batches: Iterator[torch.Tensor]) -> dict:
    """Trains on the batches; mean losses. Raises ValueError if a loss is not a number."""
    sums, count = np.zeros(2), 0
    for x in batches:
        reconstruction, commitment = model(x)
        optimizer.zero_grad()
        (reconstruction + commitment).backward()
        optimizer.step()
        sums, count = sums + (reconstruction.item(), commitment.item()), count + 1
    if not np.isfinite(sums).all():
        raise UserError("the loss of the autoencoder is not a number any more; lower --learning_rate")
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
            kept = [line for line in read_jsonl(path) if line["epoch"] <= done] if done and path.is_file() else []
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


def _hash(method, vectors: np.ndarray, sizes, seed: int, backend: Backend, training: Training) -> str:
    known = hashlib.sha256(np.ascontiguousarray(vectors))
    known.update(json.dumps([method, list(sizes), seed, backend, asdict(training), torch.__version__]).encode())
    return known.hexdigest()


def _save(path: Path, settings: str, epoch: int, model: Autoencoder, optimizer: torch.optim.Optimizer) -> None:
    content = {"settings": settings, "epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with writing(path, "wb") as out:
        torch.save(content, out)


def _load(path: Path | None, settings: str, model: Autoencoder, optimizer, device: str) -> int:
    """The number of epochs done; 0 where there is no state of this training."""
    if not path or not path.is_file():
        return 0
    content = torch.load(path, map_location=device, weights_only=True)
    if content["settings"] != settings:
        log.warning("%s is of other data or settings; training starts anew", path)
        return 0
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    log.info("going on after epoch %d, from %s", content["epoch"], path)
    return content["epoch"]
