"""Packages that are broken, or of another version, in a folder that comes before the real ones on sys.path."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def write_metadata(folder: Path, name: str, version: str, needs: list[str], extras: list[str]) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs] + [f"Provides-Extra: {extra}" for extra in extras]
    (info / "METADATA").write_text("\n".join([*lines, ""]))


@pytest.fixture
def fake(tmp_path):
    """fake("torchaudio", "2.11.1", code="raise OSError('no')", needs=["torch"]) -> the folder to put on sys.path.

    Without code only the metadata are fake, so the real package is imported under another version. Our own metadata
    lie beside it as pyproject.toml has them now; those that are installed are as old as the installation.
    """
    packages = tmp_path / "packages"
    added = PROJECT["optional-dependencies"]
    needs = [*PROJECT["dependencies"], *(f"{need}; extra == '{x}'" for x in added for need in added[x])]
    write_metadata(packages, PROJECT["name"], PROJECT["version"], needs, list(added))

    def make(name: str, version: str, code: str | None = None, needs: list[str] = ()) -> Path:
        write_metadata(packages, name, version, list(needs), [])
        if code is not None:
            (packages / name).mkdir()
            (packages / name / "__init__.py").write_text(code + "\n")
        return packages

    return make


@pytest.fixture
def run(tmp_path):
    """run(["env"], packages=folder, HF_TOKEN="x") -> the finished process of `mimigenrec env` in an empty folder."""

    def start(argv: list[str], packages: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join(str(part) for part in (packages, ROOT, os.environ.get("PYTHONPATH")) if part)
        command = [sys.executable, "-m", "mimigenrec.cli", *argv]
        environment = {**os.environ, "PYTHONPATH": path, **variables}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    return start
