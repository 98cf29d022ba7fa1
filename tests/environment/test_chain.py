import os
import shlex
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from mimigenrec.environment import chain
from mimigenrec.environment.chain import (
    CHAIN,
    Link,
    below,
    diagnose,
    exit_unless_imports,
    one_line,
    pip_install,
    remedy,
)
from tests.conftest import ROOT
from tests.environment.conftest import PROJECT

PAIR = "pip install torch==2.13.0 'torchvision==0.28.*' torchaudio==2.11.1"
AUDIO = 'raise OSError("Could not load this library: libtorchaudio.so") from OSError("undefined symbol: torch_x")'


def test_every_package_comes_after_what_it_imports():
    names = list(CHAIN)
    for name, link in CHAIN.items():
        assert set(link.needs) | set(link.uses) <= set(names[: names.index(name)]), name


def test_a_package_that_fails_with_another_blames_it_and_one_beside_it_does_not():
    errors = {"torchaudio": "OSError: no", "llamafactory": "OSError: no", "trl": "ImportError: mergekit"}
    found = diagnose("llamafactory", errors.get)
    assert (found.cause, found.reason) == ("torchaudio", "OSError: no") and "torchaudio" in found.command
    assert str(found).endswith("cannot be imported, and llamafactory needs it")
    beside = diagnose("trl", errors.get)  # which imports no torchaudio
    assert (beside.cause, beside.reason) == ("trl", "ImportError: mergekit")
    assert diagnose("transformers", errors.get) is None


def test_a_package_that_is_only_used_where_installed_is_to_blame_only_there(monkeypatch):
    assert "torchvision" in below("transformers")
    monkeypatch.setattr(chain, "installed", lambda name: None if name == "torchvision" else "1.0")
    assert "torchvision" not in below("transformers") and "torchvision" in below("llamafactory")


def test_the_command_for_torchs_family_is_the_pair(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("torch", "2.13.0"))
    assert [remedy(name) for name in ("torch", "torchvision", "torchaudio")] == [PAIR] * 3


@pytest.mark.parametrize("torch", ["2.12.0", "99.0"])
def test_a_torch_outside_our_range_gives_way_to_what_pip_chooses_within(fake, monkeypatch, torch):
    monkeypatch.syspath_prepend(fake("torch", torch))
    ranges = [need.name + str(need.specifier) for need in map(Requirement, PROJECT["dependencies"])]
    words = shlex.split(remedy("torchaudio"))
    assert words[:2] == ["pip", "install"] and words[3] == "torchvision" and {words[2], words[4]} <= set(ranges)


def test_a_pair_that_fits_and_cannot_be_loaded_is_installed_once_more(fake, monkeypatch):
    fake("torch", "2.13.0")
    fake("torchvision", "0.28.0")
    monkeypatch.syspath_prepend(fake("torchaudio", "2.11.1"))
    assert remedy("torchaudio") == "pip install --force-reinstall --no-deps torchaudio==2.11.1"


def test_the_partners_of_a_torch_from_an_index_of_its_own_come_from_there(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("torch", "2.13.0+cpu"))
    assert remedy("torchvision") == f"{PAIR} --index-url INDEX  # the package index that torch 2.13.0+cpu came from"


def test_the_command_names_the_range_that_is_broken_below_what_fails(fake, monkeypatch):
    fake("torch", "2.13.0")
    fake("torchaudio", "2.11.1")
    monkeypatch.syspath_prepend(fake("transformers", "5.6.0"))
    assert "'transformers!=4.57.0,<5,>=4.55.4'" in remedy("trl")
    assert remedy("polars").startswith("pip install --force-reinstall --no-deps polars==")


def test_requirements_are_quoted_for_a_shell():
    assert pip_install(["trl<0.25,>=0.24.0", "numpy", "numpy"]) == "pip install 'trl<0.25,>=0.24.0' numpy"


def test_the_reason_is_one_line_and_holds_the_error_behind_the_error():
    error = OSError("could not\nload")
    error.__cause__ = OSError("undefined symbol")
    assert one_line(error) == "OSError: could not load; OSError: undefined symbol"
    assert one_line(ValueError("no")) == "ValueError: no"


def test_a_bug_in_a_module_of_our_own_is_raised_and_no_advice_to_install(monkeypatch):
    def broken(module):
        raise NameError(module)

    monkeypatch.setattr(chain, "import_module", broken)
    look = chain.failure.__wrapped__  # without its memory
    assert look("torch") == "NameError: torch"
    with pytest.raises(NameError):
        look("mimigenrec.sft.train")


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False)])
def test_one_process_of_a_machine_says_why_all_of_them_end(monkeypatch, rank, speaks):
    monkeypatch.setitem(CHAIN, "nowhere", Link("nowhere_to_be_found"))
    monkeypatch.setattr(chain, "WAIT", 0)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as stopped:
        exit_unless_imports("sft", "nowhere")
    assert (stopped.value.code != 1) == speaks
    if speaks:
        assert stopped.value.code.startswith("error: mimigenrec sft cannot start: nowhere cannot be imported")
        assert "pip install nowhere\n`mimigenrec env` shows the rest." in stopped.value.code


def test_the_message_is_read_where_the_first_process_is_the_last_to_find_out(tmp_path):
    (tmp_path / "start.py").write_text(
        "import os, time\n"
        "from mimigenrec.environment.chain import CHAIN, Link, exit_unless_imports\n"
        "CHAIN['nowhere'] = Link('nowhere_to_be_found')\n"
        "time.sleep(1 if os.environ['LOCAL_RANK'] == '0' else 0)\n"
        "exit_unless_imports('grpo', 'nowhere')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, tmp_path / "start.py"], env=environment, capture_output=True, text=True)
    assert done.returncode and done.stderr.count("mimigenrec grpo cannot start: nowhere cannot be imported") == 1


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_a_missing_peft_is_named_at_the_door(command):
    start = (
        "import runpy, sys; sys.modules['peft'] = None\n"
        f"runpy.run_module('mimigenrec.{command}.train', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"mimigenrec {command} cannot start: peft" in done.stderr and "    pip install " in done.stderr


@pytest.mark.parametrize("torchrun", ["0", "1"])
def test_sft_stops_at_its_door_where_torchaudio_cannot_be_loaded(fake, run, tmp_path, torchrun):
    (tmp_path / "x.yaml").write_text("model_name_or_path: anything\noutput_dir: out\n")
    done = run(["sft", "x.yaml"], fake("torchaudio", "2.5.0", AUDIO), FORCE_TORCHRUN=torchrun)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "mimigenrec sft cannot start: torchaudio 2.5.0 cannot be imported" in done.stderr
    assert "undefined symbol: torch_x" in done.stderr and "    pip install " in done.stderr
    assert "`mimigenrec env` shows the rest" in done.stderr


@pytest.mark.parametrize(
    ("version", "code", "expected"),
    [
        (
            "0.24.0",
            "raise ImportError('no part of it')",
            "trl 0.24.0 cannot be imported.\n    ImportError: no part of it",
        ),
        ("0.23.1", "__version__ = '0.23.1'", "'trl<0.25,>=0.24.0'"),
    ],
)
def test_grpo_stops_at_its_door_where_trl_is_broken_or_of_another_version(fake, run, version, code, expected):
    done = run(["grpo", "--model", "anything"], fake("trl", version, code))
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "mimigenrec grpo cannot start" in done.stderr and expected in done.stderr
