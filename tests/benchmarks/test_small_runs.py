"""The other benchmarks run at their smallest size and say what they promise."""

import re
import runpy
import sys

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture
def run(monkeypatch, capsys):
    def run(script: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *options])
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("options", [("--support", "vocab"), ("--support", "trie"), ("--silent",)], ids=" ".join)
def test_a_grpo_step_has_the_same_rollouts_loss_and_gradients(run, options):
    printed = run("grpo_step.py", "--size", "micro", "--prompts", "4", "--group", "4", "--repeats", "1", *options)
    assert "same rollouts: True" in printed
    [losses] = re.findall(r"loss (\S+) and (\S+);", printed)
    assert float(losses[0]) == pytest.approx(float(losses[1]), abs=1e-6)
    assert float(re.findall(r"differ by at most (\S+)", printed)[0]) < 1e-4


def test_growth_is_told_for_each_setting(run):
    few = ["--lengths", "8", "--beams", "2", "4", "--levels", "2", "--items", "50", "--repeats", "1"]
    printed = run("growth.py", "--size", "micro", *few)
    assert len(re.findall(r"\| \d+\.\d\d \|", printed)) == 5


def test_the_script_for_gpus_compares_with_the_cpu_and_ends_where_there_is_none(run):
    few = ["--size", "micro", "--prompts", "2", "--group", "4", "--repeats", "1"]
    assert run("rooms_gpu.py", *few, "--device", "cpu").splitlines()[-2].split(" | ")[4:6] == ["2 of 2", "1.000"]
    if not torch.cuda.is_available():
        assert run("rooms_gpu.py", *few) == "skipped: there is no CUDA device here\n"
