"""The GPUs as torch sees them, and the driver."""

import shutil
import subprocess
import warnings
from typing import Any

from mimigenrec.errors import UserError


def choose_device(name: Any = None) -> str:
    """The device of that name; for None and "auto" the first GPU, else the CPU. Imports torch.

    Raises UserError if torch does not know the device, or cannot use it here.
    """
    import torch

    if name is None or name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"--device {str(name)!r} cannot be used here ({reason}); leave it out, or take cpu") from error
    return str(name)


def torch_devices() -> dict[str, Any]:
    """Imports torch. {"build": "CUDA 12.8" or None, "gpus": [...], "note": torch's warning where it sees none}."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"ROCm {hip}" if hip else f"CUDA {cuda}" if cuda else None
    note = " ".join(str(caught[0].message).split()) if caught and not count else None
    return {"build": build, "gpus": [_gpu(torch, i) for i in range(count)], "note": note}


def _gpu(torch, i: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(i)
    with torch.cuda.device(i):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "bf16": bf16,
    }


def nvidia_driver() -> str | None:
    """The driver's version by nvidia-smi; None where there is none or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.strip() else None
