"""Prompts -> predictions.jsonl, by one process or many, written as they come; an interrupted run goes on.

run.json            {"config": settings, "inputs": {file: SHA-256}}, all that the result depends on
predictions.jsonl   {"place", and what a row of final_result.json has}; place is the row's number in the test set. Of
                    several processes each has its own, predictions.rank<r>.jsonl

Rows are dealt out to the processes by place (sharded.py), longest prompts first, in batches that do not depend on what
is done already, so a run in two parts gives what a run in one gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import rows_named, search_sids
from mimigenrec.errors import UserError
from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.evaluation.metrics import Group
from mimigenrec.evaluation.result import FILES, ROW_KEYS
from mimigenrec.evaluation.rows import AskedRow, result_row
from mimigenrec.sharded import Process, Row, is_begun, merge_shards, write_shard
from mimigenrec.sharded import begin as begin_run
from mimigenrec.sids.tokens import join_sid

NAME = "predictions"


def is_finished(folder: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds the whole result of this run (what run.json holds). Raises as sharded.is_begun does."""
    begun = is_begun(folder, run, "evaluation of a model", overwrite=overwrite)
    return begun and not overwrite and all((folder / name).is_file() for name in FILES)


def begin(folder: Path, run: Mapping[str, Any], overwrite: bool = False) -> None:
    """Marks the folder as the place of this run; with overwrite, what an earlier one wrote goes first. Raises as
    is_finished does."""
    if not is_begun(folder, run, "evaluation of a model", overwrite=overwrite) or overwrite:
        begin_run(folder, run, (f"{NAME}*.jsonl", *FILES))


def predict(
    recommender: MIMIGenRec,
    rows: Sequence[AskedRow],
    prompts: Sequence[list[int] | None],
    config: EvaluateConfig,
    beams: int,
    process: Process,
) -> int:
    """This process's share of the rows that no file in config.output holds yet; returns how many those were.

    prompts   token ids per row; None where there is nothing to ask with (the list stays empty)
    beams     width of every search; with exclude_seen wider than config.beams, see searched_beams
    raises    UserError when memory runs out (the width is never lowered), or naming the place of the row whose scores
              are NaN or infinite
    """
    share = process.share(range(len(rows)))
    without = [place for place in share if prompts[place] is None]
    longest_first = sorted(set(share).difference(without), key=lambda place: (-len(prompts[place]), place))
    starts = range(0, len(longest_first), config.batch_size)
    batches = [without, *(longest_first[first : first + config.batch_size] for first in starts)]

    def work(batch: Sequence[int], missing: Sequence[int]) -> Iterator[Row]:
        if prompts[batch[0]] is None:
            yield from (result_row(rows[place], []) for place in missing)
            return
        with rows_named(batch):
            ranked_lists = _search(recommender, [prompts[place] for place in batch], beams, config.support)
        for place, ranked in zip(batch, ranked_lists, strict=True):
            if place in missing:
                seen = set(rows[place].history) if config.exclude_seen else set()
                yield result_row(rows[place], to_groups(recommender, ranked, seen)[: config.k])

    return write_shard(config.output, NAME, batches, work, process, ROW_KEYS)


def _search(recommender: MIMIGenRec, prompts: list[list[int]], beams: int, support: str):
    try:
        return search_sids(
            recommender.model,
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


def merge(folder: Path, n_rows: int) -> list[Row]:
    """All predictions in the order of the test set. Raises UserError unless every row is there, with one list."""
    return merge_shards(folder, NAME, n_rows, ROW_KEYS)
