import tomllib

import pytest

from mimigenrec.extras import EXTRAS, need, need_reporters
from tests.conftest import ROOT


def test_what_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr("mimigenrec.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"z3.json needs deepspeed.*pip install 'mimigenrec\[deepspeed\]'"):
        need("deepspeed", "deepspeed: z3.json")
    for given in ("wandb", ["tensorboard", "wandb"]):
        with pytest.raises(ImportError, match="report_to: (wandb|tensorboard) needs"):
            need_reporters(given)


def test_what_is_there_or_not_asked_for_passes():
    need("numpy", "anything")
    for given in (None, "none", [], ["none"], "all"):
        need_reporters(given)


def test_every_extra_named_is_one_that_can_be_installed():
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, remedy in EXTRAS.items():
        extra = remedy.removeprefix("mimigenrec[").removesuffix("]")
        assert any(wanted.startswith(package) for wanted in offered[extra])
