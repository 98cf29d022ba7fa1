"""How fast generated interactions become sequences, splits and .inter files, and how that grows.

    python benchmarks/interactions.py --sizes 100000 1000000 10000000 --format parquet
    python benchmarks/interactions.py --sizes 1000000 --engines    # 5-core and order by Polars with NumPy, by DuckDB

Each size runs in a process of its own with two threads: seconds (wall and CPU), rows/s and peak memory are that
process's, hashing of the input left in. Users and items are drawn with heavy tails; 5-core, global time split,
histories of 10. The slope is that of log CPU seconds over log rows, from the smallest to the largest: 1 is linear.
--engines needs `pip install duckdb`.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = "2"


def generate(path: Path, n: int, seed: int = 0) -> None:
    """n events of n / 8 users and n / 20 items, in a random order of time; written a million at a time."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(seed)
    users, items = max(n // 8, 10), max(n // 20, 10)
    parts = []
    for begin in range(0, n, 1_000_000):
        size = min(1_000_000, n - begin)
        user = (rng.pareto(1.2, size) * users / 25).astype(np.int64) % users
        item = (rng.pareto(1.1, size) * items / 50).astype(np.int64) % items
        second = rng.integers(1_400_000_000, 1_600_000_000, size)
        part = pl.DataFrame({"user": user, "item": item, "time": second})
        parts.append(part.with_columns(pl.format("A{}USER", "user"), pl.format("B{}ITEM", "item")))
    frame = pl.concat(parts)
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case ".jsonl":
            names = {"user": "reviewerID", "item": "asin", "time": "unixReviewTime"}
            frame.rename(names).write_ndjson(path)


def build_one(path: Path, output: Path) -> None:
    from mimigenrec.interactions.build import InteractionsConfig, main
    from mimigenrec.interactions.table import Columns

    source = "amazon" if path.suffix == ".jsonl" else "table"
    columns = Columns(user_column="user", item_column="item", time_column="time") if source == "table" else Columns()
    begin = time.perf_counter()
    main(InteractionsConfig(source=source, interactions=[path], category="C", output_dir=output), columns)
    say_cost(begin)


def say_cost(begin: float) -> None:
    wall = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss / 2**20  # KiB on Linux -> GiB
    print("\n" + json.dumps({"seconds": wall, "cpu": used.ru_utime + used.ru_stime, "peak_gib": peak}))


def engine_one(path: Path, engine: str) -> None:
    """Names to codes, 5-core, order by user and time: what the engine is there for."""
    begin = time.perf_counter()
    if engine == "duckdb":
        left = by_duckdb(path)
    else:
        from mimigenrec.interactions.events import pl
        from mimigenrec.interactions.sequences import Rules, make_sequences
        from mimigenrec.interactions.table import Columns, to_events

        columns = Columns(user_column="user", item_column="item", time_column="time")
        events = to_events(pl.read_parquet(path), columns, [path])
        left = len(make_sequences(events, Rules(user_k=5, item_k=5), {}).user)
    print(f"{engine}: {left} left")
    say_cost(begin)


def by_duckdb(path: Path) -> int:
    import duckdb

    db = duckdb.connect()
    db.execute(f"set threads={THREADS}; set enable_progress_bar=false")
    db.execute(f"create table x as select *, file_row_number line from read_parquet('{path}', file_row_number=true)")
    for name in ("user", "item"):
        distinct = f"select distinct {name} from x"
        db.execute(f"create table {name}s as select {name}, row_number() over () code from ({distinct})")
    joined = "x join users using (user) join items using (item)"
    db.execute(f"create table e as select users.code u, items.code i, time, line from {joined}")
    count = -1
    while count != (count := db.execute("select count(*) from e").fetchone()[0]):
        for key in "ui":
            enough = f"select {key} from e group by {key} having count(*) >= 5"
            db.execute(f"create or replace table e as select * from e where {key} in ({enough})")
    return len(db.execute("select * from e order by u, time, line").to_arrow_table())


def measured(*args: str) -> dict[str, float]:
    environment = os.environ | {"POLARS_MAX_THREADS": THREADS, "OMP_NUM_THREADS": THREADS, "TQDM_DISABLE": "1"}
    done = subprocess.run([sys.executable, __file__, *args], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--format", choices=["parquet", "csv", "jsonl"], default="parquet")
    parser.add_argument("--engines", action="store_true", help="compare engines on the heavy part")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # what the processes of one size are started with
    args = parser.parse_args()
    if args.one:
        path, how = args.one
        engine_one(Path(path), how) if args.engines else build_one(Path(path), Path(how))
        return
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for n in args.sizes:
            path = Path(folder) / f"{n}.{args.format}"
            generate(path, n)
            for engine in ("polars", "duckdb") if args.engines else ("",):
                how = ["--engines", "--one", str(path), engine] if engine else ["--one", str(path), f"{folder}/out"]
                cost = measured(*how)
                costs.append((math.log(n), math.log(cost["cpu"])))
                speed = n / cost["seconds"]
                times = f"{cost['seconds']:8.1f} s {cost['cpu']:8.1f} s CPU"
                print(f"{n:>11,} {engine:<7}{times} {speed:>11,.0f} rows/s {cost['peak_gib']:6.2f} GiB", flush=True)
            path.unlink()
    if len(args.sizes) > 1 and not args.engines:
        (x0, y0), (x1, y1) = costs[0], costs[-1]
        print(f"slope {(y1 - y0) / (x1 - x0):.2f}")


if __name__ == "__main__":
    main()
