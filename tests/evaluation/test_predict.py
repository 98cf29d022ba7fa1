"""Several processes under torchrun: one result, none without all."""

import os
import subprocess
import sys

import pytest

from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.evaluation.predict import begin, merge
from mimigenrec.evaluation.result import ROW_KEYS, read_result
from mimigenrec.evaluation.run import main
from mimigenrec.logs import JsonlWriter
from tests.conftest import ROOT

DIES = """
import os
from mimigenrec.errors import UserError
from mimigenrec.evaluation import predict, run

whole = predict.search_sids
calls = []


def search(*args, **options):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        if "SAYS" in os.environ:
            raise UserError(os.environ["SAYS"])
        os._exit(9)
    return whole(*args, **options)


predict.search_sids = search
run.start(run.main, run.EvaluateConfig)
"""


def test_a_dead_process_fails_the_run_and_two_started_again_end_as_one(checkpoint, toy_data, tmp_path):
    output, single = tmp_path / "two", tmp_path / "one"
    (tmp_path / "dies.py").write_text(DIES)
    flags = ["--k", "5", "--batch_size", "1", "--output", str(output), "--model", str(checkpoint)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "NPROC": "2", "BEAMS": "7"}
    environment |= {"MODEL": str(checkpoint), "DATA": str(toy_data), "OUTPUT": str(output)}

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    started = [*torchrun, str(tmp_path / "dies.py"), *flags, "--data", str(toy_data), "--beams", "7"]
    dead = subprocess.run(started, env=environment, capture_output=True, timeout=120, text=True)
    assert dead.returncode != 0
    assert not (output / "metrics.json").exists() and not (output / "final_result.json").exists()
    before = len((output / "predictions.rank1.jsonl").read_text().splitlines())
    assert before == 1

    again = ["bash", str(ROOT / "evaluate.sh"), "--k", "5", "--batch_size", "1"]
    done = subprocess.run(again, env=environment, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    main(EvaluateConfig(model=checkpoint, data=toy_data, output=single, k=5, beams=7, batch_size=1))
    assert read_result(output).rows == read_result(single).rows
    assert read_result(output).metrics["processes"] == 2
    assert "8/8" in done.stderr or "4/4" in done.stderr  # the bar counts rows


def errors(done):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error:")]


@pytest.mark.slow
def test_what_all_processes_meet_is_told_once(checkpoint, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "NPROC": "2"}
    environment |= {"MODEL": str(checkpoint), "DATA": str(tmp_path / "nowhere"), "OUTPUT": str(tmp_path / "out")}
    command = ["bash", str(ROOT / "evaluate.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, text=True)
    [error] = errors(done)
    assert "nowhere/id2sid.json is missing" in error


@pytest.mark.slow
def test_what_one_process_alone_meets_is_told_and_ends_them_all(checkpoint, toy_data, tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    launch = [sys.executable, "-m", "mimigenrec.training.launch", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc_per_node", "2", str(tmp_path / "dies.py"), "--model", str(checkpoint)]
    command += ["--data", str(toy_data), "--output", str(tmp_path / "out"), "--k", "5", "--beams", "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAYS": "row 3 is odd"}
    done = subprocess.run(
        [*command, "--batch_size", "1"], env=environment, capture_output=True, timeout=120, text=True
    )
    assert errors(done) == ["error: row 3 is odd"]
    assert not (tmp_path / "out" / "metrics.json").exists()


def lines(folder, name, places):
    with JsonlWriter(folder / name) as out:
        for place in places:
            out.write({"place": place, **dict.fromkeys(ROW_KEYS), "ranked": []})


def test_merging_puts_the_files_of_all_processes_in_order(tmp_path):
    lines(tmp_path, "predictions.rank0.jsonl", [2, 0])
    lines(tmp_path, "predictions.rank1.jsonl", [1, 3])
    assert len(merge(tmp_path, 4)) == 4


def test_a_missing_row_and_a_row_with_two_lists_fail_the_merge(tmp_path):
    lines(tmp_path, "predictions.rank0.jsonl", [0, 2])
    with pytest.raises(ValueError, match="2 of 4 rows, row 1 is missing"):
        merge(tmp_path, 4)
    lines(tmp_path, "predictions.rank1.jsonl", [1, 2, 3])
    assert len(merge(tmp_path, 4)) == 4  # row 2 came twice, with one list
    with JsonlWriter(tmp_path / "predictions.rank1.jsonl") as out:
        out.write({"place": 2, **dict.fromkeys(ROW_KEYS), "ranked": [{}]})
    with pytest.raises(ValueError, match="row 2 of predictions is there twice"):
        merge(tmp_path, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [("[1]", "it has no place, user"), ('{"place": 0}', "it has no user, row"), ("{", "not JSON")],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, line, message):
    (tmp_path / "predictions.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"predictions.jsonl, line 1: .*{message}"):
        merge(tmp_path, 1)


def test_predictions_that_nobody_signed_are_not_taken_over(tmp_path):
    lines(tmp_path, "predictions.jsonl", [0])
    with pytest.raises(ValueError, match="no run.json"):
        begin(tmp_path, {"config": {"k": 5}, "inputs": {}})


@pytest.mark.parametrize("content", ["[]", '{"k": 5}', '{"config": [], "inputs": {}}'])
def test_a_run_json_of_another_form_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="run.json"):
        begin(tmp_path, {"config": {"k": 5}, "inputs": {}})
    begin(tmp_path, {"config": {"k": 5}, "inputs": {}}, overwrite=True)


def test_the_same_settings_may_begin_again_and_others_not(tmp_path):
    def run(**config):
        return {"config": config, "inputs": {"data/x/id2sid.json": "1"}}

    begin(tmp_path / "out", run(k=5, beams=7))
    begin(tmp_path / "out", run(k=5, beams=7))
    with pytest.raises(ValueError, match="beams: 7 then, 8 now"):
        begin(tmp_path / "out", run(k=5, beams=8))
