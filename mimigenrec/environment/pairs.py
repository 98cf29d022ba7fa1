"""Which torchvision and torchaudio go with which torch.

Their libraries are compiled against one torch, and LLaMA-Factory imports all three. pip does not always keep them
together: torchaudio 2.11.1 asks for torch>=2.11 and cannot be loaded beside 2.11 and 2.12.
"""

from packaging.requirements import Requirement
from packaging.version import Version

from mimigenrec.manifest import installed

FAMILY = ("torch", "torchvision", "torchaudio")
PAIRS = {  # torch: torchvision, torchaudio. torch 2.12 has no torchaudio that it can load
    "2.15": ("0.29.*", "2.11.1"),
    "2.14": ("0.29.*", "2.11.1"),
    "2.13": ("0.28.*", "2.11.1"),
    "2.11": ("0.26.*", "2.11.0"),
    "2.10": ("0.25.*", "2.10.*"),
    "2.9": ("0.24.*", "2.9.*"),
    "2.8": ("0.23.*", "2.8.*"),
    "2.7": ("0.22.*", "2.7.*"),
    "2.6": ("0.21.*", "2.6.*"),
}


def matching(torch: str) -> list[str] | None:
    """The three requirements for pip that fit a torch; None where PAIRS does not know it.

    torch    its version, "2.13.0" or "2.13.0+cpu"
    returns  ["torch==2.13.0", "torchvision==0.28.*", "torchaudio==2.11.1"]
    """
    version = Version(torch)
    pair = PAIRS.get(f"{version.major}.{version.minor}")
    return pair and [f"torch=={version.public}", f"torchvision=={pair[0]}", f"torchaudio=={pair[1]}"]


def are_installed(requirements: list[str]) -> bool:
    wanted = [(need.specifier, installed(need.name)) for need in map(Requirement, requirements)]
    return all(found is not None and found in specifier for specifier, found in wanted)
