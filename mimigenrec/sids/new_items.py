"""SIDs for new items from frozen codebooks, beside SIDs that stay as they are.

A new item takes the nearest SID, as `assign` gives it, or with "reassign" the nearest one that no item has. In an
index with an extra level (collisions: extra) it takes the next number of its SID, or where the numbers are used up
goes on to the next nearest SID.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.sids.collisions import Code, near_sids
from mimigenrec.sids.quantiser import Codebooks, assign, encode
from mimigenrec.sids.tokens import LEVEL_LETTERS, Sid, codes_to_sids, sid_to_codes


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
    raises  UserError if depth is neither the codebooks' number of levels nor one more, a kept SID is not made of
            their codes, or no SID is free
    """
    levels = len(codebooks.levels)
    if depth not in (levels, levels + 1):
        raise UserError(f"the index has SIDs of {depth} tokens and these codebooks give {levels}; take its own")
    taken = {sid_to_codes(sid) for sid in kept.values()}
    for code in taken:
        if len(code) != depth or any(c >= size for c, size in zip(code, codebooks.sizes, strict=False)):
            raise UserError(f"the SID {code} of the index is not made of codebooks {codebooks.sizes}; take its own")
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
            unused = any(len(own) < size for own, size in zip(codes_at, codebooks.sizes, strict=False))
            room = "--new_tokens or --collisions leave" if unused or depth > levels else "--collisions leave"
            raise UserError(
                f"no SID is free for new item {items[row]!r}: {len(taken)} are taken; {room} would make room"
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
        match = re.fullmatch(rf"<([{LEVEL_LETTERS[:depth]}])_(\d+)>", token)
        if match and int(match[2]) < sizes[LEVEL_LETTERS.index(match[1])]:
            codes[LEVEL_LETTERS.index(match[1])].add(int(match[2]))
    return [np.array(sorted(numbers)) for numbers in codes]
