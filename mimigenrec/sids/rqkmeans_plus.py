"""RQ-KMeans+: RQ-KMeans codebooks as the start of a residual autoencoder that is then trained.

What is built: encoder z = x + f(x) and decoder y = q + g(q), where f and g are MLPs whose last layer starts at zero.
So the latent space starts as the input space, RQ-KMeans on the vectors is the exact start of the codebooks, and the
loss starts at the error of RQ-KMeans. Everything is then trained with the loss of RQ-VAE (sids/autoencoder.py),
codebooks by running means. Items, old and new, get the nearest entries.

Source: the tokenizer of GPR, arXiv:2511.10138 (2025): RQ-KMeans initialises the codebooks, the encoder has a residual
connection, the loss is that of RQ-VAE. Widths, the mirrored decoder and the zero start are ours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, assign, check_sizes
from mimigenrec.sids.training import Training


def fit(
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend = "sklearn",
    training: Training | None = None,
    state: Path | None = None,
    curve: Path | None = None,
    overwrite: bool = False,
) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> codebooks, codes (items, levels). state, curve, overwrite:
    see train_autoencoder.train.

    Raises UserError for more codes than items. training.latent is not used: the latent space has the input's width.
    """
    from mimigenrec.sids.train_autoencoder import train

    check_sizes(sizes, len(vectors))
    training = training or Training()
    codebooks = train("rqkmeans_plus", vectors, sizes, seed, backend, training, True, state, curve, overwrite)
    return codebooks, assign(codebooks, vectors)
