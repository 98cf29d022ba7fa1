"""What the installed packages' own metadata ask for, compared with what is installed."""

from collections.abc import Iterable, Iterator
from importlib.metadata import metadata, requires
from typing import NamedTuple

from packaging.requirements import Requirement

from mimigenrec.manifest import installed

REASONS = {  # of the ranges in pyproject.toml: metadata do not carry its comments
    "llamafactory": "0.10 may move what mimigenrec.sft relies on",
    "trl": "mimigenrec.grpo overrides private methods of TRL 0.24",
    "transformers": "with 5.x `from trl import GRPOTrainer` fails, and 4.57.0 was withdrawn",
    "torch": "pip puts a torchaudio beside 2.11 and 2.12 that they cannot load; newer ones than 2.15 are untested",
    "torchaudio": "2.11.0 can be loaded with torch 2.11 alone",
}


class Misfit(NamedTuple):
    """An installed version that another package does not allow, or a package that is missing."""

    package: str
    found: str | None
    owner: str  # the package that asks for it
    range: str  # "<5,>=4.55.4", or "" for any version

    def __str__(self) -> str:
        state = f"{self.package} {self.found} is installed" if self.found else f"{self.package} is not installed"
        text = f"{state}; {self.owner} needs {self.range or 'it'}"
        return f"{text}: {REASONS[self.package]}" if self.owner == "mimigenrec" and self.package in REASONS else text


def declared(package: str) -> str:
    """The requirement for pip with mimigenrec's own range: "trl<0.25,>=0.24.0"; the bare name where it has none."""
    return next((f"{need.name}{need.specifier}" for need in _needs("mimigenrec") if need.name == package), package)


def misfits(owners: Iterable[str]) -> list[Misfit]:
    """What mimigenrec and the owners ask for and do not get, extras left out.

    An owner that is not installed, or that must be exchanged for another version itself, asks for nothing.
    """
    ours = list(_misfits("mimigenrec"))
    replaced = {misfit.package for misfit in ours}
    return ours + [misfit for owner in owners if owner not in replaced for misfit in _misfits(owner)]


def _misfits(owner: str) -> Iterator[Misfit]:
    for need in _needs(owner):
        found = installed(need.name)
        if found is None or not need.specifier.contains(found, prereleases=True):
            yield Misfit(need.name, found, owner, str(need.specifier))


def extras(package: str = "mimigenrec") -> dict[str, dict[str, str | None]]:
    """{"raw": {"polars": "2.1.0", "pyarrow": None}}: the versions of what each extra adds; None is not installed."""
    if not installed(package):
        return {}
    plain = {need.name for need in _needs(package)}
    names = metadata(package).get_all("Provides-Extra") or []
    added = {name: [need.name for need in _needs(package, name) if need.name not in plain] for name in names}
    return {name: {need: installed(need) for need in needs} for name, needs in added.items()}


def _needs(package: str, extra: str = "") -> Iterator[Requirement]:
    for text in (requires(package) or []) if installed(package) else []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield need
