"""The versions that `make lock` wrote down: released ones, within the declared ranges, for every Python."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = ("raw", "sids", "llm", "dev")
LOCKS = sorted((ROOT / "constraints").glob("py*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_tested_versions_are_released_ones_within_the_ranges(lock):
    lines = lock.read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    versions = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for text in [*PROJECT["dependencies"], *(text for extra in INSTALLED for text in EXTRAS[extra])]:
        wanted = Requirement(text)
        if wanted.name != PROJECT["name"]:
            assert versions[canonicalize_name(wanted.name)] in wanted.specifier, f"{lock.name}: {text}"


def test_there_are_tested_versions_for_every_python_that_the_package_takes():
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
    assert [lock.stem for lock in LOCKS] == ["py311", "py312"]
