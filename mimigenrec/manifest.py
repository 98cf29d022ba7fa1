"""What a result depended on: versions, config, data hashes, seed. One `manifest.json` beside every output."""

import platform
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mimigenrec.files import sha256, write_json

PACKAGES = ("mimigenrec", "torch", "transformers", "trl", "llamafactory", "peft", "accelerate", "datasets", "numpy")


def make_manifest(config: Any, inputs: Iterable[str | Path], seed: int | None, **facts: Any) -> dict[str, Any]:
    """config: a dataclass or dict; inputs: the files that were read; facts: what else a reader should know."""
    config = asdict(config) if is_dataclass(config) else dict(config)
    return {
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
        "config": {key: _plain(value) for key, value in config.items()},
        "seed": seed,
        "inputs": {str(path): sha256(path) for path in inputs},
        **facts,
    }


def write_manifest(folder: str | Path, config: Any, inputs: Iterable[str | Path], seed: int | None, **facts) -> None:
    write_json(Path(folder) / "manifest.json", make_manifest(config, inputs, seed, **facts))


def installed(package: str) -> str | None:
    """Its version by its metadata, without importing it; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
