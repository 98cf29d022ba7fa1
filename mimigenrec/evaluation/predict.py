"""Prompts -> predictions.jsonl, by one process or many, written as they come; an interrupted run goes on.

predictions.jsonl (one process) or predictions.rank<r>.jsonl: {"place", and what a row of final_result.json has}, where
place is the row's number in the test set. Rows are dealt out to the processes by place, longest prompts first, in
batches that do not depend on what is done already, so a run in two parts gives what a run in one gives.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import search_sids
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import Group
from mimigenrec.evaluation.rows import AskedRow, result_row
from mimigenrec.files import read_json, write_json
from mimigenrec.logs import JsonlWriter, read_jsonl
from mimigenrec.sids.tokens import join_sid

LONGEST_WAIT = timedelta(days=7)  # of the first process to finish for the last; a dead one is torchrun's to notice


class Process(NamedTuple):
    rank: int
    world: int

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


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


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Marks the folder as the place of this run; settings: all that its numbers depend on.

    Raises ValueError naming what differs if the folder holds the predictions of another run.
    """
    path = folder / "run.json"
    if not path.is_file():
        stray = sorted(file.name for file in folder.glob("predictions*.jsonl"))
        if stray:
            raise UserError(f"{folder} holds {stray[0]} but no run.json saying what made it; choose another --output")
        write_json(path, settings)
        return
    before = read_json(path, made_by="an earlier `mimigenrec evaluate`")
    differing = [key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key)]
    if differing:
        told = "; ".join(
            f"{key}: {_short(before.get(key))} then, {_short(settings.get(key))} now" for key in sorted(differing)
        )
        raise UserError(f"{folder} holds predictions of another run ({told}); choose another --output or delete it")


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
    raises    RuntimeError when memory runs out; the width is never lowered
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
    """The lines of all processes, of this and earlier starts."""
    return [line for path in sorted(folder.glob("predictions*.jsonl")) for line in read_jsonl(path)]


def merge(folder: Path, n_rows: int) -> list[dict[str, Any]]:
    """All predictions in the order of the test set. Raises RuntimeError unless every row is there exactly once."""
    lines = {}
    for line in read_predictions(folder):
        place = line.pop("place")
        if place in lines:
            raise UserError(f"row {place} is predicted twice in {folder}; delete predictions*.jsonl and run again")
        lines[place] = line
    missing = [place for place in range(n_rows) if place not in lines]
    if missing:
        raise UserError(
            f"{folder} holds predictions for {n_rows - len(missing)} of {n_rows} rows, row {missing[0]} is missing; a "
            f"process ended early, start the same command again and it goes on"
        )
    return [lines[place] for place in range(n_rows)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
