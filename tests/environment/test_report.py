import json
import os
import platform
import sys

import pytest
from huggingface_hub import constants

from mimigenrec.cli import parse
from mimigenrec.environment.chain import Diagnosis
from mimigenrec.environment.report import HIDDEN, EnvConfig, Environment, as_text, gpu_lines, variables, verdict
from mimigenrec.environment.requirements import extras
from mimigenrec.manifest import installed

VERSIONS = "torch torchvision torchaudio transformers tokenizers datasets accelerate peft trl llamafactory".split()


def test_where_all_is_well_it_names_versions_imports_extras_and_no_secret(run):
    secrets = {name: f"secret-of-{name.lower()}" for name in HIDDEN if name != "PIP_CONSTRAINT"}
    done = run(["env"], HF_HOME="hf-folder", HF_HUB_OFFLINE="1", **secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert f"Python {platform.python_version()}" in done.stdout
    for package in VERSIONS:
        assert [package, installed(package)] in lines and [package, "ok"] in lines
    for stage in ("SFT", "RL", "evaluation"):
        assert [stage, "yes"] in lines
    assert set(extras()) <= {line[0] for line in lines if line}
    assert ["HF_HOME", "hf-folder"] in lines and ["HF_HUB_OFFLINE", "1"] in lines
    for name, value in secrets.items():
        assert [name, "set"] in lines and value not in done.stdout + done.stderr


def test_a_package_that_cannot_be_loaded_is_named_with_the_pair_and_the_status_is_1(fake, run):
    done = run(["env", "--json"], fake("torchaudio", "2.5.0", "raise OSError('Could not load this library')"))
    assert done.returncode == 1 and done.stderr == ""
    environment = json.loads(done.stdout)
    found = environment["imports"]["torchaudio"]
    assert found["reason"] == "OSError: Could not load this library" and "torchvision" in found["command"]
    assert environment["imports"]["llamafactory"]["cause"] == "torchaudio"
    assert environment["stages"] == {"SFT": "llamafactory", "RL": None, "evaluation": None}


def test_it_reports_also_where_torch_itself_is_broken(fake, run):
    done = run(["env"], fake("torch", "2.11.0", "raise OSError('libcudart.so: cannot open shared object file')"))
    assert done.returncode == 1 and done.stderr == ""
    for line in ("SFT", "RL", "evaluation"):
        assert f"  {line:<10}  no: torch 2.11.0 cannot be imported" in done.stdout
    assert "FAILS: OSError: libcudart.so: cannot open shared object file" in done.stdout
    assert "  unknown: OSError: libcudart.so" in done.stdout


def test_text_gives_the_command_once_where_the_cause_is():
    torchaudio = Diagnosis("torchaudio", "torchaudio", "OSError: no", "pip install a b")
    through = Diagnosis("llamafactory", "torchaudio", "OSError: no", "pip install a b")
    assert verdict(torchaudio) == "FAILS: OSError: no\n      pip install a b"
    assert verdict(through) == "fails, since torchaudio does" and verdict(None) == "ok"
    environment = Environment(
        python="3.11.7",
        platform="Linux",
        versions={"mimigenrec": None, "peft": "0.18.1", "torch": None},
        misfits={"datasets 9 is installed; llamafactory needs <=4.0.0": "pip install 'datasets<=4.0.0'"},
        imports={"torchaudio": torchaudio, "llamafactory": through},
        stages={"SFT": "llamafactory", "RL": None},
        driver=None,
        devices={"error": "it died"},
        extras={"raw": {"polars": None, "pyarrow": "26.0"}, "sids": {"implicit": "0.7"}},
        variables={"HF_HOME": "x"},
    )
    text = "\n".join(as_text(environment))
    assert text.count("pip install a b") == 1 and "  torch       not installed" in text
    assert "unknown until it is installed: pip install -e ." in text
    assert "llamafactory needs <=4.0.0\n      pip install 'datasets<=4.0.0'" in text
    assert f"SFT  no: {through}" in text and "  RL   yes" in text
    assert "  raw   missing: polars; pip install 'mimigenrec[raw]'\n  sids  implicit 0.7" in text


def test_gpus_are_listed_with_memory_driver_and_bf16():
    gpu = {"name": "NVIDIA H200", "memory_gib": 139.8, "capability": "9.0", "bf16": True}
    environment = Environment("3.11.7", "Linux", {}, {}, {}, {}, "570.1", {}, {}, {})
    environment.devices = {"build": "CUDA 12.8", "gpus": [gpu, gpu | {"bf16": False}], "note": None}
    assert gpu_lines(environment) == [
        "0: NVIDIA H200, 139.8 GiB, compute capability 9.0, bf16",
        "1: NVIDIA H200, 139.8 GiB, compute capability 9.0, no bf16",
        "torch is built for CUDA 12.8, NVIDIA driver 570.1",
    ]
    environment.devices = {"build": None, "gpus": [], "note": "the driver is too old"}
    assert gpu_lines(environment) == [
        "none",
        "torch is built without CUDA, NVIDIA driver 570.1",
        "the driver is too old",
    ]


def test_the_place_of_the_cache_is_that_of_huggingface_hub(monkeypatch):
    if "HF_HOME" not in os.environ:  # huggingface_hub reads it once
        assert variables()["HF_HOME"] == f"not set: {constants.HF_HOME}"
    monkeypatch.setenv("HF_HOME", "elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert variables()["HF_HOME"] == "elsewhere" and variables()["CUDA_VISIBLE_DEVICES"] == "empty"


def test_flags_are_read_and_a_wrong_one_stops(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mimigenrec env", "--json"])
    assert parse(EnvConfig) == (EnvConfig(json=True),)
    monkeypatch.setattr(sys, "argv", ["mimigenrec env", "--no_such_key"])
    with pytest.raises(SystemExit) as stopped:
        parse(EnvConfig)
    assert stopped.value.code == 2 and "--no_such_key" in capsys.readouterr().err
