import pytest
import torch

from mimigenrec.environment.devices import nvidia_driver, torch_devices


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_memory():
    first = torch_devices()["gpus"][0]
    assert first["name"] == torch.cuda.get_device_name(0) and first["memory_gib"] > 1 and nvidia_driver()


def test_without_a_gpu_the_list_is_empty_and_the_build_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = torch_devices()
    assert found["gpus"] == [] and found["build"] == (f"CUDA {torch.version.cuda}" if torch.version.cuda else None)


def test_a_machine_without_nvidia_smi_has_no_driver_and_one_with_it_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_driver() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.86.15\necho 570.86.15\n")
    program.chmod(0o755)
    assert nvidia_driver() == "570.86.15"
    program.write_text("#!/bin/sh\necho 'no devices were found'\nexit 9\n")
    assert nvidia_driver() is None
