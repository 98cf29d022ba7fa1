"""Whatever the codes, codebooks and merged items: who shares a SID, and who is moved where."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimigenrec.errors import UserError
from mimigenrec.sids.collisions import resolve, same_text
from mimigenrec.sids.quantiser import Codebooks

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True, database=None)


@st.composite
def cases(draw):
    """(codes, codebooks, vectors, owner): whole numbers on a line, so that distances are exact and ties common."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    levels = [np.array(draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n)), np.float32)[:, None] for n in sizes]
    items = draw(st.integers(1, min(14, math.prod(sizes) + 2)))
    codes = [[draw(st.integers(0, size - 1)) for size in sizes] for _ in range(items)]
    vectors = draw(st.lists(st.integers(-8, 8), min_size=items, max_size=items))
    texts = draw(st.lists(st.sampled_from(["", "", "", "lamp", "pump"]), min_size=items, max_size=items))
    owner = draw(st.sampled_from([None, same_text(texts)]))
    return np.array(codes, np.int32), Codebooks("rqkmeans", levels), np.array(vectors, np.float32)[:, None], owner


def owners(codes, owner):
    """Rows that are told apart, the owner of each row."""
    owner = list(range(len(codes))) if owner is None else owner.tolist()
    return sorted(set(owner)), owner


@SETTINGS
@given(cases())
def test_reassign_gives_every_item_a_sid_of_its_own_and_moves_later_items_alone(case):
    codes, books, vectors, owner = case
    kept, owner_of = owners(codes, owner)
    if len(kept) > math.prod(books.sizes):
        with pytest.raises(UserError, match=f"{len(kept)} items cannot have SIDs of their own"):
            resolve("reassign", *case)
        return
    new = [tuple(code) for code in resolve("reassign", *case).tolist()]
    old = [tuple(code) for code in codes.tolist()]
    assert [new[row] for row in owner_of] == new  # merged items share
    assert len({new[row] for row in kept}) == len(kept)  # the others do not
    assert all(0 <= code < size for sid in new for code, size in zip(sid, books.sizes, strict=True))
    taken, first = {old[row] for row in kept}, {}
    for row in kept:
        if first.setdefault(old[row], row) == row:
            assert new[row] == old[row]
            continue
        prefix = old[row][:-1]
        at = vectors[row, 0] - sum(level[code, 0] for level, code in zip(books.levels, prefix, strict=False))
        free = [code for code in range(books.sizes[-1]) if (*prefix, code) not in taken]
        if free:  # the nearest free sibling, of two at one distance the first
            assert new[row] == (*prefix, min(free, key=lambda code: abs(at - books.levels[-1][code, 0])))
        assert new[row] not in taken
        taken.add(new[row])


@SETTINGS
@given(cases())
def test_the_extra_level_counts_the_items_of_a_sid_in_their_order(case):
    codes, _, _, owner = case
    kept, owner_of = owners(codes, owner)
    new = resolve("extra", *case).tolist()
    old = codes.tolist()
    for row, sid in enumerate(new):
        place = owner_of[row]
        earlier = [other for other in kept if other < place and old[other] == old[place]]
        assert sid == [*old[place], len(earlier)]
    assert len({tuple(new[row]) for row in kept}) == len(kept)


@SETTINGS
@given(cases())
def test_leave_moves_nothing_but_merged_items(case):
    codes, _, _, owner = case
    assert resolve("leave", *case).tolist() == codes[owners(codes, owner)[1]].tolist()
