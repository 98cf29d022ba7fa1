"""Logs of trainings -> curves: every kind of log by hand, panels, smoothing and thinning, logs that tell nothing."""

import json

import pytest

from mimigenrec.evaluation.curves import find_log, panels, read_log, smoothed, thinned
from tests.evaluation.conftest import RL, SFT, jsonl


def test_a_llamafactory_log_by_hand(tmp_path):
    curves = read_log(jsonl(tmp_path / "trainer_log.jsonl", SFT))
    assert curves["loss"] == [(1, 2.0), (2, 1.0)] and curves["eval_hr@10"] == [(2, 0.2)]
    assert "elapsed_time" not in curves
    assert {title: list(drawn) for title, drawn in panels(curves).items()} == {
        "loss": ["loss", "eval_loss"],
        "validation": ["eval_hr@10", "eval_ndcg@10"],
    }


def test_an_rl_log_and_a_trainer_state_tell_the_same(tmp_path):
    log = read_log(jsonl(tmp_path / "rl_log.jsonl", RL))
    state = tmp_path / "trainer_state.json"
    state.write_text(json.dumps({"log_history": RL}))
    assert read_log(state) == log
    assert list(panels(log)["reward"]) == ["reward", "rewards/rule_reward/mean"]


def test_a_network_among_the_baselines_counts_epochs(tmp_path):
    epochs = [{"epoch": e, "loss": 1.0 / e, "ndcg@10": 0.01 * e, "seconds": 1.0} for e in (1, 2)]
    curves = read_log(jsonl(tmp_path / "training.jsonl", epochs))
    assert {title: list(drawn) for title, drawn in panels(curves).items()} == {
        "loss": ["loss"],
        "validation": ["ndcg@10"],
    }
    assert curves["ndcg@10"] == [(1, 0.01), (2, 0.02)]


def test_the_log_of_a_folder_is_found_and_the_latest_stage_wins(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no log of a training.*rl_log.jsonl"):
        find_log(tmp_path)
    assert find_log(jsonl(tmp_path / "trainer_log.jsonl", SFT).parent).name == "trainer_log.jsonl"
    jsonl(tmp_path / "rl_log.jsonl", RL)
    assert find_log(tmp_path).name == "rl_log.jsonl"


def test_the_final_mean_of_a_run_is_not_drawn_beside_its_curve():
    assert list(panels({"loss": [(1, 1.0)], "train_loss": [(2, 1.0)]})["loss"]) == ["loss"]


def test_smoothing_keeps_a_straight_line_straight():
    line = [0.5 * i for i in range(100)]
    assert smoothed(line) == pytest.approx(line)


def test_thinning_by_hand():
    curve = [(1, 2.0), (2, 4.0), (3, 6.0), (4, 0.0), (5, 3.0)]
    assert thinned(curve, 2) == [(1.5, 3.0), (4.0, 3.0)]
    assert thinned(curve, 5) == curve and thinned(curve[:1], 5) == curve[:1]


def test_logs_that_tell_nothing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl is missing"):
        read_log(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="logged nothing yet"):
        read_log(jsonl(tmp_path / "empty.jsonl", []))
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match="broken.jsonl, line 1: not JSON"):
        read_log(tmp_path / "broken.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rl_log.jsonl", '{"step": 1, "loss": 1.0}\n[1]\n', "line 2: must be a map"),
        ("trainer_state.json", "[]", "must hold a map"),
        ("trainer_state.json", '{"log_history": [5]}', r"log_history\[0\] must be a map"),
        ("trainer_state.json", '{"log_history": null}', "log_history must be a list of maps"),
        ("rl_log.jsonl", '{"step": "one", "loss": 1.0}\n', "no line with a step and a number"),
    ],
)
def test_a_log_of_another_form_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_log(tmp_path / name)
