"""Methods to beat, fitted on the train rows alone and measured as the model is: `mimigenrec baseline`.

They rank every item that has a SID, the same candidates as the model's; a target without one is a miss for all.
"""

import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimigenrec.baselines.markov import Markov
from mimigenrec.baselines.popularity import Popularity
from mimigenrec.catalog import Catalog, load_catalog
from mimigenrec.cli import arg, parse
from mimigenrec.evaluation.metrics import KS, Group
from mimigenrec.evaluation.result import write_result
from mimigenrec.evaluation.rows import read_inter_rows, read_rows, result_row
from mimigenrec.evaluation.table import one_result
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.manifest import make_manifest
from mimigenrec.sids.tokens import join_sid, read_index

METHODS = {"popularity": Popularity, "markov": Markov}

logger = logging.getLogger(__name__)


@dataclass
class BaselineConfig:
    """A baseline's lists for the test rows, in the files that `mimigenrec evaluate` writes."""

    method: Literal["popularity", "markov"] = arg("what to fit")
    data_dir: Path = arg("folder that holds C/C.train.inter, or C.train.inter itself; C is --category")
    category: str = arg("name of the category, C")
    output: Path = arg("folder to write final_result.json, metrics.* and manifest.json to")
    data: Path | None = arg(
        "folder written by preprocessing: ask its rows and rank its items, so that the result can be compared with a "
        "model's; without it C.<split>.inter and C.index.json are read",
        default=None,
    )
    split: Literal["valid", "test"] = arg("rows to rank for", default="test")
    k: int = arg("how many distinct SIDs a list holds", default=50)
    exclude_seen: bool = arg("leave out items of the row's own history", default=False)
    limit: int | None = arg("only the first so many rows", default=None)
    seed: int = arg("of the bootstrap", default=42)


def main(config: BaselineConfig) -> None:
    if config.k < KS[0]:
        raise ValueError(f"--k {config.k} leaves nothing to rank; the smallest is {KS[0]}")
    inner = config.data_dir / config.category
    raw = inner if inner.is_dir() else config.data_dir
    train_file = raw / f"{config.category}.train.inter"
    if config.data:
        split = f"{config.split}.json"
        inputs = [config.data / "id2sid.json", config.data / "sft" / split, config.data / "rows" / split]
        catalog = load_catalog(config.data)
        rows = read_rows(inputs[1], inputs[2], config.limit)
    else:
        inputs = [raw / f"{config.category}.index.json", raw / f"{config.category}.{config.split}.inter"]
        catalog = Catalog(sids=read_index(inputs[0]))
        rows = read_inter_rows(inputs[1], catalog.sids, config.limit)
    started = time.perf_counter()
    method = METHODS[config.method](catalog.sids, list(read_inter(train_file)))
    results = []
    for row in rows:
        seen = set(row.history) if config.exclude_seen else set()
        results.append(result_row(row, to_groups(method.rank(row.history), catalog, config.k, seen)))
    seconds = time.perf_counter() - started
    manifest = make_manifest(config, [train_file, *inputs], config.seed)
    metrics = write_result(
        config.output,
        results,
        catalog,
        config.k,
        manifest,
        method=config.method,
        exclude_seen=config.exclude_seen,
        seconds=round(seconds, 2),
    )
    print(f"{config.method}\n\n{one_result(metrics)}\nwritten to {config.output}")


def to_groups(
    ranked: Iterable[tuple[str, float]], catalog: Catalog, k: int, seen: Collection[str] = ()
) -> list[Group]:
    """One group per item, as its place is known exactly, until k distinct SIDs have come."""
    groups: list[Group] = []
    sids: set[str] = set()
    for item, score in ranked:
        sid = join_sid(catalog.sids[item])
        if item in seen:
            continue
        if len(sids) == k and sid not in sids:
            break
        sids.add(sid)
        groups.append({"sid": sid, "items": [item], "score": score})
    return groups


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*parse(BaselineConfig))
