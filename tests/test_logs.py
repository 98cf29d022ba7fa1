import subprocess
import sys

import pytest

from mimigenrec.errors import UserError
from mimigenrec.logs import JsonlWriter, cut_back, read_jsonl


def test_events_are_readable_while_the_run_goes_on(tmp_path):
    with JsonlWriter(tmp_path / "log" / "x.jsonl") as log:
        log.write({"step": 1, "text": "é"})
        assert read_jsonl(tmp_path / "log" / "x.jsonl") == [{"step": 1, "text": "é"}]


def test_a_second_run_goes_on_where_a_kill_cut_the_last_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]
    with JsonlWriter(path) as log:
        log.write({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_file_that_is_one_cut_line_starts_anew(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"st')
    with JsonlWriter(tmp_path / "x.jsonl") as log:
        log.write({"step": 1})
    assert read_jsonl(tmp_path / "x.jsonl") == [{"step": 1}]


def test_a_whole_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"step": 1}\nbroken\n{"step": 2}\n')
    with pytest.raises(ValueError, match="x.jsonl, line 2: not JSON"):
        read_jsonl(tmp_path / "x.jsonl")


def test_no_space_left_stops_the_run_and_the_next_one_goes_on(tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from mimigenrec.logs import JsonlWriter\n"
        "with JsonlWriter(sys.argv[1]) as log:\n"
        "    for i in range(1000): log.write({'step': i})"
    )
    path = tmp_path / "log.jsonl"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "File too large" in run.stderr
    assert path.stat().st_size == 1000 and not path.read_bytes().endswith(b"\n")  # the last line is cut
    whole = read_jsonl(path)
    with JsonlWriter(path) as log:
        log.write({"step": "next"})
    assert read_jsonl(path) == [*whole, {"step": "next"}] and whole == [{"step": i} for i in range(len(whole))]


def test_a_log_is_cut_back_to_the_step_that_training_goes_on_from(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "text": "é"}\n{"step": 2}\n{"step": 2, "train_runtime": 9}\n{"step": 3}\n{"st')
    cut_back(path, "step", 2, summary="train_runtime")
    assert path.read_text() == '{"step": 1, "text": "é"}\n{"step": 2}\n'
    cut_back(path, "step", -1)
    assert path.read_bytes() == b""


def test_a_damaged_log_is_no_obstacle_to_a_new_training(tmp_path):
    path = tmp_path / "log.jsonl"
    for content in ("not JSON\n", '{"epoch": 1}\n'):
        path.write_text(content)
        cut_back(path, "step", -1)
        assert path.read_bytes() == b""


def test_a_log_without_the_counter_is_named_and_stays_as_it_is(tmp_path):
    path = tmp_path / "log.jsonl"
    for line in ("[1, 2]", '{"step": 3}', '{"epoch": "three"}'):
        path.write_text(line + "\n")
        with pytest.raises(UserError, match="log.jsonl: .* tells of no epoch; delete the file"):
            cut_back(path, "epoch", 5)
        assert path.read_text() == line + "\n"
