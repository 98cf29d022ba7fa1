"""The Makefile: what its variables reach."""

import os
import subprocess

from tests.conftest import ROOT


def test_the_interpreter_that_makes_the_environment_is_not_the_one_that_scripts_run_with(tmp_path):
    """PYTHON=python3.12 make demo: evaluate.sh reads a variable of the same name, and must take that of .venv."""
    (tmp_path / "show.mk").write_text('show:\n\t@echo "$(PYTHON) $${PYTHON:-unset}"\n')
    command = ["make", "--silent", "-f", ROOT / "Makefile", "-f", tmp_path / "show.mk", "show"]
    env = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}  # of the make that runs the tests
    done = subprocess.run(command, cwd=tmp_path, env={**env, "PYTHON": "other"}, capture_output=True, text=True)
    assert done.stdout.split() == ["other", "unset"], done.stderr
