"""What results depended on: differences become cautions, times are read where they are told, RL finds its start."""

import json
from pathlib import Path

import pytest

from mimigenrec.report.about import cautions, describe, method_facts, starts, training_seconds
from mimigenrec.report.methods import Method, Run


def run(folder="f", config=None, inputs=None, versions=None, seed=1, **metrics):
    manifest = {"config": config or {}, "inputs": inputs or {}, "versions": versions or {"torch": "2"}, "seed": seed}
    return Run(Path(folder), {}, None, {}, {}, {"k": 5, "n_items": 8, "seconds": 2.0, **metrics}, manifest, {})


def method(name, *runs, failed=()):
    return Method(name, list(runs), list(failed), {})


ROWS = [{"user": "u", "target_sid": "<a_0>"}, {"user": "u", "target_sid": ""}, {"user": "v", "target_sid": "<a_0>"}]


def test_facts_by_hand(toy, toy_data):
    inputs = {"/x/toy.train.inter": "1", "/x/rows/test.json": "2", "/y/model.safetensors": "3"}
    about = describe(toy_data, toy, ROWS, [method("a", run(inputs=inputs)), method("b", run(versions={"torch": "3"}))])
    assert (about["rows"], about["users"], about["targets_without_sid"]) == (3, 2, 1)
    assert (about["items"], about["sids"], about["items_sharing"]) == (8, 7, 2)
    assert about["data"] == {"rows/test.json": ["2"], "toy.train.inter": ["1"]}  # weights are no data
    assert about["versions"] == {"torch": ["2", "3"]}
    assert about["settings"] == {"k": 5} and len(about["contract"]["hash"]) == 16
    assert describe(toy_data, toy, [{"user": None, "target_sid": ""}], [])["users"] is None


def test_nothing_to_be_cautious_of(toy, toy_data):
    same = [method(name, run(config={"split": "test"}, inputs={"id2sid.json": "1"})) for name in "ab"]
    assert cautions(describe(toy_data, toy, ROWS, same), same) == []


@pytest.mark.parametrize(
    ("other", "caution"),
    [
        ({"exclude_seen": True}, "exclude_seen is False for a; True for b"),
        ({"config": {"split": "valid"}}, "split is test for a; valid for b"),
        ({"k": 3}, "k is 5 for a; 3 for b"),
        ({"n_items": 7}, "items to rank: 8 for a; 7 for b"),
        ({"inputs": {"/z/rows/test.json": "9"}}, "rows/test.json was not the same file for all"),
        ({"contract": {"data": "abc", "note": None}}, "b was asked by contract abc, the data folder has"),
        ({"contract": {"data": None, "note": "classic wording"}}, "b: classic wording"),
    ],
)
def test_each_difference_is_a_caution(toy, toy_data, other, caution):
    plain = {"config": {"split": "test"}, "inputs": {"/x/rows/test.json": "1"}, "exclude_seen": False}
    methods = [method("a", run(**plain)), method("b", run(**(plain | other)))]
    (found,) = cautions(describe(toy_data, toy, ROWS, methods), methods)
    assert found.startswith(caution)


def test_seconds_are_summed_over_seeds_and_unknown_where_one_does_not_tell(tmp_path):
    for name, file, text in (
        ("sft", "train_results.json", '{"train_runtime": 10.5}'),
        ("rl", "rl_log.jsonl", '{"step": 1, "reward": 0}\n{"step": 2, "train_runtime": 4}\n'),
        ("net", "training.jsonl", '{"epoch": 1, "seconds": 1.5}\n{"epoch": 2, "seconds": 2}\n'),
        ("killed", "rl_log.jsonl", '{"step": 1, "reward": 0}\n'),
        ("empty", "other", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    told = {name: training_seconds(tmp_path / name) for name in ("sft", "rl", "net", "killed", "empty")}
    assert told == {"sft": 10.5, "rl": 4.0, "net": 3.5, "killed": None, "empty": None}
    both = method("m", run(seed=1, device="cpu"), run(seed=2, device="cpu"))
    facts = method_facts(both, ["m"], [tmp_path / "sft", tmp_path / "rl"], {"seconds": 3})
    assert facts == {
        "name": "m",
        "kind": "model",
        "folders": ["f", "f"],
        "seeds": [1, 2],
        "failed": [],
        "device": "cpu",
        "training_seconds": 14.5,
        "ranking_seconds": 4.0,
        "cost": {"seconds": 3},
    }
    assert method_facts(both, [], [tmp_path / "sft", tmp_path / "killed"], None)["training_seconds"] is None


def test_rl_finds_the_model_that_it_started_from(tmp_path):
    for name, start in (("sft", "base"), ("rl", "sft"), ("rl2", "sft-elsewhere"), ("rl3", "nowhere")):
        (tmp_path / name).mkdir()
        log = "trainer_log.jsonl" if name == "sft" else "rl_log.jsonl"
        (tmp_path / name / log).write_text("")
        (tmp_path / name / "manifest.json").write_text(json.dumps({"config": {"model": str(tmp_path / start)}}))
    training = {name: [tmp_path / name] for name in ("sft", "rl", "rl2", "rl3")}
    other = method("other", run(config={"model": str(tmp_path / "sft-elsewhere")}))
    methods = [method(name, run()) for name in training] + [other]
    models = [*training, "other"]
    assert starts(models, training, methods) == {"rl": "sft", "rl2": "other"}
    assert starts(["rl"], training, methods) == {}  # what it started from is not among the models
    assert starts(models, {}, methods) == {}
