"""Table, tests, slices and levels of a report: by hand, and against the functions that they are made of."""

from pathlib import Path

import numpy as np
import pytest

from mimigenrec.evaluation.stats import holm, paired_bootstrap, permutation_test
from mimigenrec.report.figures import (
    best_baseline,
    beyond_figures,
    in_order,
    level_figures,
    outcome,
    pair_tests,
    seed_cautions,
    slice_figures,
    table,
)
from mimigenrec.report.methods import Method, Run


def method(name, *seeds, wrong=(), reached=(), beyond=()):
    """Per seed its values of hr@1, row by row; further facts per seed where given."""
    runs = [
        Run(
            Path(name) / str(i),
            {"hr@1": np.array(values, dtype=float)},
            np.array(wrong[i] if wrong else [0]),
            reached[i] if reached else {},
            beyond[i] if beyond else {},
            {},
            {},
            {},
        )
        for i, values in enumerate(seeds)
    ]
    columns = {"hr@1": np.mean([run.columns["hr@1"] for run in runs], axis=0)} if runs else {}
    return Method(name, runs, [], columns)


A, B = method("a", [1, 0, 0, 0] * 10), method("b", [1, 1, 1, 0] * 10, [1, 1, 0, 0] * 10)
FAILED = method("failed")


def test_every_model_meets_every_baseline_and_its_start_and_all_tests_are_one_family():
    methods = [A, method("c", [0, 1, 0, 0] * 10), B, method("d", [1, 1, 1, 1] * 10), FAILED]
    found = pair_tests(methods, ["b", "d", "failed"], {"d": "b", "failed": "b"}, ["hr@1"], 500, seed=3)
    pairs = [(pair["model"], pair["against"], pair["kind"]) for pair in found]
    assert pairs == [
        ("b", "a", "baseline"),
        ("b", "c", "baseline"),
        ("d", "a", "baseline"),
        ("d", "c", "baseline"),
        ("d", "b", "start"),
    ]
    first = found[0]["metrics"]["hr@1"]
    d = paired_bootstrap(A.columns, B.columns, np.random.default_rng(3))["hr@1"]
    assert (first["mean"], first["low"], first["high"]) == (d.mean, d.low, d.high)
    assert first["p_bootstrap"] == d.p != first["p"]
    assert first["mean"] == pytest.approx(0.375)  # rows' mean over both seeds: (1 + 1 + 1/2 + 0) / 4 - 1 / 4
    assert first["p"] == permutation_test(A.columns, B.columns, np.random.default_rng(3), 500)["hr@1"]
    p = [pair["metrics"]["hr@1"]["p"] for pair in found]
    assert [pair["metrics"]["hr@1"]["holm"] for pair in found] == list(holm(dict(enumerate(p))).values())


def test_the_pairs_of_one_metric_are_a_family_and_other_metrics_are_not():
    def with_two(of, other):
        return of._replace(columns=of.columns | {"hr@2": np.array(other * 10, dtype=float)})

    methods = [with_two(A, [0, 0, 0, 0]), with_two(method("c", [0, 1, 0, 0] * 10), [0, 0, 0, 0])]
    methods.append(with_two(method("m", [1, 1, 0, 0] * 10), [1, 1, 1, 1]))
    found = pair_tests(methods, ["m"], {}, ["hr@1", "hr@2"], 200, seed=0)
    smallest = 1 / 201
    for pair in found:
        assert pair["metrics"]["hr@2"]["p"] == smallest
        assert pair["metrics"]["hr@2"]["holm"] == pytest.approx(2 * smallest)  # two pairs, not four tests


def test_models_stand_first_then_baselines_by_strength_then_what_failed():
    methods = [FAILED, method("weak", [0]), method("m2", [0]), method("strong", [1]), method("m1", [0])]
    assert [m.name for m in in_order(methods, ["m1", "m2"], "hr@1")] == ["m1", "m2", "strong", "weak", "failed"]


def seeded(of, seeds, failed=()):
    runs = [run._replace(manifest={"seed": seed}) for run, seed in zip(of.runs, seeds, strict=True)]
    return of._replace(runs=runs, failed=list(failed))


SFT = method("sft", [1, 0, 0, 0] * 10, [1, 1, 0, 0] * 10, [0, 0, 0, 0] * 10)
RL = method("rl", [1, 1, 1, 1] * 10, [1, 1, 0, 0] * 10)  # of SFT's seeds 3 and 1


@pytest.mark.parametrize(
    ("ours", "theirs", "failed", "seeds", "mean"),
    [
        ([3, 1], [1, 2, 3], ["seed 2: killed"], [3, 1], 0.75 - 0.125),
        ([3, 1], [1, 2, 3], [], None, 0.75 - 0.25),  # nothing failed: the user chose what stands here
        ([9, 1], [1, 2, 3], ["seed 2: killed"], [1], 0.5 - 0.25),
        ([8, 9], [1, 2, 3], ["seed 2: killed"], [], 0.75 - 0.25),  # no seed in common
        ([42, 42], [1, 2, 3], ["seed 2: killed"], [], 0.75 - 0.25),
        ([3, None], [1, 2, 3], ["seed 2: killed"], [], 0.75 - 0.25),
    ],
)
def test_rl_and_its_start_are_compared_by_the_seeds_that_both_have(ours, theirs, failed, seeds, mean):
    methods = [A, seeded(SFT, theirs), seeded(RL, ours, failed)]
    baseline, start = pair_tests(methods, ["rl"], {"rl": "sft"}, ["hr@1"], 100, seed=0)[::2]
    assert start["kind"] == "start" and start["seeds"] == seeds
    assert start["metrics"]["hr@1"]["mean"] == pytest.approx(mean)
    assert baseline["kind"] == "baseline" and baseline["seeds"] is None
    assert baseline["metrics"]["hr@1"]["mean"] == pytest.approx(0.75 - 0.25)  # all seeds
    assert len(seed_cautions([baseline, start])) == (seeds == [])


def test_a_seed_lost_by_both_or_by_the_start_alone():
    two = method("two", [1, 0, 0, 0] * 10, [1, 1, 0, 0] * 10)
    both = [seeded(two, [1, 3], ["seed 2: killed"]), seeded(RL, [3, 1], ["seed 2: it needs sft/2"])]
    [start] = pair_tests(both, ["rl", "two"], {"rl": "two"}, ["hr@1"], 100, seed=0)
    assert start["seeds"] is None
    lost = [seeded(two, [1, 3], ["seed 2: killed"]), seeded(method("rl", *[[1] * 40] * 3), [1, 2, 3])]
    [start] = pair_tests(lost, ["rl", "two"], {"rl": "two"}, ["hr@1"], 100, seed=0)
    assert start["seeds"] == [1, 3]


def test_no_model_no_test():
    assert pair_tests([A, B], [], {}, ["hr@1"], 10, seed=0) == []


def test_equal_means_are_both_best_and_only_models_are_marked():
    methods = [A, method("c", [0, 1, 0, 0] * 10), B]
    tests = pair_tests(methods, ["b"], {}, ["hr@1"], 2000, seed=0)
    found = table(methods, ["b"], tests, seed=0)
    assert found["b"]["hr@1"]["best"] and found["b"]["hr@1"]["mark"] == "better"
    assert found["a"]["hr@1"]["mark"] == "" and found["a"]["hr@1"]["sd"] is None
    assert found["b"]["hr@1"]["seeds"] == [0.75, 0.5] and found["b"]["hr@1"]["sd"] == pytest.approx(0.125 * 2**0.5)
    assert best_baseline(found, ["b"], "hr@1") == "a"  # the first of equals
    without = table(methods[:2], [], [], seed=0)
    assert [without[name]["hr@1"]["best"] for name in "ac"] == [True, True]
    assert best_baseline(without, ["a", "c"], "hr@1") is None


@pytest.mark.parametrize(
    ("mean", "p", "expected"),
    [(0.1, 0.049, "better"), (-0.1, 0.049, "worse"), (0.1, 0.05, "unclear"), (0.0, 1.0, "unclear")],
)
def test_better_and_worse_need_an_adjusted_p_below_a_twentieth(mean, p, expected):
    assert outcome({"mean": mean, "holm": p}) == expected


def test_slices_are_means_over_their_rows_and_over_seeds_and_empty_ones_stay():
    rows = [{"target": t, "history": ["9"]} for t in "1122" * 10]
    found = slice_figures([A, B, FAILED], rows, {"1": 5}, ["hr@1"], seed=0)
    by = {(of["family"], of["slice"]): of for of in found}
    warm, cold = by["target in train", "warm"], by["target in train", "cold"]
    assert warm["n"] == cold["n"] == 20 and list(warm["methods"]) == ["a", "b"]
    assert warm["methods"]["a"]["hr@1"]["mean"] == 0.5 and cold["methods"]["a"]["hr@1"]["mean"] == 0
    assert cold["methods"]["b"]["hr@1"]["mean"] == 0.25  # half of the rows, by one seed of two
    assert by["target in history", "yes"] == {
        "family": "target in history",
        "slice": "yes",
        "n": 0,
        "methods": {},
    }


def test_levels_are_shares_of_all_rows_of_all_seeds():
    model = method("m", [0], [0], wrong=[[0, 1, 3, -1], [0, 1, 1, 1]], reached=[{1: 0.5, 2: 0.25}, {1: 1.0, 2: 0.75}])
    assert level_figures([model, FAILED]) == {
        "m": {
            "wrong": {"1": 0.5, "2": 0.0, "3": 0.125},
            "right": 0.25,
            "none": 0.125,
            "reached": {"1": 0.75, "2": 0.5},
        }
    }


def test_beyond_accuracy_is_a_mean_over_seeds_and_unknown_where_one_does_not_tell():
    seeds = [{"gini": 0.5, "diversity": None}, {"gini": 0.7, "diversity": 0.2}]
    assert beyond_figures([method("m", [0], [0], beyond=seeds)]) == {
        "m": {"gini": pytest.approx(0.6), "diversity": None}
    }
