"""Intervals and p-values where the answer is known from theory, from scipy or from trying everything."""

import math

import numpy as np
import pytest
import scipy.stats

from mimigenrec.evaluation.stats import (
    bootstrap,
    holm,
    over_seeds,
    paired_bootstrap,
    permutation_test,
    rows_over_seeds,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_an_interval_of_hits_agrees_with_the_normal_approximation():
    hits = np.repeat([1.0, 0.0], [300, 700])
    interval = bootstrap({"hr": hits}, rng(), resamples=4000)["hr"]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval.mean == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - half, abs=0.003)
    assert interval.high == pytest.approx(0.3 + half, abs=0.003)


def test_rows_that_are_all_the_same_have_an_interval_of_no_width():
    assert bootstrap({"hr": np.full(20, 0.5)}, rng())["hr"] == pytest.approx((0.5, 0.5, 0.5))


def test_one_seed_gives_one_interval():
    values = {"hr": np.linspace(0, 1, 50)}
    assert bootstrap(values, rng(7)) == bootstrap(values, rng(7))
    assert bootstrap(values, rng(7)) != bootstrap(values, rng(8))


def test_the_chunks_of_a_large_set_give_the_same_intervals(monkeypatch):
    values = {"hr": np.linspace(0, 1, 50)}
    whole = bootstrap(values, rng(), resamples=1000)
    monkeypatch.setattr("mimigenrec.evaluation.stats.CHUNK", 500)
    assert bootstrap(values, rng(), resamples=1000)["hr"] == pytest.approx(whole["hr"])


def test_no_row_is_refused():
    with pytest.raises(ValueError, match="empty"):
        bootstrap({"hr": np.zeros(0)}, rng())


def test_a_method_against_itself_differs_by_nothing():
    values = {"hr": np.linspace(0, 1, 40)}
    difference = paired_bootstrap(values, values, rng())["hr"]
    assert difference == (0.0, 0.0, 0.0, 1.0)


def test_a_gain_on_every_row_is_certain_though_the_rows_vary_widely():
    a = rng().random(200)
    difference = paired_bootstrap({"hr": a}, {"hr": a + 0.01 + rng(1).random(200) / 1000}, rng(), resamples=1000)["hr"]
    assert difference.mean > 0.01 and difference.low > 0.01
    assert difference.p == pytest.approx(1 / 1001)


def test_p_is_uniform_when_there_is_no_difference():
    p = []
    for trial in range(200):
        noise = rng(100 + trial).normal(size=60)
        p.append(paired_bootstrap({"hr": np.zeros(60)}, {"hr": noise}, rng(trial), resamples=300)["hr"].p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.11
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_p_agrees_with_the_normal_approximation():
    noise = rng(5).normal(size=400) + 0.1
    difference = paired_bootstrap({"hr": np.zeros(400)}, {"hr": noise}, rng(), resamples=20000)["hr"]
    z = noise.mean() / (noise.std() / 20)
    from math import erfc, sqrt

    assert difference.p == pytest.approx(erfc(abs(z) / sqrt(2)), abs=0.01)


def test_an_interval_agrees_with_scipy():
    values = rng(2).random(80) ** 3
    interval = bootstrap({"ndcg": values}, rng(), resamples=20000)["ndcg"]
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=rng(1))
    assert interval[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


def test_swaps_agree_with_trying_all_of_them_as_scipy_does():
    for trial in range(5):
        a, b = rng(trial).random(9), rng(trial).random(9) + rng(50 + trial).normal(0.1, 0.2, size=9)
        exact = scipy.stats.permutation_test((a, b), lambda x, y: np.mean(y - x), permutation_type="samples").pvalue
        assert permutation_test({"hr": a}, {"hr": b}, rng(), resamples=20000)["hr"] == pytest.approx(exact, abs=0.012)


def test_four_equal_gains_come_up_in_two_of_sixteen_swaps():
    found = permutation_test({"hr": np.zeros(4)}, {"hr": np.ones(4)}, rng(), resamples=50000)
    assert found["hr"] == pytest.approx(2 / 16, abs=0.005)


def test_means_that_differ_by_rounding_alone_are_as_far():
    gains = np.array([0.1, -0.8, -0.4, -0.1])  # as far as 1.2: 0.8 and 0.4 alike, and not both 0.1 against them
    found = permutation_test({"hr": np.zeros(4)}, {"hr": gains}, rng(), resamples=50000)
    assert found["hr"] == pytest.approx(1 / 2 * 3 / 4, abs=0.01)


def test_swaps_of_a_method_with_itself_are_all_as_extreme():
    values = {"hr": np.linspace(0, 1, 40)}
    assert permutation_test(values, values, rng()) == {"hr": 1.0}


def test_swaps_leave_p_uniform_when_there_is_no_difference():
    p = []
    for trial in range(200):
        noise = rng(300 + trial).exponential(size=40) - rng(900 + trial).exponential(size=40)
        p.append(permutation_test({"hr": np.zeros(40)}, {"hr": noise}, rng(trial), resamples=300)["hr"])
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_a_certain_gain_has_the_smallest_p_that_so_many_swaps_can_give_and_the_sign_does_not_matter():
    low, high = {"hr": np.zeros(60)}, {"hr": np.ones(60)}
    assert permutation_test(low, high, rng(), resamples=99) == permutation_test(high, low, rng(), resamples=99)
    assert permutation_test(low, high, rng(), resamples=99)["hr"] == 1 / 100


def test_metrics_are_paired_by_name_and_swapped_together():
    a = {"hr": np.zeros(30), "mrr": np.zeros(30)}
    gains = rng(4).normal(0.2, 1, size=30)
    found = permutation_test(a, {"mrr": 2 * gains, "hr": gains}, rng())
    assert list(found) == ["hr", "mrr"] and found["hr"] == found["mrr"]
    assert list(paired_bootstrap(a, {"mrr": 2 * gains, "hr": gains}, rng())) == ["hr", "mrr"]


def test_the_chunks_of_a_large_set_are_swapped_alike(monkeypatch):
    a, b = {"hr": np.zeros(50)}, {"hr": rng(1).normal(0.1, 1, size=50)}
    whole = permutation_test(a, b, rng(), resamples=1000)
    monkeypatch.setattr("mimigenrec.evaluation.stats.CHUNK", 500)
    assert permutation_test(a, b, rng(), resamples=1000) == whole


@pytest.mark.parametrize("test", [permutation_test, paired_bootstrap])
def test_pairs_that_are_none_are_refused(test):
    with pytest.raises(ValueError, match="only one of them has mrr@10"):
        test({"hr": np.zeros(3)}, {"hr": np.zeros(3), "mrr@10": np.zeros(3)}, rng())
    with pytest.raises(ValueError, match=r"hr has \[1, 3\] rows"):
        test({"hr": np.zeros(1)}, {"hr": np.zeros(3)}, rng())
    with pytest.raises(ValueError, match="empty"):
        test({"hr": np.zeros(0)}, {"hr": np.zeros(0)}, rng())
    with pytest.raises(ValueError, match="resamples=0"):
        test({"hr": np.zeros(3)}, {"hr": np.zeros(3)}, rng(), resamples=0)


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})  # 3 *, 1 * below c's, 2 *, 4 *
    assert list(adjusted) == ["a", "b", "c", "d"]


def test_holm_of_one_is_itself_of_ties_is_alike_of_none_is_none_and_never_above_1():
    assert holm({"a": 0.04}) == {"a": 0.04}
    assert holm({"a": 0.02, "b": 0.02}) == {"a": 0.04, "b": 0.04}
    assert holm({}) == {}
    assert holm({"a": 0.9, "b": 0.7, "c": 1.0}) == {"a": 1.0, "b": 1.0, "c": 1.0}


def rejected_step_by_step(p, alpha):
    """Holm's own procedure: from the smallest on, until one is above alpha / (tests not yet rejected)."""
    left = dict(p)
    while left:
        key = min(left, key=left.get)
        if left[key] > alpha / len(left):
            break
        del left[key]
    return p.keys() - left.keys()


def test_holm_rejects_what_going_step_by_step_rejects():
    for trial in range(100):
        p = dict(enumerate((rng(trial).random(1 + trial % 7) ** 3).tolist()))
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.1, 0.3):
            assert {key for key, value in adjusted.items() if value <= alpha} == rejected_step_by_step(p, alpha)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match="sasrec"):
        holm({"markov": 0.5, "sasrec": wrong})


def test_three_seeds_by_hand():
    spread = over_seeds([{"hr": 0.1}, {"hr": 0.3}, {"hr": 0.2}])["hr"]
    assert spread == pytest.approx((0.2, 0.1, 0.1, 0.3, 3))  # sd: sqrt((0.01 + 0.01 + 0) / 2)


def test_one_seed_has_no_spread():
    assert over_seeds([{"hr": 0.1, "mrr": 1}]) == {"hr": (0.1, None, 0.1, 0.1, 1), "mrr": (1.0, None, 1.0, 1.0, 1)}


def test_no_seed_other_metrics_and_what_was_not_measured_are_refused():
    for function in (over_seeds, rows_over_seeds):
        with pytest.raises(ValueError, match="at least one seed"):
            function([])
        with pytest.raises(ValueError, match="run 1 and run 0 .* only one of them has hr@50"):
            function([{"hr@10": [0.1], "hr@50": [0.2]}, {"hr@10": [0.1]}])
    for missing in (None, math.nan):
        with pytest.raises(ValueError, match="diversity is .* leave out"):
            over_seeds([{"diversity": 0.5}, {"diversity": missing}])


def test_rows_of_several_seeds_are_averaged_row_by_row():
    runs = [{"hr": np.array([1.0, 0.0, 0.0])}, {"hr": np.array([1.0, 1.0, 0.0])}]
    assert rows_over_seeds(runs)["hr"].tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match=r"hr has \[3, 2\] rows"):
        rows_over_seeds([runs[0], {"hr": np.zeros(2)}])
