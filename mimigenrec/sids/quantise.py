"""Item vectors -> codes -> SIDs.

    mimigenrec quantise --items C.item.json --vectors C.emb-minilm.npy --output C.index.json --method rqkmeans
    -> C.index.json                          item id -> SID tokens (sids/tokens.py)
       C.codebooks-METHOD.safetensors        for new items (sids/quantiser.py)
       C.curve-METHOD.jsonl                  losses by epoch, of the methods that train a network
       C.index.manifest.json                 settings, errors by level, collisions before and after

C is the part of the output's name before ".index"; an index of its own for a method is C.index-rqvae.json. Rerun an
interrupted command and it goes on from C.training-METHOD.pt; rerun a finished one and it does nothing. An index or
codebooks of other vectors or settings are replaced with --overwrite alone. The index is written last: without it the
other files are what an interrupted run left.
"""

import inspect
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimigenrec.claim import check_same_file
from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.items import TEMPLATE, read_item_texts
from mimigenrec.manifest import inputs_of, installed, make_manifest
from mimigenrec.sids.collisions import Collisions, check_enough, resolve, same_text
from mimigenrec.sids.kmeans import Backend
from mimigenrec.sids.quantiser import Codebooks, assign, check_sizes, error_by_level
from mimigenrec.sids.tokens import MAX_LEVELS, codes_to_sids, write_index
from mimigenrec.sids.training import Training
from mimigenrec.vectors.store import read_about, read_vectors

Method = Literal[  # modules of this room
    "rqkmeans", "rqkmeans_constrained", "rqkmeans_plus", "rqvae", "opq", "item_tokens"
]
FREE = ("items", "vectors", "output", "overwrite", "device")  # the codes depend on the content of the files alone
LIBRARIES = ("scikit-learn", "faiss-cpu", "vector-quantize-pytorch")


@dataclass
class QuantiseConfig:
    """Item vectors -> SIDs, by residual or product quantisation, or a token of its own for every item."""

    items: Path = arg("C.item.json: the item ids, and the texts that --merge_same_text compares")
    vectors: Path = arg("C.emb-NAME.npy of these items")
    output: Path = arg("C.index.json to write; the other files go beside it")
    method: Method = arg("docs/quantisers.md compares them", default="rqkmeans_constrained")  # ours
    sizes: list[int] = arg(
        "codes of each level; item_tokens has one level, a code for each item",
        factory=lambda: [256, 256, 256],
        least=1,
    )  # MiniOneRec's, TIGER's
    backend: Backend = arg("k-means implementation: sklearn (k-means++ start), faiss (faster)", default="sklearn")
    iterations: int = arg("most k-means rounds", default=100, least=1)
    points_per_code: int = arg("random items that k-means sees, per code", default=256, least=1)  # faiss'
    rounds: int | None = arg(
        "balancing rounds (rqkmeans_constrained, 10) or rotation rounds (opq, 20)", default=None, least=1
    )
    balance_last: bool = arg("share the last level out evenly over the catalogue (rqvae)", default=True)
    collisions: Collisions = arg(
        "items of one SID: leave them, reassign the later ones to free SIDs, or give all items an extra level",
        default="leave",
    )
    merge_same_text: bool = arg("items of identical text share a SID on purpose", default=False)
    seed: int = arg("random seed of k-means, weights and order", default=42, least=0, most=2 * 10**9)  # faiss': int32
    overwrite: bool = arg("replace SIDs of other settings or vectors, or those of a finished run", default=False)


def main(config: QuantiseConfig, training: Training) -> None:
    prefix = name_prefix(config.output)
    texts = read_item_texts(config.items, TEMPLATE)
    items = list(texts)
    owner = same_text(list(texts.values())) if config.merge_same_text else np.arange(len(items))
    if config.method != "item_tokens":
        check_sizes(config.sizes, len(items))
        check_room(config, len(np.unique(owner)))
    fit = import_module(f"mimigenrec.sids.{config.method}").fit
    trained = {"training": asdict(training)} if "training" in inspect.signature(fit).parameters else {}
    manifest = make_manifest(config, [config.items, config.vectors], config.seed, **trained)
    books, about = Path(f"{prefix}.codebooks-{config.method}.safetensors"), config.output.with_suffix(".manifest.json")
    if is_finished(config, manifest, books, about):
        print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
        return
    vectors = read_vectors(config.vectors, items)
    check_differ(config, vectors)
    state, curve = Path(f"{prefix}.training-{config.method}.pt"), Path(f"{prefix}.curve-{config.method}.jsonl")

    began = time.perf_counter()
    codebooks, raw = fit(vectors, config.sizes, config.seed, **asked(fit, config, training, state, curve))
    seconds = time.perf_counter() - began
    codebooks.check(f"the codebooks of {config.method}", "take other settings or vectors")
    codes = resolve(config.collisions, raw, codebooks, vectors, owner)

    source = read_about(config.vectors)
    codebooks.about |= {"model": source.get("model"), "seed": config.seed, "collisions": config.collisions}
    codebooks.about["run"] = run_of(manifest)
    facts = {
        "libraries": {name: installed(name) for name in LIBRARIES},
        "seconds": round(seconds, 1),
        "error_by_level": [round(error, 6) for error in error_by_level(codebooks, vectors, raw)],
        "codes_used": [len(np.unique(raw[:, level])) for level in range(raw.shape[1])],
        "same_as_assign": float((assign(codebooks, vectors) == raw).all(1).mean()),
        "before": shared_sids(raw),
        "after": shared_sids(codes),
        "items_moved": int((raw != codes[:, : raw.shape[1]]).any(1).sum()),
        "items_merged": int((owner != np.arange(len(owner))).sum()),
    }
    config.output.unlink(missing_ok=True)
    about.unlink(missing_ok=True)
    codebooks.save(books)
    write_json(about, {**manifest, **facts})
    write_index(config.output, codes_to_sids(items, codes))
    state.unlink(missing_ok=True)
    print(f"{config.output}: {len(items)} items, {facts['after']['sids']} SIDs, {config.method} in {seconds:.1f} s")
    print(f"variance left after each level {facts['error_by_level']}, codes used {facts['codes_used']}")
    print(f"items that share a SID: {facts['before']['sharing']} before, {facts['after']['sharing']} after")


def is_finished(config: QuantiseConfig, manifest: Mapping[str, Any], books: Path, about: Path) -> bool:
    """Whether index and codebooks are there and of this run. Raises UserError if one is not, unless overwritten."""
    if config.overwrite:
        return False
    index_run = run_of(read_json(about, made_by="mimigenrec quantise", kind=dict)) if about.is_file() else None
    books_run = Codebooks.load(books).about.get("run", index_run) if books.is_file() else None
    for path, before in ((config.output, index_run), (about, index_run), (books, books_run)):
        if before or path.exists():
            check_same_file(path, before, run_of(manifest))
    return config.output.is_file() and about.is_file() and books.is_file()


def run_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Of a manifest, what tells two runs apart wherever they are: settings, those of the training too, and inputs."""
    config = {**manifest.get("config", {}), **(manifest.get("training") or {})}
    return {
        "config": {name: value for name, value in config.items() if name not in FREE},
        "inputs": inputs_of(manifest),
    }


def check_room(config: QuantiseConfig, items: int) -> None:
    """Raises UserError, before anything is trained, if the SIDs cannot be what --collisions wants of so many items."""
    if config.collisions == "extra" and len(config.sizes) == MAX_LEVELS:
        raise UserError(f"--collisions extra adds a level to {MAX_LEVELS}, and a SID has no more; give fewer --sizes")
    if config.collisions == "reassign":
        check_enough(config.sizes, items)


def check_differ(config: QuantiseConfig, vectors: np.ndarray) -> None:
    """Raises UserError if all items have one vector: no method can then tell them apart."""
    if config.method != "item_tokens" and len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        raise UserError(
            f"{config.vectors} holds one and the same vector for all {len(vectors)} items, so SIDs would say nothing; "
            f"look at the texts and the encoder"
        )


def name_prefix(output: str | Path) -> str:
    """data/C.index-rqvae.json -> "data/C". Raises UserError for a name without .index in it."""
    output = Path(output)
    prefix, dot_index, _ = output.name.partition(".index")
    if not (prefix and dot_index and output.suffix == ".json"):
        raise UserError(f"--output {output} must be called C.index.json or C.index-NAME.json; C names the data set")
    return str(output.with_name(prefix))


def asked(fit, config: QuantiseConfig, training: Training, state: Path, curve: Path) -> dict[str, Any]:
    """What this method's fit takes, of the settings."""
    given = {**vars(config), "training": training, "state": state, "curve": curve}
    return {
        name: given[name] for name in list(inspect.signature(fit).parameters)[3:] if given[name] is not None
    }  # behind vectors, sizes, seed


def shared_sids(codes: np.ndarray) -> dict[str, int]:
    """How many SIDs there are, how many items share theirs with another, and the most items of one SID."""
    groups = Counter(map(tuple, codes.tolist())).values()
    return {"sids": len(groups), "sharing": sum(n for n in groups if n > 1), "largest": max(groups)}


if __name__ == "__main__":
    start(main, QuantiseConfig, Training)
