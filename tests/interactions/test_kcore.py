import random
from collections import Counter

import numpy as np
import pytest

from mimigenrec.interactions.kcore import k_core


def naive(pairs, user_k, item_k):
    """Drops one offending interaction at a time."""
    left = list(enumerate(pairs))
    while True:
        users = Counter(user for _, (user, _) in left)
        items = Counter(item for _, (_, item) in left)
        wrong = [entry for entry in left if users[entry[1][0]] < user_k or items[entry[1][1]] < item_k]
        if not wrong:
            return {place for place, _ in left}
        left.remove(wrong[0])


@pytest.mark.parametrize("seed", range(20))
def test_what_stays_is_what_dropping_one_by_one_leaves(seed):
    rng = random.Random(seed)
    pairs = [(rng.randrange(12), int(rng.paretovariate(0.8)) % 15) for _ in range(120)]
    user_k, item_k = rng.randrange(6), rng.randrange(6)
    users, items = np.array(pairs).T
    stays, rounds = k_core(users, items, user_k, item_k)
    assert set(np.flatnonzero(stays)) == naive(pairs, user_k, item_k)
    assert rounds >= 1


def test_user_k_and_item_k_are_two_numbers():
    users, items = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 0])
    assert k_core(users, items, 2, 1)[0].tolist() == [True, True, False, False]
    assert k_core(users, items, 1, 2)[0].tolist() == [True, False, True, True]


def test_a_chain_falls_to_the_last():
    """Each item is held up by the user before it, so one round is not enough."""
    n = 50
    users = np.repeat(np.arange(n), 2)
    items = np.stack([np.arange(n), np.arange(n) + 1], axis=1).ravel()
    stays, rounds = k_core(users, items, 2, 2)
    assert not stays.any() and rounds > 10


def test_nothing_in_nothing_out():
    assert k_core(np.array([], dtype=int), np.array([], dtype=int), 5, 5)[0].tolist() == []
