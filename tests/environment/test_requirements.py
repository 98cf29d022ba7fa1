import pytest
from packaging.requirements import Requirement

from mimigenrec.environment.requirements import REASONS, declared, extras, misfits
from mimigenrec.manifest import installed
from tests.environment.conftest import PROJECT


@pytest.mark.parametrize(
    ("package", "version", "expected"),
    [
        ("transformers", "5.6.0", "transformers 5.6.0 is installed; mimigenrec needs !=4.57.0,<5,>=4.55.4: with 5.x"),
        ("trl", "0.23.1", "trl 0.23.1 is installed; mimigenrec needs <0.25,>=0.24.0: mimigenrec.grpo overrides"),
    ],
)
def test_a_version_outside_our_range_is_named_with_the_range_and_its_reason(
    fake, monkeypatch, package, version, expected
):
    monkeypatch.syspath_prepend(fake(package, version))
    [text] = [str(misfit) for misfit in misfits([]) if misfit.package == package]
    assert text.startswith(expected)


def test_what_an_installed_package_asks_for_and_does_not_get_is_named(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("peft", "0.18.1", needs=["numpy>=99", "nowhere_to_be_found", "pyyaml"]))
    numpy, nowhere = [str(misfit) for misfit in misfits(["peft"]) if misfit.owner == "peft"]
    assert numpy == f"numpy {installed('numpy')} is installed; peft needs >=99"
    assert nowhere == "nowhere_to_be_found is not installed; peft needs it"


def test_a_package_that_must_be_exchanged_itself_asks_for_nothing(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("transformers", "5.6.0", needs=["numpy>=99"]))
    assert {misfit.owner for misfit in misfits(["transformers"])} == {"mimigenrec"}


def test_what_only_an_extra_asks_for_is_not_missed(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("peft", "0.18.1", needs=["nowhere_to_be_found; extra == 'more'"]))
    assert misfits(["peft"]) == misfits([])


def test_a_requirement_is_ours_with_its_range(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("peft", "0.18.1"))
    assert declared("trl") == "trl<0.25,>=0.24.0" and declared("torchvision") == "torchvision"


def test_the_extras_are_those_of_the_package_with_the_versions_that_are_there(fake, monkeypatch):
    monkeypatch.syspath_prepend(fake("polars", "2.9.9"))
    assert set(extras()) == set(PROJECT["optional-dependencies"])
    assert extras()["raw"] == {"polars": "2.9.9", "pyarrow": installed("pyarrow")}
    assert set(extras()["sids"]) == {Requirement(text).name for text in PROJECT["optional-dependencies"]["sids"]}


def test_reasons_are_given_for_packages_that_have_a_range():
    assert set(REASONS) <= {need.name for need in map(Requirement, PROJECT["dependencies"]) if need.specifier}
