"""A code of its own for every item, in one level: nothing is shared, nothing is lost.

For catalogues that a vocabulary can hold. The meaning of an item is then not in its code but in the row that the code
starts from: `mimigenrec add-sids --init vectors`.
"""

from collections.abc import Sequence

import numpy as np

from mimigenrec.sids.quantiser import Codebooks


def fit(vectors: np.ndarray, sizes: Sequence[int], seed: int) -> tuple[Codebooks, np.ndarray]:
    """vectors (items, dim) float32 -> all of them as codebook, codes (items, 1) counting up; sizes, seed: unused."""
    return Codebooks("item_tokens", [vectors.astype(np.float32)]), np.arange(len(vectors))[:, None]
