"""New items get SIDs from frozen codebooks, removed items lose theirs, all others keep theirs.

    mimigenrec sid-assign --index C.index.json --codebooks C.codebooks-rqkmeans.safetensors \\
        --items new.json --vectors new.emb.npy --remove gone.txt --output C.index.new.json

--index and --output may be an id2sid.json, that of a checkpoint too, and may be one file: it is replaced as a whole,
and `MIMIGenRec.reload()` of a running process takes it up. The vectors come from the encoder that made those of the
catalogue (`mimigenrec embed`). A new item may only have tokens that the index, or --tokens, has already, so a trained
model can name it; --new_tokens lifts that, and the model must then learn them.

A new item takes the nearest SID, as `assign` gives it. With --collisions reassign it takes the nearest one that no
item has; a SID that a removed item left is free. In an index with an extra level (collisions: extra) it takes the next
number of its SID, or where the numbers are used up goes on to the next nearest SID.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mimigenrec.cli import arg, parse
from mimigenrec.files import write_json
from mimigenrec.manifest import make_manifest
from mimigenrec.sids.collisions import Code, near_sids
from mimigenrec.sids.items import read_item_texts
from mimigenrec.sids.quantiser import Codebooks, assign, encode
from mimigenrec.sids.tokens import (
    LEVEL_LETTERS,
    Sid,
    codes_to_sids,
    distinct_tokens,
    read_index,
    read_new_tokens,
    sid_to_codes,
    write_index,
)
from mimigenrec.sids.vectors import read_about, read_vectors


@dataclass
class AssignConfig:
    """SIDs for new items from frozen codebooks; existing SIDs stay as they are."""

    index: Path = arg("C.index.json or id2sid.json of the catalogue")
    codebooks: Path = arg("C.codebooks-METHOD.safetensors that gave those SIDs")
    output: Path = arg("index to write; may be the same file as --index")
    items: Path | None = arg("item.json of the new items alone", default=None)
    vectors: Path | None = arg("their vectors, as mimigenrec embed makes them from --items", default=None)
    remove: Path | None = arg("text file, one id of a removed item a line", default=None)
    collisions: Literal["leave", "reassign"] = arg("a new item whose nearest SID is taken", default="leave")
    tokens: Path | None = arg("new_tokens.json of the model, if it knows more tokens than the index has", default=None)
    new_tokens: bool = arg("allow tokens that the model does not know", default=False)


def main(config: AssignConfig) -> None:
    old = read_index(config.index)
    codebooks = Codebooks.load(config.codebooks)
    gone = read_removed(config.remove, old) if config.remove else set()
    items, vectors = read_new(config, codebooks, old)
    kept = {item: sid for item, sid in old.items() if item not in gone}
    tokens = distinct_tokens(old) + (read_new_tokens(config.tokens) if config.tokens else [])
    known = None if config.new_tokens else tokens
    new = assign_new(kept, codebooks, items, vectors, config.collisions, known, depth=len(next(iter(old.values()))))
    sids = kept | new
    if not sids:
        raise ValueError(f"{config.remove} removes every item of {config.index} and none is new; nothing is left")
    write_index(config.output, sids)
    taken = set(kept.values())
    facts = {
        "kept": len(kept),
        "removed": len(gone),
        "new": len(new),
        "new_that_share_a_sid": sum(sid in taken for sid in new.values()) + len(new) - len(set(new.values())),
        "new_tokens": sorted(set(distinct_tokens(sids)) - set(tokens)),
    }
    inputs = [path for path in (config.index, config.codebooks, config.items, config.vectors, config.remove) if path]
    write_json(Path(config.output).with_suffix(".assigned.json"), make_manifest(config, inputs, None, **facts))
    print(f"{config.output}: {facts['kept']} items kept, {facts['removed']} removed, {facts['new']} new")
    print(f"new items that share a SID: {facts['new_that_share_a_sid']}; new tokens: {len(facts['new_tokens'])}")


def assign_new(
    kept: Mapping[str, Sid],
    codebooks: Codebooks,
    items: Sequence[str],
    vectors: np.ndarray,
    collisions: Literal["leave", "reassign"],
    known: Iterable[str] | None,
    depth: int,
) -> dict[str, Sid]:
    """SIDs of `depth` tokens for new items, in their order; vectors (items, dim).

    kept    the SIDs that are taken          known   tokens that may be used; None: all of the codebooks
    raises  ValueError if depth is neither the codebooks' number of levels nor one more, a kept SID is not made of
            their codes, or no SID is free
    """
    levels = len(codebooks.levels)
    if depth not in (levels, levels + 1):
        raise ValueError(f"the index has SIDs of {depth} tokens and these codebooks give {levels}; take its own")
    taken = {sid_to_codes(sid) for sid in kept.values()}
    for code in taken:
        if len(code) != depth or any(c >= size for c, size in zip(code, codebooks.sizes, strict=False)):
            raise ValueError(f"the SID {code} of the index is not made of codebooks {codebooks.sizes}; take its own")
    if not len(items):
        return {}
    codes_at = known_codes(codebooks, known, depth)
    allowed = replace(codebooks, levels=[level[own] for level, own in zip(codebooks.levels, codes_at, strict=False)])
    nearest, encoded = assign(allowed, vectors), encode(allowed, vectors)
    codes = np.empty((len(items), depth), np.int64)
    for row, own in enumerate(nearest):
        near = near_sids(encoded[row], allowed.levels, tuple(own.tolist()))
        choices = (tuple(int(codes_at[level][code]) for level, code in enumerate(sid)) for sid in near)
        if depth > levels:
            choice = next(numbered(choices, taken, codes_at[-1]), None)
        else:
            choice = next((sid for sid in choices if collisions == "leave" or sid not in taken), None)
        if choice is None:
            raise ValueError(
                f"no SID is free for new item {items[row]!r}; --new_tokens or --collisions leave would make room"
            )
        taken.add(choice)
        codes[row] = choice
    return codes_to_sids(items, codes)


def numbered(sids: Iterable[Code], taken: set[Code], numbers: Sequence[int]) -> Iterable[Code]:
    """SIDs with their first free number behind them; those whose numbers are used up are left out."""
    for sid in sids:
        for number in numbers:
            if (*sid, int(number)) not in taken:
                yield (*sid, int(number))
                break


def known_codes(codebooks: Codebooks, known: Iterable[str] | None, depth: int) -> list[np.ndarray]:
    """For each level the codes that may be used, ascending; the numbers of an extra level have no end."""
    sizes = codebooks.sizes + [10**6] * (depth - len(codebooks.levels))
    if known is None:
        return [np.arange(size) for size in sizes]
    codes: list[set[int]] = [set() for _ in sizes]
    for token in known:
        found = re.fullmatch(rf"<([{LEVEL_LETTERS[:depth]}])_(\d+)>", token)
        if found and int(found[2]) < sizes[LEVEL_LETTERS.index(found[1])]:
            codes[LEVEL_LETTERS.index(found[1])].add(int(found[2]))
    return [np.array(sorted(own)) for own in codes]


def read_new(config: AssignConfig, codebooks: Codebooks, old: Mapping[str, Sid]) -> tuple[list[str], np.ndarray]:
    """Ids and vectors (n, dim) of the new items; none without --items.

    Raises ValueError for an id that the index has, or vectors that are of another encoder than the codebooks.
    """
    if not config.items or not config.vectors:
        if config.items or config.vectors:
            raise ValueError("--items and --vectors go together: mimigenrec embed makes the second from the first")
        return [], np.zeros((0, codebooks.dim), np.float32)
    items = list(read_item_texts(config.items, "{title}"))
    already = [item for item in items if item in old]
    if already:
        raise ValueError(
            f"{config.items}: {len(already)} items are in {config.index} already, {already[0]!r} first; give new "
            f"items alone, existing SIDs do not change"
        )
    model, made_from = read_about(config.vectors).get("model"), codebooks.about.get("model")
    if model and made_from and model != made_from:
        raise ValueError(
            f"{config.vectors} is by {model!r}, the codebooks were made from vectors by {made_from!r}; embed the new "
            f"items as the catalogue was (tfidf: with --fitted)"
        )
    return items, read_vectors(config.vectors, items)


def read_removed(path: str | Path, old: Mapping[str, Sid]) -> set[str]:
    """Ids, one a line. Raises ValueError naming the line of an id that the index does not have."""
    gone = set()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        item = line.strip()
        if item and item not in old:
            raise ValueError(f"{path}, line {number}: item {item!r} is not in the index; one id of it a line")
        gone |= {item} - {""}
    return gone


if __name__ == "__main__":
    main(*parse(AssignConfig))
