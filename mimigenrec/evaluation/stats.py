"""How sure a mean over test rows is: bootstrap intervals, paired tests between methods on the same rows, seeds.

N rows, M metrics, R resamples. The bootstrap draws rows with replacement, the permutation test swaps the two methods
row by row; all metrics of a row go together. docs/metrics.md says what each number tells and what it does not.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from mimigenrec.errors import UserError

RESAMPLES = 2000
CHUNK = 1 << 23  # counts held at once, 64 MB
TOLERANCE = 1e-12  # sums of the same numbers in another order

Key = TypeVar("Key", bound=Hashable)


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


class Spread(NamedTuple):
    """One number over n trainings that differ in their seed alone."""

    mean: float
    sd: float | None  # of the sample, n - 1 below the fraction; None for a single seed, which tells nothing of it
    low: float  # the smallest
    high: float  # the largest
    n: int


def bootstrap(
    values: Mapping[str, np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """95 % percentile intervals of the means. values: name -> (N,). Raises UserError if there is no row."""
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
    raises   UserError for other names or another number of rows in b, and if there is no row
    source   Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 16
    """
    table = _differences(a, b)
    seen = table.mean(0)
    means = _resampled_means(table, rng, resamples)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    extreme = (np.abs(means - seen) >= np.abs(seen) - TOLERANCE).sum(0)
    p = (extreme + 1) / (resamples + 1)
    columns = zip(seen.tolist(), low.tolist(), high.tolist(), p.tolist(), strict=True)
    return {name: Difference(*column) for name, column in zip(a, columns, strict=True)}


def permutation_test(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Per metric the two-sided p-value of B - A: were the methods alike, any row's two values could be swapped.

    a, b     the same names, each (N,), row i of both about the same test row
    p        (extreme + 1) / (resamples + 1), where extreme counts the resamples, each with every row's difference
             turned round with probability 1/2, whose mean is at least as far from 0 as the one seen
    raises   UserError for other names or another number of rows in b, and if there is no row
    source   Fisher's randomization test as in Smucker, Allan and Carterette 2007 (CIKM); the added 1 keeps random
             resamples valid: Phipson and Smyth 2010
    """
    table = _differences(a, b)
    seen = np.abs(table.sum(0)) - TOLERANCE * len(table)
    extreme = sum((np.abs(signs @ table) >= seen).sum(0) for signs in _signs(len(table), rng, resamples))
    return dict(zip(a, ((extreme + 1) / (resamples + 1)).tolist(), strict=True))


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """p-values of several tests, adjusted: of those below .05 after it, the chance that any is false is below .05.

    The i-th smallest of m (from 0) is multiplied by m - i; none is below a smaller one's, none above 1.
    Raises UserError for a value outside [0, 1]. Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    wrong = {key: value for key, value in p.items() if not 0 <= value <= 1}
    if wrong:
        raise UserError(f"p-values lie in [0, 1], found {wrong}")
    adjusted, highest = {}, 0.0
    for i, key in enumerate(sorted(p, key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - i) * p[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p}


def over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Per metric how the runs of one method, which differ in their seed alone, spread.

    runs     one mapping of metric -> number per seed
    raises   UserError if there is no run, if their metrics differ, or for a value that is no finite number
    """
    found = {}
    for name in _shared_names(runs):
        values = np.array([run[name] for run in runs], dtype=np.float64)  # None becomes nan
        if not np.isfinite(values).all():
            raise UserError(f"{name} is {[run[name] for run in runs]} over the seeds; leave out what was not measured")
        sd = float(values.std(ddof=1)) if len(values) > 1 else None
        found[name] = Spread(float(values.mean()), sd, float(values.min()), float(values.max()), len(values))
    return found


def rows_over_seeds(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Per metric (N,), each row's mean over the seeds of one method: what the paired tests take for several seeds.

    Raises UserError if there is no run, or if metrics or the number of rows differ between runs.
    """
    return {name: np.mean(_same_length(name, [run[name] for run in runs]), axis=0) for name in _shared_names(runs)}


def _shared_names(runs: Sequence[Mapping]) -> list[str]:
    if not runs:
        raise UserError("no run; there must be at least one seed")
    for i, run in enumerate(runs):
        if run.keys() != runs[0].keys():
            odd = sorted(run.keys() ^ runs[0].keys())
            raise UserError(f"run {i} and run 0 do not hold the same metrics: only one of them has {', '.join(odd)}")
    return list(runs[0])


def _same_length(name: str, columns: Sequence[np.ndarray]) -> np.ndarray:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise UserError(f"{name} has {lengths} rows; these are not results of one test set")
    return np.asarray(columns, dtype=np.float64)


def _differences(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, M), B - A."""
    columns = {name: _same_length(name, [a[name], b[name]]) for name in _shared_names([a, b])}
    return _table({name: theirs - ours for name, (ours, theirs) in columns.items()})


def _table(values: Mapping[str, np.ndarray]) -> np.ndarray:
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)  # (N, M)
    if not len(table):
        raise UserError("no row to resample; the test set is empty")
    return table


def _resampled_means(table: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(N, M) -> (R, M). A resample is how often each row was drawn, so its means are one matrix product."""
    n = len(table)
    return np.concatenate([counts @ table for counts in _draws(n, rng, resamples)]) / n


def _draws(n: int, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """(r, N) float counts, each row summing to N, until R rows in all have come."""
    for r in _chunks(n, resamples):
        picked = rng.integers(0, n, size=(r, n)) + np.arange(r)[:, None] * n
        yield np.bincount(picked.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def _signs(n: int, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """(r, N) of -1.0 and 1.0, until R rows in all have come."""
    for r in _chunks(n, resamples):
        yield 2.0 * rng.integers(0, 2, size=(r, n)) - 1.0


def _chunks(n: int, resamples: int) -> Iterator[int]:
    """How many resamples of n rows to hold at once, adding up to all."""
    if resamples < 1:
        raise UserError(f"resamples={resamples} leaves nothing to count; take at least 1, {RESAMPLES} by default")
    at_once = max(1, CHUNK // n)
    for first in range(0, resamples, at_once):
        yield min(at_once, resamples - first)
