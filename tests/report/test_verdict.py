"""The verdict says what the numbers say, and no more."""

import pytest

from mimigenrec.report.verdict import difference, p_text, verdict


def value(mean, mark="", seeds=(0.1,)):
    return {"ndcg@10": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "mark": mark, "seeds": list(seeds)}}


def numbers(mean, p, low=None):
    return {"mean": mean, "low": mean - 0.01 if low is None else low, "high": mean + 0.01, "p": p, "holm": p}


def pair(model, against, kind="baseline", seeds=None, **metrics):
    return {"model": model, "against": against, "kind": kind, "seeds": seeds, "metrics": metrics}


def report(table, tests=(), models=("rl",), failed=(), cautions=()):
    methods = [{"name": name, "folders": ["f"], "failed": []} for name in table]
    return {
        "tested": ["ndcg@10", "hr@10", "hr@50"],
        "table": table,
        "tests": list(tests),
        "models": list(models),
        "methods": [*methods, *failed],
        "cautions": list(cautions),
    }


def of(mean, p, low=None):
    return {"ndcg@10": numbers(mean, p, low)}


TABLE = {"markov": value(0.08), "rl": value(0.1, "better", (0.09, 0.11))}


def test_a_model_that_beats_every_baseline():
    found = verdict(report(TABLE, [pair("rl", "markov", **of(0.02, 0.01))]))
    assert found[0] == {
        "state": "good",
        "text": "rl has the highest NDCG@10 of 2 methods: 0.1000 [0.0900, 0.1100]. The best baseline is markov with "
        "0.0800.",
        "points": [],
    }
    assert (found[1]["state"], found[1]["text"]) == ("good", "rl beats 1 of 1 baselines in NDCG@10.")
    assert found[1]["points"] == ["better than markov: +0.0200 [+0.0100, +0.0300], adjusted p = 0.010"]
    assert found[2]["text"] == "Seeds per method: 2: rl; 1: markov." and found[2]["state"] == ""
    assert found[2]["points"] == ["rl: NDCG@10 of the seeds 0.0900, 0.1100"]
    assert len(found) == 3


def test_rl_after_a_failed_seed_tells_of_which_seeds_it_speaks():
    metrics = {"ndcg@10": numbers(0.02, 0.01), "hr@50": numbers(0.02, 0.01)}
    started = pair("rl", "sft", kind="start", seeds=[1, 3], **metrics)
    points = [v["points"] for v in verdict(report(TABLE | {"sft": value(0.08)}, [started], ("rl", "sft")))]
    assert ["NDCG@10 +0.0200 [+0.0100, +0.0300], adjusted p = 0.010", "of the seeds that both have: 1, 3"] in [
        of[:1] + of[-1:] for of in points
    ]


@pytest.mark.parametrize(
    ("mean", "p", "state", "ending", "point"),
    [
        (0.02, 0.2, "watch", "beats 0 of 1 baselines in NDCG@10.", "not clearly different from markov"),
        (-0.02, 0.01, "bad", "beats 0 of 1 baselines in NDCG@10, and is worse than 1.", "worse than markov"),
    ],
)
def test_a_difference_that_is_not_shown_is_not_claimed(mean, p, state, ending, point):
    statement = verdict(report(TABLE, [pair("rl", "markov", **of(mean, p))]))[1]
    assert statement["state"] == state and statement["text"].endswith(ending)
    assert statement["points"][0].startswith(point)


def test_the_strongest_baseline_is_named_first():
    tests = [pair("rl", name, **of(mean, 0.01)) for name, mean in (("weak", 0.05), ("strong", 0.01), ("middle", 0.03))]
    points = verdict(report(TABLE, tests))[1]["points"]
    assert [point.split(":")[0].split()[-1] for point in points] == ["strong", "middle", "weak"]


def test_a_baseline_on_top_is_said_without_praise():
    found = verdict(
        report({"markov": value(0.2), "rl": value(0.1, "worse")}, [pair("rl", "markov", **of(-0.1, 0.01))])
    )
    assert found[0]["state"] == "" and found[0]["text"].startswith("markov has the highest NDCG@10")
    assert found[0]["text"].endswith("Next is rl with 0.1000.")


@pytest.mark.parametrize(
    ("gain", "loss", "state", "text"),
    [
        ((0.02, 0.01), (-0.003, 0.6), "good", "RL from sft to rl raised NDCG@10 and kept HR@50."),
        ((0.02, 0.01), (-0.03, 0.01), "bad", "RL from sft to rl raised NDCG@10 and lowered HR@50."),
        ((-0.02, 0.01), (0.0, 1.0), "bad", "RL from sft to rl lowered NDCG@10 and kept HR@50."),
        ((0.001, 0.9), (0.02, 0.01), "watch", "RL from sft to rl did not clearly change NDCG@10 and kept HR@50."),
    ],
)
def test_what_rl_did(gain, loss, state, text):
    start = pair("rl", "sft", "start", **{"ndcg@10": numbers(*gain), "hr@10": numbers(0, 1), "hr@50": numbers(*loss)})
    found = next(v for v in verdict(report(TABLE, [start])) if v["text"].startswith("RL"))
    assert (found["state"], found["text"]) == (state, text)


def test_kept_is_told_with_the_loss_that_is_not_ruled_out():
    start = pair("rl", "sft", "start", **{"ndcg@10": numbers(0.02, 0.01), "hr@50": numbers(-0.003, 0.6, low=-0.0125)})
    found = next(v for v in verdict(report(TABLE, [start])) if v["text"].startswith("RL"))
    assert found["points"][1].endswith("kept means no loss shown, one of 0.0125 is not ruled out")


def test_failures_single_seeds_and_cautions_are_never_left_out():
    failed = [
        {"name": "tiger", "folders": [], "failed": ["out of memory"]},
        {"name": "gru", "folders": ["f"], "failed": ["seed 2: killed"]},
    ]
    table = {"markov": value(0.08), "rl": value(0.1)}
    found = verdict(report(table, failed=failed, cautions=["exclude_seen is True; False"]))
    texts = {v["text"]: v for v in found}
    lost = texts["Failed: tiger. Incomplete, numbers are of the remaining seeds alone: gru."]
    assert lost["state"] == "bad" and lost["points"] == ["tiger: out of memory", "gru: seed 2: killed"]
    assert any("With one seed nothing is known of how rl would come out" in text for text in texts)
    assert found[-1]["state"] == "watch" and found[-1]["points"] == ["exclude_seen is True; False"]
    assert any(text == "rl is compared with no baseline: there is none here." for text in texts)


def test_numbers_as_text():
    assert difference(numbers(0.02, 0.0004)) == "+0.0200 [+0.0100, +0.0300], adjusted p < 0.001"
    assert p_text(0.001) == "= 0.001" and p_text(0.0009) == "< 0.001" and p_text(1.0) == "= 1.000"
