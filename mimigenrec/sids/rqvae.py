"""RQ-VAE: an autoencoder whose latent vectors are residual-quantised.

The model and its loss are in sids/autoencoder.py, its training, from k-means codebooks, in sids/train_autoencoder.py.
With balance_last the codes of the training items at the last level are shared out evenly, which parts items that
would share a SID: LC-Rec's uniform semantic mapping. LC-Rec solves it for the items of a collision, here it is solved
for all items at once (sids/balanced.py). New items always get the nearest entries.

Sources: RQ-VAE, Lee et al. 2022, arXiv:2203.01941; as semantic IDs in TIGER, Rajput et al. 2023, arXiv:2305.05065;
LC-Rec, Zheng et al. 2024, arXiv:2311.09049.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, assign, check_sizes, encode, squared_distances
from mimigenrec.sids.training import Training


def fit(
    vectors: np.ndarray,
    sizes: Sequence[int],
    seed: int,
    backend: Backend = "sklearn",
    training: Training | None = None,
    balance_last: bool = True,
    state: Path | None = None,
    curve: Path | None = None,
    overwrite: bool = False,
) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> codebooks, codes (items, levels). state, curve, overwrite:
    see train_autoencoder.train.

    Raises UserError for more codes than items.
    """
    from mimigenrec.sids.train_autoencoder import train

    check_sizes(sizes, len(vectors))
    training = training or Training()
    codebooks = train("rqvae", vectors, sizes, seed, backend, training, False, state, curve, overwrite)
    codes = assign(codebooks, vectors)
    if balance_last:
        codes[:, -1] = even_last_level(codebooks, vectors, codes)
    return codebooks, codes


def even_last_level(codebooks: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(items,) codes of the last level, each used equally often (+-1), near to what the levels above leave over."""
    from mimigenrec.sids.balanced import balanced_codes

    left = encode(codebooks, vectors).copy()
    for level, entries in enumerate(codebooks.levels[:-1]):
        left -= entries[codes[:, level]]
    return balanced_codes(squared_distances(left, codebooks.levels[-1]))[0]
