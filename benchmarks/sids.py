"""What a quantiser costs: time and peak memory from vectors to codes, on generated vectors.

    python benchmarks/sids.py [--methods rqkmeans opq ...] [--sizes 10000 100000] [--epochs 5]

Vectors of 384 numbers around 2,000 random centres, scaled to length 1; three levels of 256 codes, settings as
`mimigenrec quantise` has them, but --epochs for the methods that train a network. Every row is a process of its
own, with its own peak memory; `vectors` is what the array itself takes. `fit s` includes the codes of the training
items, `assign s` gives them once more from the frozen codebooks. `slope` is log(time ratio) / log(size ratio)
against the row before: 1 is linear.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import time

import numpy as np

METHODS = ("rqkmeans", "rqkmeans_constrained", "rqkmeans_plus", "rqvae", "opq")
DIM, CENTRES, LEVELS = 384, 2_000, [256, 256, 256]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--backend", default="sklearn", choices=["sklearn", "faiss"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SIZE"), help="measure here, print one line of numbers")
    options = parser.parse_args()
    if options.one:
        print(*measure(options.one[0], int(options.one[1]), options.backend, options.epochs))
        return
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    print("| method | backend | items | fit s | slope | assign s | items/s assigned | peak MiB | vectors MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in options.methods:
        before = None
        for size in options.sizes:
            command = [sys.executable, __file__, "--backend", options.backend, "--epochs", str(options.epochs)]
            done = subprocess.run([*command, "--one", method, str(size)], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"| {method} | {options.backend} | {size:,} | failed, status {done.returncode} |", flush=True)
                continue
            fit, assign, peak = map(float, done.stdout.split())
            slope = f"{math.log(fit / before[1]) / math.log(size / before[0]):.2f}" if before else ""
            before = (size, fit)
            print(
                f"| {method} | {options.backend} | {size:,} | {fit:.1f} | {slope} | {assign:.1f} "
                f"| {size / assign:,.0f} | {peak:,.0f} | {size * DIM * 4 / 2**20:,.0f} |",
                flush=True,
            )


def measure(method: str, size: int, backend: str, epochs: int) -> tuple[float, float, float]:
    """Seconds to fit, seconds to assign, peak MiB of this process."""
    from importlib import import_module

    from mimigenrec.sids.quantiser import assign
    from mimigenrec.sids.training import Training

    vectors = generated(size)
    fit = import_module(f"mimigenrec.sids.{method}").fit
    trained = {"training": Training(epochs=epochs)} if method in ("rqvae", "rqkmeans_plus") else {}
    start = time.perf_counter()
    codebooks, _ = fit(vectors, LEVELS, seed=0, backend=backend, **trained)
    fitted = time.perf_counter()
    assign(codebooks, vectors)
    done = time.perf_counter()
    return fitted - start, done - fitted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def generated(size: int) -> np.ndarray:
    """(size, DIM) float32 of length 1, filled in place: no second array of that size."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, DIM), dtype=np.float32)
    vectors = np.empty((size, DIM), np.float32)
    for start in range(0, size, 50_000):
        part = vectors[start : start + 50_000]
        rng.standard_normal(dtype=np.float32, out=part)
        part += centres[rng.integers(0, CENTRES, len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


if __name__ == "__main__":
    main()
