"""The Makefile: what its variables reach, and which interpreters it takes."""

import os
import subprocess

import pytest

from tests.conftest import ROOT


def test_the_interpreter_that_makes_the_environment_is_not_the_one_that_scripts_run_with(tmp_path):
    """PYTHON=python3.12 make demo: evaluate.sh reads a variable of the same name, and must take that of .venv."""
    (tmp_path / "show.mk").write_text('show:\n\t@echo "$(PYTHON) $${PYTHON:-unset}"\n')
    command = ["make", "--silent", "-f", ROOT / "Makefile", "-f", tmp_path / "show.mk", "show"]
    env = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}  # of the make that runs the tests
    done = subprocess.run(command, cwd=tmp_path, env={**env, "PYTHON": "other"}, capture_output=True, text=True)
    assert done.stdout.split() == ["other", "unset"], done.stderr


def interpreter(path, version):
    """A program that says it is this Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("python", "venv", "origin", "message"),
    [
        ("3.11", None, "file", None),
        ("3.13", None, "file", "is Python 3.13, and mimigenrec needs 3.11 or 3.12"),
        ("3.10", None, "environment", "is Python 3.10, and mimigenrec needs 3.11 or 3.12"),
        ("3.13", "3.12", "file", None),  # .venv is there, and nobody asked for another
        ("3.12", "3.12", "command line", None),
        ("3.12", "3.11", "environment", "holds Python 3.11, and"),
        ("3.11", "3.13", "file", "holds Python 3.13, and mimigenrec needs 3.11 or 3.12; delete it"),
        (None, None, "environment", "there is no"),
    ],
)
def test_an_environment_of_the_wrong_python_is_refused(tmp_path, python, venv, origin, message):
    if python:
        interpreter(tmp_path / "python", python)
    if venv:
        interpreter(tmp_path / "venv" / "bin" / "python", venv)
    command = ["bash", ROOT / "constraints" / "check_python.sh", tmp_path / "python", tmp_path / "venv", origin]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (1 if message else 0) and (message or "") in done.stderr
