"""Methods to beat, fitted on the train rows alone and measured as the model is: `mimigenrec baseline`.

They rank every item that has a SID, the same candidates as the model's; a target without one is a miss for all. Sets
without SIDs are measured item by item (--sids none). Networks stop by NDCG@10 of the valid rows.

In --output manifest.json comes first and says what the run is, metrics.json comes last and says that it is finished.
The same command goes on with a run that is not finished and leaves a finished one as it is; a run with other settings
or data is refused.
"""

import logging
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mimigenrec.baselines.history_popularity import HistoryPopularity
from mimigenrec.baselines.itemknn import ItemKNN
from mimigenrec.baselines.markov import Markov
from mimigenrec.baselines.network import METHODS, READ_BY, Network, check_network
from mimigenrec.baselines.popularity import Popularity
from mimigenrec.baselines.repeat_last import RepeatLast
from mimigenrec.catalog import Catalog, load_catalog
from mimigenrec.cli import arg, check_ranges, start
from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import KS, Group
from mimigenrec.evaluation.result import write_result
from mimigenrec.evaluation.rows import AskedRow, read_asked_rows, read_inter_rows, result_row
from mimigenrec.evaluation.table import one_result
from mimigenrec.files import read_json, sha256, write_json
from mimigenrec.interactions.inter_file import History, raw_file, read_inter
from mimigenrec.interactions.names import check_category
from mimigenrec.lock import alone
from mimigenrec.manifest import check_same_run, make_manifest
from mimigenrec.sids.tokens import join_sid, read_index

COUNTING = {  # method -> what its keys and train rows make of it: something with rank(history)
    "popularity": lambda config, *data: Popularity(*data),
    "repeat_last": lambda config, *data: RepeatLast(*data),
    "history_popularity": lambda config, *data: HistoryPopularity(*data),
    "markov": lambda config, *data: Markov(*data, config.back_off),
    "itemknn": lambda config, *data: ItemKNN(*data, config.neighbours, config.shrink),
}
DEFAULTS = Network()
OWN = {"back_off": ("markov",), "neighbours": ("itemknn",), "shrink": ("itemknn",)}
FREE = ("raw", "data_dir", "data", "index", "output", "device", "overwrite")  # files are known by their content
TRAINING = ("training.pt", "training.jsonl")
RESULTS = (
    *("metrics.json", "metrics.tsv", "metrics.md", "metrics.png", "final_result.json"),
    *("network.json", "network.safetensors"),  # sasrec, gru4rec, caser
    *("config.json", "generation_config.json", "model.safetensors", "id2sid.json"),  # tiger
)

logger = logging.getLogger(__name__)


@dataclass
class BaselineConfig:
    """A baseline's lists for the test rows, in the files that `mimigenrec evaluate` writes."""

    method: Literal[
        "popularity", "repeat_last", "history_popularity", "markov", "itemknn", "sasrec", "gru4rec", "caser", "tiger"
    ] = arg("what to fit")
    raw: Path = arg("folder of C/C.train.inter, or of C.train.inter itself; C is --category", aliases=["data_dir"])
    category: str = arg("name of the category, C")
    output: Path = arg("folder to write final_result.json, metrics.* and manifest.json to, and a network's training")
    data: Path | None = arg(
        "folder written by preprocessing: ask its rows and rank its items, so that the result can be compared with a "
        "model's; without it C.<split>.inter and C.index.json are read",
        default=None,
    )
    sids: Literal["index", "none"] = arg(
        "none: the set has no SIDs; every item of the three .inter files is ranked and stands for itself",
        default="index",
    )
    split: Literal["valid", "test"] = arg("rows to rank for", default="test")
    k: int = arg("number of distinct SIDs per list", default=50, least=KS[0])
    exclude_seen: bool = arg("leave out items of the row's own history", default=False)
    limit: int | None = arg("number of rows, the first ones", default=None, least=1)
    back_off: int = arg(
        "markov: number of earlier items to back off to before falling back to popularity", default=0, least=0
    )
    neighbours: int = arg("itemknn: number of neighbours per item", default=100, least=1)
    shrink: float = arg("itemknn: shrinkage term in the denominator; damps items with few users", default=0.0, least=0)
    index: Path | None = arg(
        "tiger: C.index.json whose SIDs it writes in place of the data's; one item per SID",
        default=None,
    )
    seed: int = arg("random seed of the bootstrap and of a network's training", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg(
        "replace a run of other settings or data in --output; a network's training that is the same is kept",
        default=False,
    )


def main(config: BaselineConfig, network: Network = DEFAULTS) -> None:
    check(config, network)
    catalog = read_catalog(config)
    inputs = [*index_files(config), file_of(config, "train")]
    train = list(read_inter(inputs[-1]))
    check_train(config, catalog, train)
    inputs += [config.index] if config.index else []
    rows, read = asked_rows(config, catalog, config.split, config.limit)
    inputs += read
    valid = []
    if config.method not in COUNTING:
        valid, read = asked_rows(config, catalog, "valid", network.valid_rows)
        inputs += [path for path in read if path not in inputs]
    facts = {} if config.method in COUNTING else {"network": asdict(network)}
    manifest = make_manifest(config, inputs, config.seed, **facts)
    check_folder(config.output)
    with alone(config.output / ".lock", "another baseline"):
        if is_finished(config, manifest):
            print(f"{config.output} is finished: nothing to do; --overwrite measures it anew")
            return
        metrics = measured(config, network, catalog, train, rows, valid, manifest)
    print(f"{config.method}\n\n{one_result(metrics)}\nwritten to {config.output}")


def measured(
    config: BaselineConfig,
    network: Network,
    catalog: Catalog,
    train: list[History],
    rows: list[AskedRow],
    valid: list[AskedRow],
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Fits, ranks and writes the result; returns the metrics."""
    histories = [row.history for row in rows]
    if config.method in COUNTING:
        method = COUNTING[config.method](config, catalog.sids, train)
        lists = cut(map(method.rank, histories), histories, catalog, config)
    else:
        asked = [History(row.row, row.user, tuple(row.history), row.target) for row in valid]
        lists = trained(config, network, catalog, train, asked, histories)
    started = time.perf_counter()  # lists are made as they are read; training is told by training.jsonl
    results = [result_row(row, groups) for row, groups in zip(rows, lists, strict=True)]
    seconds = time.perf_counter() - started
    (config.output / "metrics.json").unlink(missing_ok=True)  # of a run with fewer epochs
    return write_result(
        config.output,
        results,
        catalog,
        config.k,
        manifest,
        method=config.method,
        exclude_seen=config.exclude_seen,
        seconds=round(seconds, 2),
    )


def check(config: BaselineConfig, network: Network) -> None:
    """Raises UserError naming the flag whose value cannot be meant; warns of those that the method does not read."""
    check_ranges(config)
    check_category(config.category)
    if config.data and config.sids == "none":
        raise UserError(f"--data {config.data} has SIDs; leave out --sids none, or --data")
    if config.index and config.method != "tiger":
        raise UserError(f"--index {config.index} is for --method tiger; {config.method} writes no SIDs")
    if config.method in METHODS:
        check_network(config.method, network)
        choose_device(network.device)
    readers = OWN | {field.name: READ_BY.get(field.name, METHODS) for field in fields(Network)}
    for given in (config, network):
        for field in fields(given):
            value = getattr(given, field.name)
            if config.method not in readers.get(field.name, config.method) and value != field.default:
                logger.warning("--%s %s has no effect: %s does not read it", field.name, value, config.method)


def check_train(config: BaselineConfig, catalog: Catalog, train: list[History]) -> None:
    """Raises UserError if the train rows are of another set than the items to rank; warns if most are unknown."""
    path, ranked = file_of(config, "train"), index_files(config)[0]
    met = {item for row in train for item in (*row.items, row.target)}
    known = met & catalog.sids.keys()
    if not known:
        raise UserError(
            f"none of the {len(met)} items of {path} is among the {len(catalog.sids)} of {ranked}: they are of "
            f"different sets; correct --raw, --category or --data"
        )
    if 2 * len(known) < len(met):
        logger.warning(
            "only %d of the %d items of %s are among the %d of %s: the others count for nothing, and the figures are "
            "those of a method that saw little. Correct --raw, --category or --data if that is not meant",
            len(known),
            len(met),
            path,
            len(catalog.sids),
            ranked,
        )
    if config.data and (config.data / "manifest.json").is_file():
        built = read_manifest(config.data, made_by="mimigenrec preprocess")["inputs"]
        theirs = {name: hashed for name, hashed in built.items() if name.endswith(".train.inter")}
        if theirs and sha256(path) not in theirs.values():
            raise UserError(
                f"--data {config.data} was built from {next(iter(theirs))}, and {path} holds other rows; give the "
                f"--raw and --category that it was built from, or build it again"
            )


def check_folder(output: Path) -> None:
    """Raises UserError if the folder holds files that no baseline has written."""
    there = sorted(path.name for path in output.iterdir() if path.name[0] != ".") if output.is_dir() else []
    if there and not {"method", "back_off"} <= read_manifest(output, "an earlier run")["config"].keys():
        raise UserError(
            f"--output {output} holds {', '.join(there[:3])}{', ...' if there[3:] else ''}, and no manifest.json of a "
            f"baseline: something else is there. Take another folder"
        )


def read_manifest(folder: Path, made_by: str) -> dict[str, dict[str, Any]]:
    """config, network and inputs of a manifest.json, empty where it is missing or lacks them."""
    path = folder / "manifest.json"
    content = read_json(path, made_by, kind=dict) if path.is_file() else {}
    parts = {part: content.get(part, {}) for part in ("config", "network", "inputs")}
    if wrong := next((part for part, value in parts.items() if not isinstance(value, dict)), None):
        raise UserError(f"{path}: {wrong} must be a map, found {str(parts[wrong])[:80]!r}; it comes from {made_by}")
    return parts


def is_finished(config: BaselineConfig, manifest: dict[str, Any]) -> bool:
    """Whether the folder holds this very run, finished. If not, the folder says from now on that this run is at work
    there, and holds nothing of another that could be taken for its result.

    Raises UserError showing what differs if it holds a run of other settings or data, unless that may be overwritten.
    """
    output = config.output
    then, now = with_network(read_manifest(output, "an earlier run")), with_network(manifest)
    longer = {name for name in ("epochs", "patience") if then["config"].get(name, 0) < now["config"].get(name, 0)}
    finished = (output / "metrics.json").is_file()
    if config.overwrite:
        for name in RESULTS + (TRAINING if config.method in COUNTING else ()):
            (output / name).unlink(missing_ok=True)
    elif any((output / name).exists() for name in RESULTS + TRAINING):
        check_same_run(output, then, now, {*FREE, *longer}, overwrite="--overwrite")
        if finished:
            return not longer  # if it is to train on, it stays as it is until its new result is there
    write_json(output / "manifest.json", manifest)
    return False


def with_network(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the network's settings among those of the command."""
    return {"config": {**manifest["config"], **manifest.get("network", {})}, "inputs": manifest["inputs"]}


def trained(
    config: BaselineConfig,
    network: Network,
    catalog: Catalog,
    train: list[History],
    valid: list[History],
    histories: list[list[str]],
) -> Iterable[list[Group]]:
    if config.method == "tiger":
        from mimigenrec.baselines.tiger import Tiger

        tiger = Tiger(written_sids(config.index, catalog) if config.index else catalog, network, config.seed)
        tiger.train(train, valid, config.seed, config.output, config.exclude_seen, config.overwrite)
        lists = tiger.lists(histories, config.k, config.exclude_seen)
        return (renamed(groups, catalog) for groups in lists) if config.index else lists
    from mimigenrec.baselines.next_item import NextItem

    recommender = NextItem.train(
        config.method,
        catalog.sids,
        train,
        valid,
        network,
        config.seed,
        config.output,
        config.exclude_seen,
        config.overwrite,
    )
    return cut(recommender.rank_all(histories), histories, catalog, config)


def written_sids(index: Path, catalog: Catalog) -> Catalog:
    """The catalogue under the SIDs of another index. Raises UserError unless every item has a SID of its own in both,
    without which a list in the one cannot be told in the other."""
    own = Catalog(sids=read_index(index))
    if missing := [item for item in catalog.sids if item not in own.sids]:
        raise UserError(f"{index} has no SID for {len(missing)} of the items to rank, {missing[0]!r} first")
    own = Catalog(sids={item: own.sids[item] for item in catalog.sids})
    for source, named in ((index, own), ("the data", catalog)):
        if shared := next((items for items in named.items_of.values() if len(items) > 1), None):
            raise UserError(
                f"--index needs one item a SID; in {source} items {shared[0]!r} and {shared[1]!r} share one; "
                f"`mimigenrec quantise --collisions reassign` parts them"
            )
    return own


def renamed(groups: list[Group], catalog: Catalog) -> list[Group]:
    """Groups of one item each, under the catalogue's SID of it."""
    return [{**group, "sid": join_sid(catalog.sids[group["items"][0]])} for group in groups]


def file_of(config: BaselineConfig, split: str) -> Path:
    return raw_file(config.raw, config.category, f"{split}.inter")


def index_files(config: BaselineConfig) -> list[Path]:
    """Where the items to rank are told."""
    if config.data:
        return [config.data / "id2sid.json"]
    if config.sids == "none":
        return [file_of(config, "valid"), file_of(config, "test")]  # and train, which every method reads
    return [raw_file(config.raw, config.category, "index.json")]


def read_catalog(config: BaselineConfig) -> Catalog:
    if config.data:
        return load_catalog(config.data)
    if config.sids == "index":
        return Catalog(sids=read_index(*index_files(config)))
    rows = (row for split in ("train", "valid", "test") for row in read_inter(file_of(config, split)))
    items = dict.fromkeys(item for row in rows for item in (*row.items, row.target))
    return Catalog(sids={item: (f"<item_{item}>",) for item in items})


def asked_rows(
    config: BaselineConfig, catalog: Catalog, split: str, limit: int | None
) -> tuple[list[AskedRow], list[Path]]:
    """The first `limit` rows of a split, and the files that they were read from."""
    if config.data:
        files = [config.data / "sft" / f"{split}.json", config.data / "rows" / f"{split}.json"]
        return read_asked_rows(*files, limit), files
    path = file_of(config, split)
    return read_inter_rows(path, catalog.sids, limit), [path]


def cut(
    ranked: Iterable[Iterable[tuple[str, float]]], histories: list[list[str]], catalog: Catalog, config: BaselineConfig
) -> Iterator[list[Group]]:
    for items, history in zip(ranked, histories, strict=True):
        yield to_groups(items, catalog, config.k, set(history) if config.exclude_seen else ())


def to_groups(
    ranked: Iterable[tuple[str, float]], catalog: Catalog, k: int, seen: Collection[str] = ()
) -> list[Group]:
    """One group per item, as its place is known exactly, until k distinct SIDs have come."""
    groups: list[Group] = []
    sids: set[str] = set()
    for item, score in ranked:
        if item in seen:
            continue
        sid = join_sid(catalog.sids[item])
        if len(sids) == k and sid not in sids:
            break
        sids.add(sid)
        groups.append({"sid": sid, "items": [item], "score": score})
    return groups


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    start(main, BaselineConfig, Network)
