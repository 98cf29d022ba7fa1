"""Intervals and p-values where the answer is known from theory."""

import numpy as np
import pytest

from mimigenrec.evaluation.stats import bootstrap, paired_bootstrap


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
