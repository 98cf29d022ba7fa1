"""evaluate.sh: its variables, under our names and the document's. tests/test_commands.py runs it with a model."""

import os
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.fixture
def evaluate(tmp_path):
    """evaluate({"MODEL": "m"}, "--limit", "3") -> the process; its output is the words after the module's name."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nwhile [ "$1" != mimigenrec.evaluation.run ]; do shift; done; shift; echo "$@"\n')
    program.chmod(0o755)

    def run(variables, *arguments):
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(program), **variables}
        command = ["bash", str(ROOT / "evaluate.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({"MODEL": "s/m", "DATA": "d"}, "--model s/m --output results/m --data d"),
        ({"MODEL": "m", "DATA": "d", "OUTPUT": "o"}, "--model m --output o --data d"),
        ({"exp_name": "s/m", "test_data_path": "t"}, "--model s/m --output results/m --test_file t"),
        (
            {"exp_name": "m", "test_data_path": "t", "output_dir": "o", "index_path": "i"},
            "--model m --output o --test_file t --index i",
        ),
        ({"exp_name": "m", "DATA": "d", "OUTPUT": "o"}, "--model m --output o --data d"),
        ({"exp_name": "m", "MODEL": "m", "DATA": "d", "output_dir": "o"}, "--model m --output o --data d"),
    ],
)
def test_either_name_of_a_setting_reaches_the_command(evaluate, variables, flags):
    done = evaluate({**variables, "BEAMS": "7"}, "--limit", "3")
    assert done.stdout.strip() == f"{flags} --beams 7 --k 7 --limit 3", done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "set MODEL or exp_name"),
        ({"MODEL": "m"}, "set DATA to a folder of preprocess_data_sft_rl.py, or test_data_path"),
        ({"MODEL": "m", "exp_name": "n", "DATA": "d"}, "MODEL=m and exp_name=n are two names of one setting"),
        ({"MODEL": "m", "DATA": "d", "OUTPUT": "o", "output_dir": "p"}, "OUTPUT=o and output_dir=p are two names"),
        ({"MODEL": "m", "DATA": "d", "test_data_path": "t"}, "DATA=d and test_data_path=t both name test rows"),
        ({"MODEL": "m", "DATA": "d", "index_path": "i"}, "index_path=i belongs to test_data_path, which is not set"),
    ],
)
def test_settings_that_contradict_each_other_or_are_missing_stop_it(evaluate, variables, message):
    done = evaluate(variables)
    assert done.returncode == 2 and message in done.stderr and not done.stdout


def test_a_name_may_be_edited_within_the_script(evaluate, tmp_path):
    script = (ROOT / "evaluate.sh").read_text()
    lines = {"exp_name": "saves/m", "test_data_path": "t.json", "output_dir": "out"}
    for name, value in lines.items():
        assert script.count(f"\n{name}=${{{name}:-}}\n") == 1  # the line that people replace
        script = script.replace(f"\n{name}=${{{name}:-}}\n", f'\n{name}="{value}"\n')
    (tmp_path / "evaluate.sh").write_text(script)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
    done = subprocess.run(["bash", tmp_path / "evaluate.sh"], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("--model saves/m --output out --test_file t.json"), done.stderr
