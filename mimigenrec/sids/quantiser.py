"""Codebooks: what every quantiser learns, how vectors get codes from it, and its file.

A vector is first encoded (left as it is, rotated, or passed through an encoder network), then each level takes the
nearest entry of its codebook and hands on what is left. That holds for product quantisation too: there the entries of
a level are zero outside their part of the dimensions.

C.codebooks-METHOD.safetensors
    level.0, level.1, ...        (K, latent) float32, the entries of each level
    mean (dim,), rotation (dim, latent)                              method opq
    encoder.0.weight (out, in), encoder.0.bias (out,), ...           methods rqvae and rqkmeans_plus
    metadata "about"             JSON: method, skip (the encoder's output is added to its input), what else is known

Each method is a module with `fit(vectors, sizes, seed, ...) -> (Codebooks, codes of the training items)`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.files import writing

CHUNK = 65_536  # rows encoded together
SCORES = 2**25  # numbers held at once to find the nearest entries, 128 MiB: item_tokens has an entry per item


@dataclass
class Codebooks:
    method: str
    levels: list[np.ndarray]  # (K, latent) each
    encoder: dict[str, np.ndarray] = field(default_factory=dict)  # by the names above; empty: vectors as they are
    about: dict[str, Any] = field(default_factory=dict)  # JSON

    @property
    def sizes(self) -> list[int]:
        return [len(level) for level in self.levels]

    @property
    def dim(self) -> int:
        """Of the vectors that go in."""
        first = self.encoder.get("mean", self.encoder.get("encoder.0.weight", self.levels[0]))
        return first.shape[-1]

    def save(self, path: str | Path) -> None:
        """Raises UserError if a number is not finite."""
        from safetensors.numpy import save

        self.check(f"the codebooks of {self.method}", "nothing was written; take other settings or vectors")
        tensors = {f"level.{number}": level for number, level in enumerate(self.levels)} | self.encoder
        tensors = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
        about = json.dumps({**self.about, "method": self.method}, sort_keys=True)
        with writing(path, "wb") as out:
            out.write(save(tensors, {"about": about}))

    @classmethod
    def load(cls, path: str | Path) -> "Codebooks":
        """Raises FileNotFoundError, and UserError for a file that is damaged or holds no codebooks."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing; mimigenrec quantise writes it")
        try:
            with safe_open(path, framework="np") as stored:
                about = json.loads((stored.metadata() or {}).get("about", "{}"))
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        except SafetensorError as error:
            raise UserError(
                f"{path} is not a whole safetensors file ({error}); quantise again with --overwrite"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f'{path}: its metadata "about" is not JSON ({error}); quantise again with --overwrite'
            ) from error
        names = [f"level.{number}" for number in range(sum(name.startswith("level.") for name in tensors))]
        described = isinstance(about, dict) and isinstance(about.get("method"), str)
        if not names or not described or not all(name in tensors for name in names):
            raise UserError(f"{path} holds {sorted(tensors)} and no codebooks; mimigenrec quantise writes them")
        codebooks = cls(about.pop("method"), [tensors.pop(name) for name in names], tensors, about)
        codebooks.check(path, "quantise again with --overwrite")
        return codebooks

    def check(self, name: str | Path, remedy: str) -> None:
        """Raises UserError naming the array that is not of finite numbers, or that does not fit the others."""
        arrays = {f"level.{number}": level for number, level in enumerate(self.levels)} | self.encoder
        for key, array in arrays.items():
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                broken = int((~np.isfinite(array)).sum()) if array.dtype.kind == "f" else array.size
                raise UserError(
                    f"{name}: {broken} of {array.size} numbers of {key} are NaN, infinite or no fractions; {remedy}"
                )
        if not self._fits():
            shapes = {key: list(array.shape) for key, array in arrays.items()}
            raise UserError(f"{name}: its arrays do not fit together ({shapes}); {remedy}")

    def _fits(self) -> bool:
        """Whether a vector comes through the encoder as wide as the entries of every level."""
        if any(level.ndim != 2 or not level.size for level in self.levels):
            return False
        try:
            width = encode(self, np.zeros((1, self.dim), np.float32)).shape[1]
        except (KeyError, ValueError, IndexError):  # an array is missing, or of another shape
            return False
        used = 2 if "rotation" in self.encoder else 2 * sum(name.endswith(".weight") for name in self.encoder)
        return len(self.encoder) == used and all(level.shape[1] == width for level in self.levels)


def encode(codebooks: Codebooks, vectors: np.ndarray) -> np.ndarray:
    """(n, dim) -> (n, latent), the space of the codebooks. Raises UserError for another dim."""
    if vectors.ndim != 2 or vectors.shape[1] != codebooks.dim:
        raise UserError(
            f"these codebooks were made from vectors of {codebooks.dim} numbers, got shape {vectors.shape}; take "
            f"vectors of the same encoder"
        )
    vectors = np.asarray(vectors, dtype=np.float32)
    weights = codebooks.encoder
    if "rotation" in weights:
        return (vectors - weights["mean"]) @ weights["rotation"]
    depth = sum(name.endswith(".weight") for name in weights)
    hidden = vectors
    for layer in range(depth):
        hidden = hidden @ weights[f"encoder.{layer}.weight"].T + weights[f"encoder.{layer}.bias"]
        if layer < depth - 1:
            hidden = np.maximum(hidden, 0)
    return vectors + hidden if codebooks.about.get("skip") else hidden


def assign(codebooks: Codebooks, vectors: np.ndarray) -> np.ndarray:
    """vectors (n, dim) -> codes (n, levels) int32: at each level the nearest entry to what is left."""
    codes = np.empty((len(vectors), len(codebooks.levels)), np.int32)
    for start in range(0, len(vectors), CHUNK):
        left = encode(codebooks, vectors[start : start + CHUNK]).copy()
        for level, entries in enumerate(codebooks.levels):
            codes[start : start + CHUNK, level] = nearest(left, entries)
            left -= entries[codes[start : start + CHUNK, level]]
    return codes


def nearest(vectors: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """vectors (n, d), entries (K, d) -> (n,) int32; the first of several at one distance."""
    half_norms = 0.5 * np.einsum("kd,kd->k", entries, entries)
    rows = max(1, min(CHUNK, SCORES // len(entries)))
    starts = range(0, len(vectors), rows)
    parts = [(vectors[start : start + rows] @ entries.T - half_norms).argmax(1) for start in starts]
    return np.concatenate(parts).astype(np.int32)


def squared_distances(vectors: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """vectors (n, d), entries (K, d) -> (n, K) float32, >= 0."""
    distances = vectors @ entries.T
    distances *= -2
    distances += np.einsum("kd,kd->k", entries, entries)
    distances += np.einsum("nd,nd->n", vectors, vectors)[:, None]
    return np.maximum(distances, 0, out=distances)


def error_by_level(codebooks: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> list[float]:
    """Share of the variance of the encoded vectors that is left after each level; falls towards 0."""
    left_over = np.zeros(len(codebooks.levels))
    total, mean = 0.0, 0.0
    for start in range(0, len(vectors), CHUNK):
        left = encode(codebooks, vectors[start : start + CHUNK]).astype(np.float64)
        total, mean = total + (left**2).sum(), mean + left.sum(0)
        for level, entries in enumerate(codebooks.levels):
            left -= entries[codes[start : start + CHUNK, level]]
            left_over[level] += (left**2).sum()
    variance = total - (mean**2).sum() / len(vectors)
    return (left_over / max(variance, np.finfo(np.float32).tiny)).tolist()


def check_sizes(sizes: Sequence[int], items: int) -> None:
    """Raises UserError for a level without codes or with more codes than items, or more levels than letters."""
    from mimigenrec.sids.tokens import MAX_LEVELS

    if not 1 <= len(sizes) <= MAX_LEVELS:
        raise UserError(f"--sizes gives {len(sizes)} levels; a SID has 1 to {MAX_LEVELS}")
    for level, size in enumerate(sizes, 1):
        if not 1 <= size <= items:
            raise UserError(
                f"--sizes asks for {size} codes at level {level} and there are {items} items; a level takes 1 to "
                f"{items} codes, and far fewer than items make sense"
            )
