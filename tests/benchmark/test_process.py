"""A stage is run once, remembered with all it depends on, and gone on with after a kill."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from mimigenrec.benchmark.process import cost_of, facts_of, log_tail, reason_of, remembered, run
from mimigenrec.errors import UserError
from mimigenrec.stages import standing


def go(stage, memory, fresh=False):
    return run(stage, facts_of([stage])[stage.name], memory, fresh)


def standing_of(stage, memory):
    facts = facts_of([stage])[stage.name]
    return standing(stage, facts, remembered(stage, facts, memory))


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "stages"


def test_a_stage_is_to_do_then_done_with_its_log_config_and_cost(make_stage, memory):
    stage = make_stage("sft/1")
    assert standing_of(stage, memory).word == "to do"
    assert go(stage, memory) == 0
    assert standing_of(stage, memory).word == "done"
    assert log_tail(memory / "sft/1/log.txt", 2) == ["wrote line 2", "wrote line 3"]
    cost = cost_of(stage, memory)
    assert cost["starts"] == cost["measured"] == 1
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux lets a child begin with its parent's peak
    assert 0 < cost["cpu_seconds"] and 0 < cost["seconds"] < 30 and 0.001 < cost["peak_memory_gb"] < 1 + own
    by_hand = subprocess.run([sys.executable, "-m", "fake_command", str(memory / "sft/1/config.yaml")])
    assert by_hand.returncode == 0


def test_a_result_that_was_deleted_is_made_again(make_stage, memory):
    stage = make_stage("sft/1")
    go(stage, memory)
    (stage.folder / "metrics.json").unlink()
    assert standing_of(stage, memory).word == "to do"


def test_a_failed_stage_tells_why_and_goes_on_where_it_stopped(make_stage, memory):
    stage = make_stage("sft/1", fail=1)
    code, log = go(stage, memory), memory / "sft/1/log.txt"
    assert code == 1 and standing_of(stage, memory).word == "failed"
    assert reason_of(code, log) == "status 1: ValueError: no luck with sft/1"
    assert go(stage, memory) == 0  # it holds 2 of 4 lines and goes on behind the one that fails
    assert (stage.folder / "lines.txt").read_text() == "0 sft/1\n1 sft/1\n2 sft/1\n3 sft/1\n"
    assert cost_of(stage, memory)["starts"] == cost_of(stage, memory)["measured"] == 2
    assert log.read_text().count("== ") == 2


def test_a_progress_bar_behind_the_error_does_not_hide_it(tmp_path):
    (tmp_path / "log.txt").write_text("a\nTypeError: facts\n  0%|    | 0/2\n\n")
    assert reason_of(1, tmp_path / "log.txt") == "status 1: TypeError: facts"
    (tmp_path / "log.txt").write_text("working\n")
    assert reason_of(-9, tmp_path / "log.txt") == "ended by signal 9, out of memory?: working"


def test_ending_well_without_a_result_is_a_failure(make_stage, memory):
    stage = make_stage("sft/1", leave=False)
    assert go(stage, memory) == 1
    assert "metrics.json is missing" in log_tail(memory / "sft/1/log.txt", 1)[0]


def test_other_options_files_or_stages_before_are_named(make_stage, memory, tmp_path):
    file = tmp_path / "c" / "train.inter"
    file.parent.mkdir()
    file.write_text("1")
    first, second = make_stage("data", reads=(file,)), make_stage("sft", after=("data",), width=8)
    before = facts_of([first, second])
    for stage in (first, second):
        run(stage, before[stage.name], memory, fresh=False)
    file.write_text("2")
    second.options["width"] = 16
    now = facts_of([first, second])
    then = {stage.name: remembered(stage, now[stage.name], memory) for stage in (first, second)}
    assert standing(first, now["data"], then["data"]) == ("changed", ["c/train.inter has changed or is new"])
    assert standing(second, now["sft"], then["sft"]) == ("changed", ["width was 8, is 16", "it comes after data"])


def test_the_order_of_options_and_the_place_of_files_do_not_matter(make_stage, memory, tmp_path):
    places = [tmp_path / part / "c" / "train.inter" for part in ("x", "y")]
    for path in places:
        path.parent.mkdir(parents=True)
        path.write_text("1")
    there = make_stage("data", reads=(places[0],), a=1, b=2)
    go(there, memory)
    moved = there._replace(options=dict(reversed(there.options.items())), reads=(places[1],))
    assert standing_of(moved, memory).word == "done"


def test_a_fresh_run_leaves_nothing_of_the_old_one(make_stage, memory):
    go(make_stage("sft/1", word="old"), memory)
    stage = make_stage("sft/1", word="new")
    assert standing_of(stage, memory).word == "changed"
    assert go(stage, memory, fresh=True) == 0
    assert "old" not in (stage.folder / "lines.txt").read_text()
    assert cost_of(stage, memory)["starts"] == 1


def test_files_that_nothing_tells_of_are_refused(make_stage, memory):
    stage = make_stage("sft/1")
    stage.folder.mkdir(parents=True)
    (stage.folder / "model.safetensors").write_text("")
    with pytest.raises(UserError, match=r"sft/1 holds files, but .*stage.json.* is missing; move them away"):
        standing_of(stage, memory)


@pytest.mark.parametrize("content", ["[]", "{}", '{"state": 3}', "\x00"])
@pytest.mark.parametrize("file", ["stage.json", "cost.json"])
def test_what_is_remembered_and_damaged_is_named(file, content, make_stage, memory):
    stage = make_stage("sft/1", fail=1)
    go(stage, memory)
    (memory / "sft/1" / file).write_text(content)
    with pytest.raises(UserError, match=f"sft/1/{file}.* comes from mimigenrec benchmark"):
        standing_of(stage, memory)
        cost_of(stage, memory)


def test_ending_the_benchmark_ends_its_stage_and_counts_its_time(make_stage, memory):
    stage = make_stage("sft/1", sleep=1)

    def alarm(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            go(stage, memory)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started < 20  # not the 60 s that the stage would have slept
    assert standing_of(stage, memory).word == "begun"
    assert cost_of(stage, memory)["seconds"] >= 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((stage.folder / "pid").read_text()), 0)
    assert go(stage, memory) == 0
    assert len((stage.folder / "lines.txt").read_text().splitlines()) == 4


def test_a_second_interrupt_kills_a_stage_that_does_not_end_and_is_told_as_such(make_stage, memory):
    stage, left = make_stage("sft/1", sleep=1, deaf=True), [1, 2]

    def alarm(*_):
        if (stage.folder / "lines.txt").is_file() and left:  # it sleeps, deaf to SIGTERM
            raise KeyboardInterrupt(left.pop(0))

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt, match="2"):
            go(stage, memory)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((stage.folder / "pid").read_text()), 0)
    assert standing_of(stage, memory).word == "begun" and cost_of(stage, memory)["measured"] == 1


def test_what_is_remembered_is_plain_json(make_stage, memory):
    stage = make_stage("sft/1")
    go(stage, memory)
    told = json.loads((memory / "sft/1/stage.json").read_text())
    assert told == {
        "module": "fake_command",
        "options": stage.options,
        "inputs": {},
        "after": {},
        "state": "done",
        "exit": 0,
    }
