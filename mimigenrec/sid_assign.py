"""New items get SIDs from frozen codebooks, removed items lose theirs, all others keep theirs.

    mimigenrec sid-assign --index C.index.json --codebooks C.codebooks-rqkmeans.safetensors \\
        --items new.json --vectors new.emb.npy --remove gone.txt --output C.index.new.json

--index and --output may be an id2sid.json, that of a checkpoint too, and may be one file: it is replaced as a whole,
and `MIMIGenRec.reload()` of a running process takes it up. Titles and descriptions then follow into the items.json
beside it, if --index has one. The vectors come from the encoder that made those of the catalogue (`mimigenrec embed`).
A new item may only have tokens that the index, or --tokens, has already, so a trained model can name it; --new_tokens
lifts that, and the model must then learn them. sids/new_items.py says which SID a new item gets.

OUTPUT.assigned.json, the manifest with what was done and the hash of the output, is written before the output: a run
that was interrupted does its work again, and one that is finished does nothing. Another file at --output, or one with
other SIDs, is replaced with --overwrite alone, unless it is --index itself.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimigenrec.catalog import add_fields, load_catalog, write_items
from mimigenrec.claim import check_same_file
from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, read_lines, sha256, write_json
from mimigenrec.items import field_text, read_items
from mimigenrec.manifest import differences, make_manifest, short_name
from mimigenrec.sids.new_items import assign_new
from mimigenrec.sids.quantise import run_of
from mimigenrec.sids.quantiser import Codebooks
from mimigenrec.sids.tokens import Sid, distinct_tokens, index_text, read_index, read_new_tokens, write_index
from mimigenrec.vectors.store import read_about, read_vectors

PATHS = ("index", "codebooks", "items", "vectors", "remove", "tokens")
FREE = (*PATHS, "output", "overwrite")  # the SIDs depend on the content of the files alone


@dataclass
class AssignConfig:
    """SIDs for new items from frozen codebooks; existing SIDs stay as they are."""

    index: Path = arg("C.index.json or id2sid.json of the catalogue")
    codebooks: Path = arg("C.codebooks-METHOD.safetensors that gave those SIDs")
    output: Path = arg("index to write; may be the same file as --index")
    items: Path | None = arg("item.json of the new items alone", default=None)
    vectors: Path | None = arg("their vectors, as mimigenrec embed makes them from --items", default=None)
    remove: Path | None = arg("text file, one id of a removed item per line", default=None)
    collisions: Literal["leave", "reassign"] = arg(
        "what to do with a new item whose nearest SID is taken", default="leave"
    )
    tokens: Path | None = arg("new_tokens.json of the model, if it knows more tokens than the index has", default=None)
    new_tokens: bool = arg("allow tokens that the model does not know", default=False)
    overwrite: bool = arg("replace an output of other files or settings, or that of a finished run", default=False)


def main(config: AssignConfig) -> None:
    record = config.output.with_suffix(".assigned.json")
    old = read_index(config.index)
    manifest = make_manifest(config, [path for name in PATHS if (path := getattr(config, name))], None)
    if is_finished(config, manifest, record):
        print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
        return
    codebooks = Codebooks.load(config.codebooks)
    check_codebooks(config, codebooks)
    gone = read_removed(config.remove, old) if config.remove else set()
    items, vectors = read_new(config, codebooks, old)
    kept = {item: sid for item, sid in old.items() if item not in gone}
    tokens = distinct_tokens(old) + (read_new_tokens(config.tokens) if config.tokens else [])
    known = None if config.new_tokens else tokens
    new = assign_new(kept, codebooks, items, vectors, config.collisions, known, depth=len(next(iter(old.values()))))
    sids = kept | new
    if not sids:
        raise UserError(f"{config.remove} removes every item of {config.index} and none is new; nothing is left")
    taken = set(kept.values())
    facts = {
        "kept": len(kept),
        "removed": len(gone),
        "new": len(new),
        "new_that_share_a_sid": sum(sid in taken for sid in new.values()) + len(new) - len(set(new.values())),
        "new_tokens": sorted(set(distinct_tokens(sids)) - set(tokens)),
        "output_sha256": hashlib.sha256(index_text(sids).encode()).hexdigest(),
    }
    if config.output.name == "id2sid.json" and config.index.with_name("items.json").is_file():
        write_texts(config, sids, gone)
    write_json(record, {**manifest, **facts})
    write_index(config.output, sids)
    print(f"{config.output}: {facts['kept']} items kept, {facts['removed']} removed, {facts['new']} new")
    print(f"new items that share a SID: {facts['new_that_share_a_sid']}; new tokens: {len(facts['new_tokens'])}")


def is_finished(config: AssignConfig, manifest: Mapping[str, Any], record: Path) -> bool:
    """Whether --output is what this run would write. Raises UserError if it is anything else but --index.

    In place the index that was read is no more: the run is the same if all other files and settings are, and the
    output is what the record says. Any other run in place goes on from the index as it now is.
    """
    if config.overwrite or not config.output.exists():
        return False
    before = read_json(record, made_by="mimigenrec sid-assign", kind=dict) if record.is_file() else {}
    written = before.get("output_sha256") == sha256(config.output)
    if config.index.exists() and config.output.samefile(config.index):
        pair = [{**one, "inputs": without(one.get("inputs", {}), config.index)} for one in (before, manifest)]
        return written and not differences(*pair, FREE)
    check_same_file(config.output, before or None, manifest, FREE)
    if not written:
        raise UserError(
            f"{config.output} is not as this command wrote it; take another --output, or --overwrite to replace it"
        )
    return True


def check_codebooks(config: AssignConfig, codebooks: Codebooks) -> None:
    """Raises UserError if the manifest beside --index says that other codebooks gave its SIDs: a folder may hold those
    of several methods."""
    manifest, run = config.index.with_suffix(".manifest.json"), codebooks.about.get("run")
    if not manifest.is_file() or run is None:
        return
    made = run_of(read_json(manifest, made_by="mimigenrec quantise", kind=dict))
    if made != run:
        changes = differences(made, run)
        raise UserError(
            f"{config.codebooks} did not give the SIDs of {config.index} ({'; '.join(changes[:3])}); give the "
            f"codebooks that mimigenrec quantise wrote with it"
        )


def without(inputs: Mapping[str, str], index: Path) -> dict[str, str]:
    return {path: hashed for path, hashed in inputs.items() if short_name(path) != short_name(index)}


def read_new(config: AssignConfig, codebooks: Codebooks, old: Mapping[str, Sid]) -> tuple[list[str], np.ndarray]:
    """Ids and vectors (n, dim) of the new items; none without --items.

    Raises UserError for an id that the index has, or vectors that are of another encoder than the codebooks.
    """
    if not config.items or not config.vectors:
        if config.items or config.vectors:
            raise UserError("--items and --vectors go together: mimigenrec embed makes the second from the first")
        return [], np.zeros((0, codebooks.dim), np.float32)
    items = list(read_items(config.items))
    already = [item for item in items if item in old]
    if already:
        raise UserError(
            f"{config.items}: {len(already)} items are in {config.index} already, {already[0]!r} first; give new "
            f"items alone, existing SIDs do not change"
        )
    model, made_from = read_about(config.vectors).get("model"), codebooks.about.get("model")
    if model and made_from and model != made_from:
        raise UserError(
            f"{config.vectors} is by {model!r}, the codebooks were made from vectors by {made_from!r}; embed the new "
            f"items as the catalogue was (tfidf: with --fitted)"
        )
    return items, read_vectors(config.vectors, items)


def write_texts(config: AssignConfig, sids: Mapping[str, Sid], gone: set[str]) -> None:
    """items.json beside --output: what lies beside --index, less the removed items, with the texts of new ones."""
    catalog = load_catalog(config.index.parent)
    new = read_items(config.items) if config.items else {}
    for name, texts in (("title", catalog.titles), ("description", catalog.descriptions)):
        for item in gone & texts.keys():
            del texts[item]
        texts |= {item: text for item, fields in new.items() if (text := field_text(fields, name))}
    if new:
        add_fields(catalog, new, tuple(catalog.fields), config.items)
    catalog.known = [item for item in [*catalog.known, *new] if item not in gone]
    catalog.sids = dict(sids)
    write_items(config.output.with_name("items.json"), catalog)


def read_removed(path: str | Path, old: Mapping[str, Sid]) -> set[str]:
    """Ids, one per line. Raises UserError naming the line of an id that the index does not have."""
    gone = set()
    for number, line in read_lines(path):
        item = line.strip()
        if item and item not in old:
            raise UserError(f"{path}, line {number}: item {item!r} is not in the index; give one id of it per line")
        gone |= {item} - {""}
    return gone


if __name__ == "__main__":
    start(main, AssignConfig)
