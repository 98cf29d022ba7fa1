"""The benchmark's own process only plans and waits: what is heavy loads in its stages."""

import json
import subprocess
import sys

import pytest

PLAN = """
import sys
from mimigenrec.benchmark import run
from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.cli import parse
run.check_options = lambda stages: None  # it asks the commands themselves, in a process of its own
run.main(*parse(BenchmarkConfig, argv=[sys.argv[1], "--plan"]))
"""
HELP = """
import sys
from mimigenrec import cli
sys.argv = ["mimigenrec", "benchmark", "--help"]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code
"""
LOOK = "\nprint('heavy:', *sorted(sys.modules.keys() & {'torch', 'transformers', 'sklearn', 'matplotlib'}))"


@pytest.mark.parametrize("code", [PLAN, HELP], ids=["plan", "help"])
def test_neither_a_plan_nor_the_help_loads_torch(code, raw_toy, tmp_path):
    options = {
        "raw": str(raw_toy),
        "category": "toy",
        "output_dir": str(tmp_path / "out"),
        "baselines": {"popularity": None, "sasrec": {"epochs": 2}},
        "base": {"hidden": 32},
        "sft": {"finetuning_type": "full"},
        "grpo": {"rewards": ["ranking_reward.rule_reward"]},
    }
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(options))
    done = subprocess.run([sys.executable, "-c", code + LOOK, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "heavy:" and len(lines) > 5
