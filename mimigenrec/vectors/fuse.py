"""Several vectors of each item -> one: each source whitened, weighted, side by side.

    mimigenrec fuse --items C.item.json --vectors C.emb-minilm.npy C.emb-als.npy --weights 1 0.5 \\
        --output C.emb-fused.npy

Whitening: centred, turned onto the principal axes, every axis scaled to the same variance; a source then has a mean
squared length of 1, so the weights alone say how much it counts in a distance (their squares do). `dims` keeps the
strongest axes of each source; scaling up the weak ones would mostly scale up noise. Rows of zeros mean "nothing
known": they are left out of the statistics and stay zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.items import read_items
from mimigenrec.manifest import make_manifest, short_name
from mimigenrec.vectors.store import check_output, is_finished, read_about, read_vectors, write_vectors

FREE = ("items", "output", "overwrite")  # the vectors do not depend on them, but on the file's content
WEAKEST = 1e-6  # axes with less than this share of the strongest one's variance are dropped


@dataclass
class FuseConfig:
    """Several item vectors -> one, concatenated after whitening."""

    items: Path = arg("C.item.json, for the item ids")
    vectors: list[Path] = arg("two or more C.emb-NAME.npy of these items")
    output: Path = arg("C.emb-NAME.npy to write; C.emb-NAME.json says what it holds")
    weights: list[float] | None = arg(
        "weight of each of the vectors; all 1 if not given", default=None, least=1e-6, most=1e6
    )
    dims: list[int] | None = arg("axes kept of each, the strongest; all if not given", default=None, least=1)
    overwrite: bool = arg("replace an output of other settings or vectors, or one that is finished", default=False)


def main(config: FuseConfig) -> None:
    check_output(config.output, config.items)
    items = list(read_items(config.items))
    count = len(config.vectors)
    for name, values in (("weights", config.weights), ("dims", config.dims)):
        if values is not None and len(values) != count:
            raise UserError(f"--{name} has {len(values)} values for {count} files in --vectors; give one for each")
    if config.output.resolve() in {path.resolve() for path in config.vectors}:
        raise UserError(f"--output {config.output} is one of --vectors, which it would replace; give it another name")
    named = {**vars(config), "vectors": [short_name(path) for path in config.vectors]}  # their order counts
    manifest = make_manifest(named, [config.items, *config.vectors], None)
    if is_finished(config.output, manifest, FREE, config.overwrite):
        print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
        return
    weights, dims = config.weights or [1.0] * count, config.dims or [None] * count
    sources = [read_vectors(path, items) for path in config.vectors]
    fused = fuse(sources, weights, dims)
    names = [read_about(path).get("model") or path.name for path in config.vectors]
    model = " + ".join(f"{weight:g} * {name}" for weight, name in zip(weights, names, strict=True))
    write_vectors(config.output, fused, items, encoder="fuse", model=model, normalised=False, manifest=manifest)
    print(f"{config.output}: {len(items)} items, {fused.shape[1]} numbers each, {model}")


def fuse(sources: Sequence[np.ndarray], weights: Sequence[float], dims: Sequence[int | None]) -> np.ndarray:
    """sources (items, dim) each -> (items, sum of the axes kept) float32."""
    parts = [weight * whiten(source, dim) for source, weight, dim in zip(sources, weights, dims, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def whiten(vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """(items, dim) -> (items, axes), mean squared length 1 over the rows that are not zeros; those stay zeros.

    Raises UserError if all known rows are equal.
    """
    known = vectors.any(axis=1)
    centred = vectors[known].astype(np.float64)
    centred -= centred.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred / max(1, len(centred)))
    variances, axes = variances[::-1], axes[:, ::-1]  # strongest first
    kept = int((variances > WEAKEST * variances[0]).sum()) if variances[0] > 0 else 0
    if not kept:
        raise UserError("a source of --vectors has one and the same vector for all items; leave it out")
    kept = min(kept, dim or kept)
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])  # an axis has no direction of its own
    whitened = np.zeros((len(vectors), kept))
    whitened[known] = centred @ (axes * signs)[:, :kept] / np.sqrt(variances[:kept] * kept)
    return whitened


if __name__ == "__main__":
    start(main, FuseConfig)
