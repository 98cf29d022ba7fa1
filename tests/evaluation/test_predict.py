"""Several processes under torchrun: one result, none without all."""

import os
import subprocess
import sys

import pytest

from mimigenrec.evaluation.predict import begin, merge
from mimigenrec.evaluation.result import read_result
from mimigenrec.evaluation.run import EvaluateConfig, main
from mimigenrec.logs import JsonlWriter
from tests.conftest import ROOT

DIES = """
import os
from mimigenrec.evaluation import predict, run

whole = predict.search_sids
calls = []


def search(*args, **options):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        os._exit(9)
    return whole(*args, **options)


predict.search_sids = search
run.main(*run.parse(run.EvaluateConfig))
"""


def test_a_dead_process_fails_the_run_and_two_started_again_end_as_one(checkpoint, toy_data, tmp_path):
    output, alone = tmp_path / "two", tmp_path / "one"
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
    main(EvaluateConfig(model=checkpoint, data=toy_data, output=alone, k=5, beams=7, batch_size=1))
    assert read_result(output).rows == read_result(alone).rows
    assert read_result(output).metrics["processes"] == 2
    assert "8/8" in done.stderr or "4/4" in done.stderr  # the bar counts rows


def lines(folder, name, places):
    with JsonlWriter(folder / name) as out:
        for place in places:
            out.write({"place": place, "ranked": []})


def test_merging_puts_the_files_of_all_processes_in_order(tmp_path):
    lines(tmp_path, "predictions.rank0.jsonl", [2, 0])
    lines(tmp_path, "predictions.rank1.jsonl", [1, 3])
    assert len(merge(tmp_path, 4)) == 4


def test_a_missing_row_and_a_row_told_twice_fail_the_merge(tmp_path):
    lines(tmp_path, "predictions.rank0.jsonl", [0, 2])
    with pytest.raises(RuntimeError, match="2 of 4 rows, row 1 is missing"):
        merge(tmp_path, 4)
    lines(tmp_path, "predictions.rank1.jsonl", [1, 2, 3])
    with pytest.raises(RuntimeError, match="row 2 is predicted twice"):
        merge(tmp_path, 4)


def test_predictions_that_nobody_signed_are_not_taken_over(tmp_path):
    lines(tmp_path, "predictions.jsonl", [0])
    with pytest.raises(ValueError, match="no run.json"):
        begin(tmp_path, {"k": 5})


def test_the_same_settings_may_begin_again_and_others_not(tmp_path):
    begin(tmp_path, {"k": 5, "beams": 7})
    begin(tmp_path, {"k": 5, "beams": 7})
    with pytest.raises(ValueError, match="beams: 7 then, 8 now"):
        begin(tmp_path, {"k": 5, "beams": 8})
