"""What a result depended on: versions, config, data hashes, seed. One `manifest.json` beside every output."""

import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import sha256

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


def differences(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """What makes two manifests those of different runs: ["learning_rate: 0.0001 then, 1e-06 now", ...].

    free    keys of the config, such as output_dir, on which the result does not depend
    Versions are not compared. An input is known by its last two names and its hash, so that data may be moved.
    """
    pairs = [(_settings(before, free), _settings(now, free)), (inputs_of(before), inputs_of(now))]
    found = []
    for then, today in pairs:
        for key in dict.fromkeys([*then, *today]):
            a, b = then.get(key), today.get(key)  # None is as good as not given
            if _number(a) != _number(b):
                told = ("nothing" if value is None else _short(value) for value in (a, b))
                found.append(f"{key}: {next(told)} then, {next(told)} now")
    return found


def check_same_run(
    folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str], overwrite: str
) -> None:
    """Raises UserError showing what differs if `folder` holds another run than the one asked for.

    overwrite   the flag or key that starts anew
    """
    if found := differences(before, now, free):
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(
            f"{folder} holds a run with other settings or data ({'; '.join(found[:5])}{more}). Take another folder, "
            f"or {overwrite} to replace it"
        )


def _settings(manifest: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    """The config, maps in it flattened: {"trl.beta": 0.0}. A key is free with or without what is before its dot."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        for key, inner in value.items():
            if key in free or prefix + key in free:
                continue
            if isinstance(inner, Mapping):
                yield from walk(f"{prefix}{key}.", inner)
            else:
                yield prefix + key, inner

    return dict(walk("", manifest.get("config", {})))


def _number(value: Any) -> Any:
    """A text that is a number, as YAML reads 1e-4, as that number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def short_name(path: str | Path) -> str:
    """The last two names of a file, by which a manifest knows it wherever it lies."""
    return "/".join(Path(path).parts[-2:])


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Short name of a file -> its hash; those of all files of this name, in order."""
    found: dict[str, str] = {}
    for path, hashed in manifest.get("inputs", {}).items():
        key = short_name(path)
        found[key] = f"{found[key]} {hashed}" if key in found else hashed
    return found


def _short(value: Any) -> str:
    text = re.sub(r"\b[0-9a-f]{64}\b", lambda found: found[0][:8], str(value))  # a hash says no more in full
    return text if len(text) <= 60 else text[:57] + "..."


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
