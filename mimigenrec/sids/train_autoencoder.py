"""Training of the autoencoder of rqvae and rqkmeans_plus, from k-means codebooks.

fit.py says how it is stopped and gone on with; the caller removes the state. The loss curve is one JSON line per
epoch: {"epoch", "loss", "reconstruction", "commitment"}.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mimigenrec.environment.devices import choose_device
from mimigenrec.fit import Schedule, fit
from mimigenrec.sids import rqkmeans
from mimigenrec.sids.autoencoder import Autoencoder
from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, encode
from mimigenrec.sids.training import Training

SAVES = 50  # how often the state is saved, over the whole training


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

    model.to(device)
    data = torch.from_numpy(vectors * np.float32(model.scale))

    def losses(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(("reconstruction", "commitment"), model(data[rows].to(device)), strict=True))

    fit(
        model,
        torch.optim.AdamW(model.parameters(), lr=training.learning_rate),
        losses,  # which also moves dead entries, to items drawn at random
        Schedule(len(data), batch, training.epochs, seed, save_every=max(1, training.epochs // SAVES)),
        settings={
            "method": method,
            "sizes": list(sizes),
            "seed": seed,
            "backend": backend,
            **{name: value for name, value in asdict(training).items() if name != "device"},
            "vectors": hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest(),
        },
        state_file=state,
        log_file=curve,
        overwrite=overwrite,
    )
    return _codebooks(method, model.cpu(), backend)


def _codebooks(method: str, model: Autoencoder, backend: Backend | None = None) -> Codebooks:
    levels, weights = model.arrays()
    return Codebooks(method, levels, weights, {"skip": model.skip, "backend": backend})
