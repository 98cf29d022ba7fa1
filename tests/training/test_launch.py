"""How the processes of a training start."""

import pytest

from mimigenrec.errors import UsageError
from mimigenrec.training.launch import check_launch, torchrun_command, wants_torchrun


def test_torchrun_is_asked_for_as_llamafactory_asks(monkeypatch):
    for name in ("FORCE_TORCHRUN", "NPROC_PER_NODE", "NNODES", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 0)
    assert not wants_torchrun(deepspeed=False) and wants_torchrun(deepspeed=True)
    monkeypatch.setenv("FORCE_TORCHRUN", "1")
    assert wants_torchrun(deepspeed=False) and "--standalone" in torchrun_command("mimigenrec.sft.train", ["x.yaml"])
    assert torchrun_command("mimigenrec.sft.train", ["x.yaml"])[-5:] == [
        "--nproc_per_node",
        "1",
        "-m",
        "mimigenrec.sft.train",
        "x.yaml",
    ]
    monkeypatch.setenv("NNODES", "2")
    with pytest.raises(UsageError, match="needs MASTER_ADDR"):
        torchrun_command("mimigenrec.sft.train", ["x.yaml"])


def test_accelerates_silent_single_process_is_refused():
    several = {"CCL_WORKER_COUNT": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(ValueError, match="torchrun"):
        check_launch(several, has_gpu=False)
    check_launch({}, has_gpu=False)
    check_launch({**several, "WORLD_SIZE": "2"}, has_gpu=False)
    check_launch(several, has_gpu=True)
