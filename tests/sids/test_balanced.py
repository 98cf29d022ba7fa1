import numpy as np
from scipy.optimize import linear_sum_assignment

from mimigenrec.sids.balanced import balanced_codes


def test_every_code_gets_its_share_whatever_the_numbers():
    rng = np.random.default_rng(0)
    for items, size in ((10, 10), (11, 10), (19, 10), (400, 7), (5, 1)):
        cost = (rng.exponential(size=(items, size)) * np.arange(1, size + 1)).astype(np.float32)
        counts = np.bincount(balanced_codes(cost)[0], minlength=size)
        assert counts.sum() == items and counts.min() >= items // size and counts.max() <= -(-items // size)


def test_the_total_cost_is_close_to_the_least_possible():
    rng = np.random.default_rng(0)
    vectors, centres = rng.normal(size=(600, 8)), rng.normal(size=(12, 8)) * 0.7
    cost = ((vectors[:, None] - centres) ** 2).sum(-1).astype(np.float32)
    rows, seats = linear_sum_assignment(np.repeat(cost, 50, axis=1))
    best = np.repeat(cost, 50, axis=1)[rows, seats].sum()
    ours = cost[np.arange(600), balanced_codes(cost)[0]].sum()
    assert best <= ours * (1 + 1e-5) and ours < 1.01 * best


def test_items_that_are_all_alike_are_still_shared_out():
    codes, _ = balanced_codes(np.ones((12, 4), np.float32))
    assert np.bincount(codes).tolist() == [3, 3, 3, 3]


def test_prices_of_a_similar_cost_give_the_same_quality():
    cost = np.random.default_rng(1).random((500, 10)).astype(np.float32)
    cold, prices = balanced_codes(cost)
    warm, _ = balanced_codes(cost, prices)
    rows = np.arange(500)
    assert cost[rows, warm].sum() <= 1.001 * cost[rows, cold].sum()
