"""trl_trainer.sh and the accelerate configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def said(tmp_path):
    """said(gpus, variables, *arguments) -> the command that trl_trainer.sh starts on a machine with so many GPUs."""

    def ask(gpus, variables, *arguments):
        fake = tmp_path / "python"
        fake.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo {gpus}; else echo "$@"; fi\n')
        fake.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(fake), **variables}
        command = ["bash", str(ROOT / "trl_trainer.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    return ask


def test_the_variables_reach_the_command(said):
    names = {"MODEL_PATH": "m", "DATA_DIR": "d", "INDEX_PATH": "i", "OUTPUT_DIR": "o", "NUM_BEAMS": "8", "CONFIG": "c"}
    words = said(1, names, "--beta", "0")
    expected = "-m mimigenrec.grpo.train c --model m --data d --index i --output_dir o --num_generations 8 --beta 0"
    assert words[-len(expected.split()) :] == expected.split()
    assert words[:3] == ["-m", "mimigenrec.training.launch", "accelerate.commands.launch"]


def test_several_processes_without_a_gpu_go_through_torchrun(said):
    words = said(0, {"MODEL_PATH": "m", "NUM_PROCESSES": "2"})
    assert words[:5] == ["-m", "mimigenrec.training.launch", "torch.distributed.run", "--nproc_per_node", "2"]
    assert "accelerate.commands.launch" in said(2, {"MODEL_PATH": "m", "NUM_PROCESSES": "2"})
    assert "--cpu" in said(0, {"MODEL_PATH": "m"})


def test_an_accelerate_config_is_passed_on(said, tmp_path):
    config = tmp_path / "z.yaml"
    config.touch()
    words = said(8, {"MODEL_PATH": "m", "NUM_PROCESSES": "8", "ACCELERATE_CONFIG": str(config)})
    assert words[3:9] == ["--config_file", str(config), "--main_process_port", "29503", "--num_processes", "8"]


@pytest.mark.parametrize(
    "variables, message",
    [
        ({}, "error: MODEL_PATH is not set; set it to the folder of an SFT checkpoint"),
        ({"MODEL_PATH": "m", "NUM_PROCESSES": "two"}, "error: NUM_PROCESSES is 'two'; it must be 1 or more"),
        ({"MODEL_PATH": "m", "NUM_PROCESSES": "0"}, "error: NUM_PROCESSES is '0'; it must be 1 or more"),
        ({"MODEL_PATH": "m", "ACCELERATE_CONFIG": "z.yaml"}, "error: ACCELERATE_CONFIG z.yaml is missing"),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(variables, message):
    environment = {"PATH": os.environ["PATH"], "PYTHON": "false", **variables}
    done = subprocess.run(
        ["bash", str(ROOT / "trl_trainer.sh")], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode and message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_stops_the_run_is_one_message_without_the_launchers_traceback(processes, tmp_path):
    variables = {"MODEL_PATH": "/nowhere", "NUM_PROCESSES": processes, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(ROOT / "trl_trainer.sh")],
        env={**os.environ, **variables, "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert messages == ["error: --model '/nowhere' is not a folder here; correct the path"]


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_understands_its_configs(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines


@pytest.mark.slow
def test_the_script_trains_on_one_cpu(sft, rl_data, tmp_path):
    options = "--max_steps 1 --num_train_epochs 1 --per_device_train_batch_size 4 --gradient_accumulation_steps 1"
    options += " --eval_strategy no --load_best_model_at_end false --save_strategy no"
    variables = {"MODEL_PATH": str(sft), "DATA_DIR": str(rl_data), "OUTPUT_DIR": str(tmp_path / "out")}
    done = subprocess.run(
        ["bash", str(ROOT / "trl_trainer.sh"), *options.split()],
        env={**os.environ, **variables, "NUM_BEAMS": "4", "PYTHON": sys.executable},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "model.safetensors").is_file() and (tmp_path / "out" / "id2sid.json").is_file()
