"""The command: a failure takes only its own down, what is done is passed over, a kill changes nothing of the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mimigenrec.benchmark import run
from mimigenrec.benchmark.process import facts_of
from mimigenrec.benchmark.run import (
    BenchmarkConfig,
    check_unchanged,
    costs_of,
    describe,
    folders_by_method,
    lost_of,
    main,
    run_all,
    standings,
    tell_failures,
)
from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.evaluation.result import read_result
from mimigenrec.lock import alone


@pytest.fixture
def go(tmp_path):
    """go(stages) -> (failed, there before)"""

    def start(stages, memory=tmp_path / "stages"):
        facts = facts_of(stages)
        there = standings(stages, facts, memory)
        with alone(tmp_path / ".lock", "another benchmark") as lock:
            return run_all(stages, facts, there, memory, lock), there

    return start


def test_what_needs_a_failed_stage_is_not_run_and_the_rest_is(make_stage, go, tmp_path, capsys):
    chain = [
        make_stage("data", method=None),
        make_stage("sft/1", ("data",), method="sft", seed=1),
        make_stage("grpo/1", ("sft/1",), method="grpo", seed=1),
        make_stage("sft/2", ("data",), method="sft", seed=2, fail=0),
        make_stage("grpo/2", ("sft/2",), method="grpo", seed=2),
        make_stage("eval/2", ("grpo/2",), method="grpo", seed=2),
        make_stage("markov", ("data",), method="markov"),
    ]
    failed, _ = go(chain)
    error = "status 1: ValueError: no luck with sft/2"
    assert failed == {
        "sft/2": error,
        "grpo/2": f"it needs sft/2, {error}",
        "eval/2": f"it needs grpo/2, it needs sft/2, {error}",
    }
    assert not (tmp_path / "out/grpo/2").exists() and (tmp_path / "out/markov/metrics.json").is_file()
    printed = capsys.readouterr().out
    assert "sft/2: failed, status 1" in printed and "grpo/2: not run, it needs sft/2" in printed
    with pytest.raises(UserError) as stopped:
        tell_failures(failed, tmp_path / "stages")
    assert "3 stages failed" in str(stopped.value) and "sft/2/log.txt" in str(stopped.value)
    assert str(stopped.value).count("Traceback") == 1  # the tail of the log of the one that ran
    assert tell_failures({}, tmp_path / "stages") is None

    assert lost_of(chain, failed) == {"sft/2": error, "grpo/2": failed["eval/2"]}  # of each seed the last word
    done = [stage for stage in chain if stage.method and stage.name not in failed]
    assert list(folders_by_method(done)) == ["sft", "grpo", "markov"]


def test_a_method_of_which_nothing_is_left_is_told_as_a_whole(make_stage):
    stages = [make_stage(f"sft/{seed}", method="sft", seed=seed) for seed in (1, 2)]
    stages += [make_stage("markov", method="markov")]
    failed = {"sft/1": "a", "sft/2": "b", "markov": "c"}
    assert lost_of(stages, failed) == {"sft": ["seed 1: a", "seed 2: b"], "markov": "c"}


def test_a_stage_that_refuses_is_told_in_its_own_words_without_a_traceback(make_stage, go, tmp_path):
    failed, _ = go([make_stage("sft/1", method="sft", refuse="no luck\nwith x; take y"), make_stage("rl", bug=True)])
    assert failed["sft/1"] == "status 1: no luck" and failed["rl"] == "status 1: KeyError: 'ours'"
    with pytest.raises(UserError) as stopped:
        tell_failures(failed, tmp_path / "stages")
    told, _, ours = str(stopped.value).partition("\n\nrl: ")
    assert told == (
        "2 stages failed:\n\nsft/1: status 1: no luck\n  with x; take y\n"
        f"  the whole log is {tmp_path}/stages/sft/1/log.txt"
    )
    assert "Traceback" in ours and "is a fault of mimigenrec" in ours


def test_a_second_start_runs_nothing_and_a_plan_says_so(make_stage, go, capsys):
    stages = [make_stage("data"), make_stage("sft/1", ("data",))]
    assert go(stages)[0] == {}
    capsys.readouterr()
    failed, there = go(stages)
    assert failed == {} and capsys.readouterr().out.splitlines() == ["data: done before", "sft/1: done before"]
    assert list(describe(there)) == ["data   done", "sft/1  done"]


def test_changed_settings_are_refused_with_what_changed_or_run_anew(make_stage, go, tmp_path):
    go([make_stage("data"), make_stage("sft/1", ("data",), word="old")])
    stages = [make_stage("data"), make_stage("sft/1", ("data",), word="new"), make_stage("rl/1", ("sft/1",))]
    there = standings(stages, facts_of(stages), tmp_path / "stages")
    with pytest.raises(ValueError, match="sft/1: word was old, is new\nChange them back"):
        check_unchanged(there, tmp_path / "out")
    go(stages)
    assert "old" not in (tmp_path / "out/sft/1/lines.txt").read_text()
    assert (tmp_path / "stages/data/log.txt").read_text().count("== ") == 1
    check_unchanged(go(stages)[1], tmp_path / "out")


def test_costs_are_sums_over_seeds_and_stages_and_the_largest_peak(make_stage, tmp_path):
    stages = [make_stage(f"sft/{seed}", method="sft", seed=seed) for seed in (1, 2)] + [make_stage("data")]
    for stage, seconds, peak in zip(stages, (1.5, 2.0, 9.0), (3.0, 1.0, 9.0), strict=True):
        (tmp_path / stage.name).mkdir(parents=True)
        cost = {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_memory_gb": peak, "starts": 1, "measured": 1}
        (tmp_path / stage.name / "cost.json").write_text(json.dumps(cost))
    assert costs_of(stages, tmp_path) == {"sft": {"seconds": 3.5, "cpu_seconds": 7.0, "peak_memory_gb": 3.0}}
    (tmp_path / "sft/2/cost.json").write_text(json.dumps(cost | {"starts": 2}))
    assert costs_of(stages, tmp_path) == {}  # one start was not seen to its end: the sum would be too small


def test_a_stage_that_outlives_a_killed_benchmark_keeps_the_next_one_out(tmp_path):
    path = tmp_path / "out" / ".lock"
    with alone(path, "another", inherited=True) as lock:
        stage = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(lock,))
        with pytest.raises(UserError, match="another is at work in"), alone(path, "another"):
            pass
    try:
        with pytest.raises(UserError, match="another is at work in"), alone(path, "another"):
            pass
    finally:
        stage.kill()
        stage.wait()
    with alone(path, "another"):
        pass


def test_every_method_is_measured_and_a_seed_that_fails_is_shown(toy_config, tmp_path, capsys, monkeypatch):
    """In earnest, without a model: SASRec's second seed finds its folder's place taken by a dangling link."""
    out = tmp_path / "out"
    config = toy_config(baselines={name: toy_config().baselines[name] for name in ("first", "sasrec")})
    (out / "results/test/sasrec").mkdir(parents=True)
    (out / "results/test/sasrec/2").symlink_to(tmp_path / "nowhere")
    reason = f"status 1: {out}/results/test/sasrec/2: a file of that name is there already"
    with pytest.raises(UserError, match=f"1 stage failed:\n\nbaseline/test/sasrec/2: {reason}") as stopped:
        main(config)
    assert "Traceback" not in str(stopped.value) and "the whole log is" in str(stopped.value)
    first, second = (read_result(out / "results/test" / name).rows for name in ("first", "sasrec/1"))
    keys = ("row", "user", "history", "target")
    assert [[row[key] for key in keys] for row in first] == [[row[key] for key in keys] for row in second]
    assert len(first) == 8
    told = json.loads((out / "report/test/report.json").read_text())
    methods = {method["name"]: method for method in told["methods"]}
    assert list(methods) == ["first", "sasrec"]
    assert methods["sasrec"]["failed"][0].startswith(f"seed 2: {reason}")
    assert methods["first"]["cost"]["cpu_seconds"] > 0.5 and methods["sasrec"]["training_seconds"] is not None
    assert "sasrec" in (out / "report/test/report.html").read_text()

    capsys.readouterr()
    monkeypatch.setattr(run, "check_options", lambda stages: None)  # they are the same
    config.plan = True
    main(config)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["done", "done", "done", "failed"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--seeds", "1", "-2"], "--seeds is -2; it must be at least 0"),
        (["--seeds", "one"], "one"),
        (["--sft", "{lr: 1}"], "sft: '{lr: 1}' is no JSON map"),
        (["--changed", "maybe"], "maybe"),
        (["--basselines", "{}"], "did you mean --baselines?"),
    ],
)
def test_a_slip_in_the_benchmarks_own_settings_is_refused(changes, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(BenchmarkConfig, argv=["--raw", "d", "--category", "c", "--output_dir", "o", *changes])
    assert stopped.value.code == 2 and named in capsys.readouterr().err


def test_a_slip_costs_no_stage(toy_config, tmp_path):
    with pytest.raises(ValueError, match="nothing was run:\nbaselines: sasrec: unknown key 'epoch'"):
        main(toy_config(baselines={"popularity": None, "sasrec": {"epoch": 3}}))
    assert not (tmp_path / "out").exists()


def command(config, tmp_path, name, **changes):
    """The command line of a benchmark, its YAML written."""
    fields = {key: value for key, value in vars(config).items() if value is not None} | changes
    fields = {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    return [sys.executable, "-m", "mimigenrec.cli", "benchmark", "--config", str(tmp_path / f"{name}.yaml")]


SFT = {
    "finetuning_type": "full", "cutoff_len": 256, "per_device_train_batch_size": 8, "learning_rate": 1e-2,
    "max_steps": 8, "logging_steps": 1, "save_steps": 2, "eval_strategy": "steps", "eval_steps": 4,
}  # fmt: skip
GRPO = {
    "rewards": ["ranking_reward.rule_reward"], "num_generations": 4, "per_device_train_batch_size": 8, "max_steps": 4,
    "logging_steps": 1, "save_steps": 1, "learning_rate": 1e-3, "use_cpu": True,
}  # fmt: skip


@pytest.mark.slow
def test_killed_in_sft_and_in_grpo_it_ends_as_the_uninterrupted_one(toy_config, tmp_path):
    config = toy_config(seeds=[1], base={"hidden": 32, "vocabulary": 300}, sft=SFT, grpo=GRPO)
    whole = subprocess.run(command(config, tmp_path, "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-3000:]
    again = command(config, tmp_path, "killed", output_dir=tmp_path / "killed")
    for place in ("sft/1/checkpoint-2", "grpo/1/checkpoint-2"):
        process = subprocess.Popen(again, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 200
        while not (tmp_path / "killed" / place / "trainer_state.json").is_file() and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it ended before {place} was seen"
    end = subprocess.run(again, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr[-3000:]
    for path in sorted((tmp_path / "out/results").rglob("final_result.json")):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "out")
        assert path.read_bytes() == other.read_bytes(), path
    assert len(list((tmp_path / "out/results").rglob("final_result.json"))) == 5
    cost = json.loads((tmp_path / "killed/stages/sft/1/cost.json").read_text())
    assert cost["starts"] == 2 and cost["measured"] == 1
