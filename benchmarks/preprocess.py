"""Rows a second and peak memory of preprocessing, at several sizes, and how both grow.

    python benchmarks/preprocess.py [--sizes 10000 100000 1000000]

Each size is generated and preprocessed in a process of its own, in a temporary folder. Of n interactions 90 % are
train rows, 5 % valid, 5 % test; histories hold 1 to 10 items. The catalogue has 10 * sqrt(n) items (1,000 at 10 k,
10,000 at 1 M) with titles of 8 words and descriptions of 60, since real catalogues grow more slowly than their logs.
Rows are interactions; the rate is by CPU seconds, so that a busy host does not count. Peak memory is the process's,
interpreter included, and "ours" what it is above its start; `slope` is the log-log slope between the smallest and the
largest size: 1 means that it grows as the interactions do.
"""

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from mimigenrec.files import write_json
from mimigenrec.interactions.inter_file import write_inter
from mimigenrec.sids.tokens import write_index
from mimigenrec.tasks.build import BuildConfig, main

WORDS = "steel tape drill small red clamp box hose valve screw pump sheet glove meter cable blue".split()
BLOCK = 50_000  # rows made at a time


def blocks(rows: int, items: int, rng: random.Random) -> Iterator[tuple]:
    """Users, histories and targets of a .inter file, as arrow arrays."""
    import pyarrow as pa  # the process that is measured does not load it

    for first in range(0, rows, BLOCK):
        some = range(first, min(rows, first + BLOCK))
        ids = [[str(int(items * rng.random() ** 2)) for _ in range(rng.randint(2, 11))] for _ in some]
        users = [f"u{row // 5}" for row in some]
        yield pa.array(users), pa.array([" ".join(row[:-1]) for row in ids]), pa.array([row[-1] for row in ids])


def generate(folder: Path, interactions: int) -> int:
    """Raw files of a category "made"; returns how many items there are."""
    rng = random.Random(0)
    items = int(10 * math.sqrt(interactions))
    for split, share in (("train", 0.9), ("valid", 0.05), ("test", 0.05)):
        write_inter(folder / f"made.{split}.inter", blocks(int(interactions * share), items, rng))
    sids = {str(i): tuple(f"<{level}_{rng.randrange(256)}>" for level in "abc") for i in range(items)}
    write_index(folder / "made.index.json", sids)
    lengths = {"title": 8, "description": 60}
    texts = {i: {name: " ".join(rng.choices(WORDS, k=k)) for name, k in lengths.items()} for i in sids}
    write_json(folder / "made.item.json", texts)
    return items


def peak() -> float:
    """MiB, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: str) -> None:
    """In a process of its own: one JSON line with seconds and peak MiB before and after."""
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    main(BuildConfig(raw=Path(folder), category="made", output_dir=Path(folder) / "data" / "made"))
    times = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print("\n" + json.dumps({**times, "before": before, "peak": peak()}))


def bench(sizes: list[int]) -> None:
    found = []
    print("interactions    items  seconds  cpu s  rows/cpu s  peak MiB  of which ours")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            with ProcessPoolExecutor(1, get_context("spawn")) as other:  # its memory is not to count
                items = other.submit(generate, Path(folder), size).result()
            argv = [sys.executable, __file__, "--measure", folder]
            run = subprocess.run(argv, capture_output=True, text=True, check=True)
        result = json.loads(run.stdout.splitlines()[-1])
        seconds, cpu, most, ours = result["seconds"], result["cpu"], result["peak"], result["peak"] - result["before"]
        found.append((size, cpu, most, ours))
        line = f"{size:12,} {items:8,} {seconds:8.1f} {cpu:6.1f} {size / cpu:11,.0f} {most:9.0f} {ours:14.0f}"
        print(line, flush=True)
    if len(found) > 1:
        (n0, *first), (n1, *last) = found[0], found[-1]
        slopes = [math.log(b / a) / math.log(n1 / n0) for a, b in zip(first, last, strict=True)]
        print("slope: cpu seconds {:.2f}, peak {:.2f}, ours {:.2f}".format(*slopes))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="interactions")
    parser.add_argument("--measure", metavar="FOLDER", help="preprocess 'made', which lies there, and report")
    args = parser.parse_args()
    measure(args.measure) if args.measure else bench(args.sizes)
