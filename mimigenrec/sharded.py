"""Work dealt to processes, written as it comes, merged in order. An interrupted run goes on, also with another number
of processes.

    with processes() as process:                       # under torchrun or accelerate launch, or alone
        if process.rank == 0 and not is_begun(folder, run, "evaluation"):
            begin(folder, run)
        write_shard(folder, "predictions", batches(process), work, process)
        process.wait()
        if process.rank == 0:
            rows = merge_shards(folder, "predictions", n)

run.json                   {"config": settings, "inputs": {file: SHA-256}}, all that the results depend on
<name>.jsonl               for results that are rows: {"place", ...}, place is the row's number. Each of several
                           processes has a file of its own, <name>.rank<r>.jsonl
<first>.npy                for results that are numbers: a chunk of an array, its rows first, first + 1, ...

What a file holds is kept, whichever process wrote it. When one process fails, torchrun ends the others: the run fails
as a whole, with the message of the one that failed.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from mimigenrec.cli import SPEAKS_FIRST
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.manifest import check_same_run

LONGEST_WAIT = timedelta(days=7)  # of the first process to finish for the last; a dead one is torchrun's to notice
RUN = "run.json"
Row = dict[str, Any]
Item = TypeVar("Item")


class Process(NamedTuple):
    """One of `world` processes that share the work; rank 0 begins, merges and prints."""

    rank: int = 0
    world: int = 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every world-th of them: all processes together have each once."""
        return items[self.rank :: self.world]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            import torch.distributed as dist

            with _others_speak_first():
                dist.barrier()

    def tell(self, value: Any) -> Any:
        """The first process's value, in every process."""
        values = [value]
        if self.world > 1:
            import torch.distributed as dist

            with _others_speak_first():
                dist.broadcast_object_list(values)
        return values[0]


ALONE = Process()


@contextmanager
def _others_speak_first() -> Iterator[None]:
    """A connection that breaks is another process's end: that one says why, and torchrun ends this one meanwhile."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(SPEAKS_FIRST)
        raise UserError("another process of this run ended early; its own message says why") from error


@contextmanager
def processes() -> Iterator[Process]:
    """This process among those that torchrun or accelerate started; alone without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    yield Process(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # not after an error: the others would be waited for


def is_begun(
    folder: Path, run: Mapping[str, Any], what: str, free: Collection[str] = (), overwrite: bool = False
) -> bool:
    """Whether the folder holds this run, finished or not; if not, `begin` is to be called.

    run        what run.json holds
    what       what writes such folders, for messages: "evaluation of a model"
    free       keys of the config on which the results do not depend
    overwrite  whether a run of other settings or data is to be replaced
    raises     UserError if the folder holds something else; and, unless it is to be overwritten, a run of other
               settings or data, showing the difference
    """
    path = folder / RUN
    if not path.is_file():
        others = sorted(other.name for other in folder.iterdir() if other.name[0] != ".") if folder.exists() else []
        if others:
            raise UserError(f"{folder} holds {others[0]} but no {RUN}, so no {what} wrote it; choose another --output")
        return False
    try:
        before = read_json(path, made_by=f"an earlier {what}", kind=dict)
        if not all(isinstance(before.get(key), dict) for key in ("config", "inputs")):
            raise UserError(f"{path} is not as this version writes it; take another --output, or --overwrite")
        check_same_run(folder, before, run, free, "--overwrite")
    except UserError:
        if overwrite:
            return False
        raise
    return True


def begin(folder: Path, run: Mapping[str, Any], results: Iterable[str] = ()) -> None:
    """Marks the folder as the place of this run, after it has removed the results of an earlier one.

    results   patterns of their names: ("predictions*.jsonl", "metrics.json")
    """
    for pattern in results:
        for path in list(folder.glob(pattern)):
            path.unlink()
    write_json(folder / RUN, run)


def write_shard(
    folder: Path,
    name: str,
    batches: Sequence[Sequence[int]],
    work: Callable[[Sequence[int], Sequence[int]], Iterable[Row]],
    process: Process,
    keys: Collection[str] = (),
) -> int:
    """Works through this process's batches of places, each row on the disk as soon as it is there.

    work      (batch, missing) -> the rows of `missing`, those places of the batch that no file holds yet, in their
              order; it may be a generator. Where a result depends on the other rows of its batch (padding changes the
              last digits), `work` computes the whole batch, so that a run in two parts gives what a run in one gives
    keys      what every row must have, for rows that are there already
    returns   how many rows were written
    """
    done = {row["place"] for row in read_shards(folder, name, keys)}
    process.wait()  # nobody writes before all have read
    file = f"{name}.jsonl" if process.world == 1 else f"{name}.rank{process.rank}.jsonl"
    total = sum(map(len, batches))
    missing_of = [[place for place in batch if place not in done] for batch in batches]
    todo = sum(map(len, missing_of))
    bar = tqdm(total=total, initial=total - todo, unit="row", disable=process.rank > 0, smoothing=0.05)
    with JsonlWriter(folder / file) as out, bar:
        for batch, missing in zip(batches, missing_of, strict=True):
            if missing:
                for place, row in zip(missing, work(batch, missing), strict=True):
                    out.write({"place": place, **row})
                    bar.update()
    return todo


def read_shards(folder: Path, name: str, keys: Collection[str] = ()) -> list[Row]:
    """The rows of all processes, of this and earlier starts; a last line that a kill cut short is left out.

    Raises UserError naming the line that is no such row.
    """
    rows = []
    for path in sorted([*folder.glob(f"{name}.jsonl"), *folder.glob(f"{name}.rank*.jsonl")]):
        for number, row in enumerate(read_jsonl(path), 1):
            missing = [key for key in ("place", *keys) if not isinstance(row, dict) or key not in row]
            if missing or not isinstance(row["place"], int):
                raise UserError(
                    f"{path}, line {number}: it has no {', '.join(missing) or 'number as its place'}, so it is no row "
                    f"of {name}; delete the file, and the same command makes its rows again"
                )
            rows.append(row)
    return rows


def merge_shards(folder: Path, name: str, n: int, keys: Collection[str] = ()) -> list[Row]:
    """The rows of the places 0 to n - 1, in order, without "place".

    Raises UserError unless every one is there, and those that are there twice are the same.
    """
    row_of: dict[int, Row] = {}
    for row in read_shards(folder, name, keys):
        place = row.pop("place")
        if row_of.setdefault(place, row) != row:
            raise UserError(
                f"row {place} of {name} is there twice in {folder}, with two results; delete {name}*.jsonl and run "
                f"again"
            )
    missing = [place for place in range(n) if place not in row_of]
    if missing:
        raise UserError(
            f"{folder} holds {name} for {n - len(missing)} of {n} rows, row {missing[0]} is missing; a process ended "
            f"early, start the same command again and it goes on"
        )
    return [row_of[place] for place in range(n)]


def write_chunks(folder: Path, starts: Sequence[int], work: Callable[[int], np.ndarray], process: Process) -> None:
    """Makes this process's share of the chunks that are not there yet: work(first) -> rows first, first + 1, ..."""
    for first in tqdm(process.share(starts), desc="chunks", disable=None if process.rank == 0 else True):
        path = folder / f"{first}.npy"
        if not path.is_file():
            rows = work(first)
            with writing(path, "wb") as out:
                np.save(out, rows, allow_pickle=False)
