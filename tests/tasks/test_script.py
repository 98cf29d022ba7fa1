"""preprocess_data_sft_rl.sh: its variables become flags. tests/test_commands.py runs it with the real command."""

import os
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.fixture
def flags(tmp_path):
    """flags({"SEED": "1"}, "--wording", "classic") -> the words after preprocess_data_sft_rl.py."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def run(variables, *arguments):
        command = ["bash", str(ROOT / "preprocess_data_sft_rl.sh"), *arguments]
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(program), **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        script, *words = done.stdout.splitlines()
        assert script == str(ROOT / "preprocess_data_sft_rl.py")
        return words

    return run


def test_bare_it_reads_and_writes_where_the_document_does(flags):
    name = "Industrial_and_Scientific"
    assert flags({}) == ["--raw", "data/Amazon18", "--category", name, "--output_dir", f"data/{name}"]


def test_the_five_variables_and_further_keys_reach_the_command(flags):
    variables = {"DATA_DIR": "my raw", "CATEGORY": "C", "OUTPUT_DIR": "o", "TASK4_SAMPLE": "-1", "SEED": "7"}
    expected = ["--raw", "my raw", "--category", "C", "--output_dir", "o", "--seq_sample=-1", "--seed=7"]
    assert flags(variables, "--wording", "classic") == [*expected, "--wording", "classic"]


def test_the_output_follows_the_category(flags):
    assert flags({"CATEGORY": "Office_Products"})[-1] == "data/Office_Products"
