"""Item vectors from who had what: factors of the user-item matrix of the train rows, by alternating least squares.

    mimigenrec embed-als --items C.item.json --train C.train.inter --output C.emb-als.npy

Only C.train.inter is read, so nothing of valid or test can leak in. A user has had an item if it is in a history or a
target of one of the user's rows. Items without a train row get a vector of zeros. Vectors of any other model enter
the pipeline as a .npy file of the same shape (vectors/store.py).
Source: Hu, Koren and Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets", in the package implicit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.extras import INSTALL_SIDS
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.items import read_items
from mimigenrec.manifest import make_manifest
from mimigenrec.vectors.store import check_output, is_finished, write_vectors

FREE = ("items", "train", "output", "overwrite")  # the vectors depend on the content of the files alone


@dataclass
class AlsConfig:
    """Train interactions -> item vectors (items, dim) by alternating least squares."""

    items: Path = arg("C.item.json, for the item ids")
    train: Path = arg("C.train.inter")
    output: Path = arg("C.emb-NAME.npy to write; C.emb-NAME.json says what it holds")
    dim: int = arg("numbers per vector", default=64, least=1)  # implicit's default is 100; tables of SIDs are small
    iterations: int = arg("turns of users and items", default=15, least=1)  # implicit's
    regularisation: float = arg("weight of the squared factors", default=0.01, least=0)  # implicit's
    alpha: float = arg("confidence of one interaction", default=40.0, above=0)  # Hu et al. 2008
    seed: int = arg("random seed of the factors at the start", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg("replace an output of other settings or rows, or one that is finished", default=False)


def main(config: AlsConfig) -> None:
    check_output(config.output, config.items)
    items = list(read_items(config.items))
    manifest = make_manifest(config, [config.items, config.train], config.seed)
    if is_finished(config.output, manifest, FREE, config.overwrite):
        print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
        return
    pairs = train_pairs(config.train, items)
    vectors = als(pairs, len(items), config)
    unseen = len(items) - len(np.unique(pairs[:, 1]))
    model = f"als dim={config.dim} alpha={config.alpha} seed={config.seed}"
    facts = {"encoder": "als", "model": model, "normalised": False, "items_without_train_row": unseen}
    write_vectors(config.output, vectors, items, **facts, manifest=manifest)
    print(f"{config.output}: {len(items)} items, {config.dim} numbers each, {unseen} without a train row are zeros")


def train_pairs(path: str | Path, items: Sequence[str]) -> np.ndarray:
    """(pairs, 2) distinct (user number, item row), sorted. Raises UserError naming an item that item.json lacks."""
    row_of = {item: row for row, item in enumerate(items)}
    users: dict[str, int] = {}
    pairs = set()
    for history in read_inter(path):
        user = users.setdefault(history.user, len(users))
        for item in (*history.items, history.target):
            if item not in row_of:
                raise UserError(f"{path}, row {history.row}: item {item!r} is not in item.json; take matching files")
            pairs.add((user, row_of[item]))
    return np.array(sorted(pairs), dtype=np.int64)


def als(pairs: np.ndarray, items: int, config: AlsConfig) -> np.ndarray:
    """(items, dim) float32; one thread, so that one seed gives one result. Raises UserError if it diverges."""
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError as error:
        raise MissingPackage(f"embed-als needs implicit; {INSTALL_SIDS}") from error
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    ones = np.full(len(pairs), config.alpha, dtype=np.float32)
    matrix = csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(int(pairs[:, 0].max()) + 1, items))
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=config.dim,
            regularization=config.regularisation,
            iterations=config.iterations,
            random_state=config.seed,
            num_threads=1,
            use_gpu=False,
        )
        model.fit(matrix, callback=_check_factors(model))
    vectors = np.array(model.item_factors, dtype=np.float32)
    vectors[np.setdiff1d(np.arange(items), pairs[:, 1])] = 0
    return vectors


def _check_factors(model) -> Callable:
    """What implicit calls after each iteration. Raises UserError naming the first whose factors are not finite."""

    def check(iteration: int, *_) -> None:
        if not (np.isfinite(model.item_factors).all() and np.isfinite(model.user_factors).all()):
            raise UserError(
                f"the factors became NaN or infinite in iteration {iteration + 1} of {model.iterations}; set "
                f"--alpha and --regularisation nearer to their defaults"
            )

    return check


if __name__ == "__main__":
    start(main, AlsConfig)
