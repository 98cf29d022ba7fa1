import itertools

import numpy as np
import pytest

from mimigenrec.sids.collisions import count_in_sid, near_sids, reassign, resolve, same_text
from mimigenrec.sids.quantiser import Codebooks, assign

LEVELS = [np.array([[0.0], [100.0]], np.float32), np.array([[-2.0], [0.0], [5.0]], np.float32)]
BOOKS = Codebooks("rqkmeans", LEVELS)


def test_leave_leaves():
    codes = np.array([[0, 1], [0, 1]])
    np.testing.assert_array_equal(resolve("leave", codes, BOOKS, np.zeros((2, 1), np.float32)), codes)


def test_the_later_item_goes_to_its_next_nearest_free_sid():
    vectors = np.array([[0.1], [-0.3], [0.2], [4.0]], np.float32)  # the last has 5 = (0, 2) for itself
    codes = assign(BOOKS, vectors)
    assert codes.tolist() == [[0, 1], [0, 1], [0, 1], [0, 2]]
    # item 1 goes to -2 = (0, 0); nothing is free near item 2 below code 0, so it goes to 98 = (1, 0)
    assert reassign(codes, BOOKS, vectors).tolist() == [[0, 1], [0, 0], [1, 0], [0, 2]]


def test_reassigned_items_are_all_told_apart_and_first_ones_keep_their_sid():
    rng = np.random.default_rng(0)
    books = Codebooks("rqkmeans", [rng.normal(size=(5, 3)).astype(np.float32) for _ in range(3)])
    vectors = np.repeat(rng.normal(size=(30, 3)), 4, axis=0).astype(np.float32)  # 120 items, 125 SIDs
    codes = assign(books, vectors)
    new = reassign(codes, books, vectors)
    assert len(np.unique(new, axis=0)) == 120
    first = count_in_sid(codes) == 0
    np.testing.assert_array_equal(new[first], codes[first])
    np.testing.assert_array_equal(new, reassign(codes, books, vectors))


def test_more_items_than_sids_cannot_be_told_apart():
    with pytest.raises(ValueError, match="7 items cannot have SIDs of their own with sizes"):
        reassign(np.zeros((7, 2), int), BOOKS, np.zeros((7, 1), np.float32))


def test_near_sids_are_all_sids_once_siblings_first_each_by_distance():
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(size, 3)).astype(np.float32) for size in (6, 5, 4)]
    vector = rng.normal(size=3).astype(np.float32)
    own = tuple(assign(Codebooks("rqkmeans", levels), vector[None])[0].tolist())
    found = list(near_sids(vector, levels, own))

    def distance(sid):
        return ((vector - sum(level[code] for level, code in zip(levels, sid, strict=True))) ** 2).sum()

    assert found[0] == own and sorted(found) == sorted(itertools.product(range(6), range(5), range(4)))
    siblings = found[:4]
    assert siblings == sorted(((*own[:2], code) for code in range(4)), key=distance)


def test_one_level_is_enough_for_near_sids():
    assert list(near_sids(np.array([4.0], np.float32), LEVELS[1:], (2,))) == [(2,), (1,), (0,)]


def test_the_extra_level_counts_the_items_of_each_sid_and_all_items_get_it():
    codes = np.array([[0, 1], [1, 1], [0, 1], [0, 1], [1, 1]])
    extra = resolve("extra", codes, BOOKS, np.zeros((5, 1), np.float32))
    assert extra.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 2], [1, 1, 1]]


def test_items_of_one_text_share_a_sid_on_purpose_and_the_rest_is_told_apart():
    owner = same_text(["lamp", "pump", "lamp", "", ""])
    assert owner.tolist() == [0, 1, 0, 3, 4]  # no text is no reason to merge
    codes = np.array([[0, 1], [0, 1], [1, 2], [0, 1], [0, 1]])
    extra = resolve("extra", codes, BOOKS, np.zeros((5, 1), np.float32), owner)
    assert extra.tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 2], [0, 1, 3]]
    new = resolve("reassign", codes, BOOKS, np.zeros((5, 1), np.float32), owner)
    assert new[0].tolist() == new[2].tolist() and len(np.unique(new, axis=0)) == 4
