"""How sure a mean over test rows is: bootstrap intervals, and the paired test between two methods on the same rows.

N rows, M metrics, R resamples. Rows are drawn with replacement, all metrics of a row together.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
CHUNK = 1 << 23  # counts held at once, 64 MB


class Interval(NamedTuple):
    mean: float
    low: float  # 2.5 % quantile of the resampled means
    high: float  # 97.5 %


class Difference(NamedTuple):
    """B minus A, over the same rows."""

    mean: float
    low: float
    high: float
    p: float  # two-sided: how often a difference this large comes up when there is none


def bootstrap(
    values: Mapping[str, np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """95 % percentile intervals of the means. values: name -> (N,). Raises ValueError if there is no row."""
    table = _table(values)
    means = _resampled_means(table, rng, resamples)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    columns = zip(table.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Interval(*column) for name, column in zip(values, columns, strict=True)}


def paired_bootstrap(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """Per metric B minus A with its 95 % interval and p-value.

    a, b     the same names, each (N,), row i of both about the same test row
    p        share of resampled differences, moved to mean 0, at least as far from 0 as the one seen; the seen one is
             counted in, so it is at least 1 / (resamples + 1)
    source   Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 16
    """
    table = _table({name: b[name] - a[name] for name in a})
    seen = table.mean(0)
    means = _resampled_means(table, rng, resamples)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    tolerance = 1e-12  # sums of the same numbers in another order
    extreme = (np.abs(means - seen) >= np.abs(seen) - tolerance).sum(0)
    p = (extreme + 1) / (resamples + 1)
    columns = zip(seen.tolist(), low.tolist(), high.tolist(), p.tolist(), strict=True)
    return {name: Difference(*column) for name, column in zip(a, columns, strict=True)}


def _table(values: Mapping[str, np.ndarray]) -> np.ndarray:
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)  # (N, M)
    if not len(table):
        raise ValueError("no row to resample; the test set is empty")
    return table


def _resampled_means(table: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(N, M) -> (R, M). A resample is how often each row was drawn, so its means are one matrix product."""
    n = len(table)
    return np.concatenate([counts @ table for counts in _draws(n, rng, resamples)]) / n


def _draws(n: int, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """(r, N) float counts, each row summing to N, until R rows in all have come."""
    at_once = max(1, CHUNK // n)
    for first in range(0, resamples, at_once):
        r = min(at_once, resamples - first)
        picked = rng.integers(0, n, size=(r, n)) + np.arange(r)[:, None] * n
        yield np.bincount(picked.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)
