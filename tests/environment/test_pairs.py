import pytest
from packaging.requirements import Requirement

from mimigenrec.environment.pairs import PAIRS, are_installed, matching
from tests.environment.conftest import PROJECT


@pytest.mark.parametrize(
    ("torch", "expected"),
    [
        ("2.13.0", ["torch==2.13.0", "torchvision==0.28.*", "torchaudio==2.11.1"]),
        ("2.13.0+cpu", ["torch==2.13.0", "torchvision==0.28.*", "torchaudio==2.11.1"]),
        ("2.11.0", ["torch==2.11.0", "torchvision==0.26.*", "torchaudio==2.11.0"]),
        ("2.9.1", ["torch==2.9.1", "torchvision==0.24.*", "torchaudio==2.9.*"]),
        ("2.12.1", None),  # which has no torchaudio
        ("99.0", None),
    ],
)
def test_torchvision_and_torchaudio_follow_torch(torch, expected):
    assert matching(torch) == expected


def test_every_torch_in_our_range_has_a_pair_and_its_torchaudio_is_in_our_range():
    ranges = {need.name: need.specifier for need in map(Requirement, PROJECT["dependencies"])}
    allowed = [f"2.{minor}" for minor in range(6, 40) if f"2.{minor}.0" in ranges["torch"]]
    assert set(allowed) <= set(PAIRS)
    assert all(PAIRS[torch][1].replace("*", "0") in ranges["torchaudio"] for torch in allowed)


def test_a_pair_is_there_when_all_three_are(fake, monkeypatch):
    fake("torch", "2.10.0+cpu")
    fake("torchvision", "0.25.1")
    monkeypatch.syspath_prepend(fake("torchaudio", "2.10.0"))
    assert are_installed(matching("2.10.0+cpu")) and not are_installed(matching("2.13.0"))
    assert not are_installed(["nowhere_to_be_found"])
