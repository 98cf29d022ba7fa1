"""Prompts -> predictions.jsonl, by one process or many, written as they come; an interrupted run goes on.

run.json            {"config": settings, "inputs": {file: SHA-256}}, all that the result depends on
predictions.jsonl   {"place", and what a row of final_result.json has}; place is the row's number in the test set. Of
                    several processes each has its own, predictions.rank<r>.jsonl

Rows are dealt out to the processes by place, longest prompts first, in batches that do not depend on what is done
already, so a run in two parts gives what a run in one gives.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from mimigenrec.cli import SPEAKS_FIRST
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import rows_named, search_sids
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import Group
from mimigenrec.evaluation.result import FILES, ROW_KEYS
from mimigenrec.evaluation.rows import AskedRow, result_row
from mimigenrec.files import read_json, write_json
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.manifest import check_same_run
from mimigenrec.sids.tokens import join_sid

LONGEST_WAIT = timedelta(days=7)  # of the first process to finish for the last; a dead one is torchrun's to notice


class Process(NamedTuple):
    rank: int
    world: int

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            with others_speak_first():
                dist.barrier()

    def tell(self, value: bool) -> bool:
        """What the first process says, to all."""
        told = [value]
        if self.world > 1:
            with others_speak_first():
                dist.broadcast_object_list(told)
        return told[0]


@contextmanager
def others_speak_first() -> Iterator[None]:
    """A connection that breaks is another process's end: that one says why, and torchrun ends this one meanwhile."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(SPEAKS_FIRST)
        raise UserError("another process of this evaluation ended early; its own message says why") from error


@contextmanager
def processes() -> Iterator[Process]:
    """This process among those that torchrun started; alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Process(0, 1)
        return
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    yield Process(dist.get_rank(), world)
    dist.destroy_process_group()  # not after an error: the others would be waited for


def is_finished(folder: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds the whole result of this run.

    run      what run.json holds
    raises   UserError if the folder holds something else than an evaluation, or, unless it is to be overwritten, one
             of other settings or data, showing the difference
    """
    path = folder / "run.json"
    if not path.is_file():
        others = sorted(other.name for other in folder.iterdir() if other.name[0] != ".") if folder.exists() else []
        if others:
            raise UserError(
                f"{folder} holds {others[0]} but no run.json, so no evaluation of a model wrote it; choose another "
                f"--output"
            )
        return False
    if overwrite:
        return False
    before = read_json(path, made_by="an earlier `mimigenrec evaluate`", kind=dict)
    if not all(isinstance(before.get(key), dict) for key in ("config", "inputs")):
        raise UserError(f"{path} is not as this version writes it; take another --output, or --overwrite")
    check_same_run(folder, before, run, (), "--overwrite")
    return all((folder / name).is_file() for name in FILES)


def begin(folder: Path, run: Mapping[str, Any], overwrite: bool = False) -> None:
    """Marks the folder as the place of this run; with overwrite, what an earlier one wrote goes first. Raises as
    is_finished does."""
    is_finished(folder, run, overwrite)
    if overwrite:
        for path in [*folder.glob("predictions*.jsonl"), *(folder / name for name in FILES)]:
            path.unlink(missing_ok=True)
    if overwrite or not (folder / "run.json").is_file():
        write_json(folder / "run.json", run)


def predict(
    recommender: MIMIGenRec,
    rows: Sequence[AskedRow],
    prompts: Sequence[list[int] | None],
    folder: Path,
    process: Process,
    beams: int,
    k: int,
    batch_size: int,
    support: str,
    exclude_seen: bool,
) -> int:
    """This process's share of the rows that no file in the folder holds yet; returns how many those were.

    prompts   token ids per row; None where there is nothing to ask with (the list stays empty)
    beams     width of every search; with exclude_seen wider, see searched_beams
    raises    UserError when memory runs out (the width is never lowered), or naming the place of the row whose scores
              are NaN or infinite
    """
    done = {line["place"] for line in read_predictions(folder)}
    process.wait()  # nobody writes before all have read
    name = "predictions.jsonl" if process.world == 1 else f"predictions.rank{process.rank}.jsonl"
    mine = list(range(process.rank, len(rows), process.world))
    todo = [place for place in mine if place not in done]
    bar = tqdm(total=len(mine), initial=len(mine) - len(todo), unit="row", disable=process.rank > 0, smoothing=0.05)
    with JsonlWriter(folder / name) as out, bar:
        for place in todo:
            if prompts[place] is None:
                out.write({"place": place, **result_row(rows[place], [])})
                bar.update()
        asked = sorted((p for p in mine if prompts[p] is not None), key=lambda p: -len(prompts[p]))
        for first in range(0, len(asked), batch_size):
            batch = asked[first : first + batch_size]
            if done.issuperset(batch):
                continue
            with rows_named(batch):
                found = _search(recommender, [prompts[place] for place in batch], beams, support)
            for place, ranked in zip(batch, found, strict=True):
                if place not in done:
                    seen = rows[place].history if exclude_seen else ()
                    groups = to_groups(recommender, ranked, set(seen))[:k]
                    out.write({"place": place, **result_row(rows[place], groups)})
                    bar.update()
    return len(todo)


def _search(recommender: MIMIGenRec, prompts: list[list[int]], beams: int, support: str):
    try:
        return search_sids(
            recommender.model,
            recommender.tokenizer,
            recommender.trie,
            prompts,
            beams,
            support,
            batch_size=len(prompts),
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory with {len(prompts)} prompts of up to {max(map(len, prompts))} tokens and {beams} beams. "
            f"The width is not lowered, that would change the numbers: run again with --batch_size "
            f"{max(1, len(prompts) // 2)} or less; what is done is kept"
        ) from error


def to_groups(recommender: MIMIGenRec, ranked, seen: set[str]) -> list[Group]:
    """One group per SID with the items that carry it, those in `seen` left out, and SIDs with none left too."""
    groups = []
    for ids, logp in ranked:
        sid = tuple(recommender.tokenizer.convert_ids_to_tokens(list(ids)))
        known = recommender.catalog.items_of.get(sid, [])
        items = [item for item in known if item not in seen]
        if items or not known:  # an unknown SID stays, to be counted as invalid
            groups.append({"sid": join_sid(sid), "items": items, "score": round(logp, 6)})
    return groups


def searched_beams(recommender: MIMIGenRec, rows: Sequence[AskedRow], beams: int, exclude_seen: bool) -> int:
    """How wide every search is: with exclude_seen, wider by the most SIDs that any row's filter can take away."""
    if not exclude_seen:
        return beams
    sids = recommender.catalog.sids
    return beams + max(len({sids[item] for item in row.history if item in sids}) for row in rows)


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The lines of all processes, of this and earlier starts. Raises UserError naming the line that is none."""
    lines = []
    for path in sorted(folder.glob("predictions*.jsonl")):
        for number, line in enumerate(read_jsonl(path), 1):
            missing = [key for key in ("place", *ROW_KEYS) if not isinstance(line, dict) or key not in line]
            if missing or not isinstance(line["place"], int):
                raise UserError(
                    f"{path}, line {number}: no prediction, it has no {', '.join(missing) or 'number as its place'}; "
                    f"delete the file, and the same command predicts its rows again"
                )
            lines.append(line)
    return lines


def merge(folder: Path, n_rows: int) -> list[dict[str, Any]]:
    """All predictions in the order of the test set. Raises UserError unless every row is there, with one list."""
    lines = {}
    for line in read_predictions(folder):
        place = line.pop("place")
        if lines.setdefault(place, line) != line:
            raise UserError(
                f"row {place} is predicted twice in {folder}, with two lists; delete predictions*.jsonl and run again"
            )
    missing = [place for place in range(n_rows) if place not in lines]
    if missing:
        raise UserError(
            f"{folder} holds predictions for {n_rows - len(missing)} of {n_rows} rows, row {missing[0]} is missing; a "
            f"process ended early, start the same command again and it goes on"
        )
    return [lines[place] for place in range(n_rows)]
