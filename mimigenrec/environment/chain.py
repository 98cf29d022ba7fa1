"""The packages that SFT, RL and evaluation import, one by one, and what to install where an import fails.

`mimigenrec env` tries all of them. `sft` and `grpo` try the part that they import anyway, at their door, so that a
package that cannot be loaded becomes one message and not a traceback out of the middle of LLaMA-Factory or TRL.
"""

import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

from packaging.requirements import Requirement

from mimigenrec.environment.pairs import FAMILY, are_installed, matching
from mimigenrec.environment.requirements import declared, misfits
from mimigenrec.manifest import installed

WAIT = 20  # seconds that the first process of a machine may be behind the others


class Link(NamedTuple):
    """One import. A name of CHAIN that is no package, such as mimigenrec.sft.train, is a module of our own."""

    module: str  # what SFT, RL or evaluation import of it, not its bare name: much is loaded late
    attribute: str = ""
    needs: tuple[str, ...] = ()  # what it cannot be imported without
    uses: tuple[str, ...] = ()  # what it imports where that is installed


CHAIN = {  # in an order in which the first that fails is the cause
    "torch": Link("torch"),
    "torchvision": Link("torchvision", needs=("torch",)),
    "torchaudio": Link("torchaudio", needs=("torch",)),
    "scikit-learn": Link("sklearn.metrics"),
    "tokenizers": Link("tokenizers"),
    "datasets": Link("datasets"),
    "accelerate": Link("accelerate", needs=("torch",)),
    "transformers": Link(
        "transformers.trainer", needs=("torch", "tokenizers"), uses=("torchvision", "scikit-learn", "accelerate")
    ),
    "peft": Link("peft", needs=("transformers", "accelerate")),
    "trl": Link("trl", "GRPOTrainer", needs=("transformers", "accelerate", "datasets"), uses=("peft",)),
    "llamafactory": Link(
        "llamafactory.train.tuner",
        needs=("torchvision", "torchaudio", "transformers", "datasets", "accelerate", "peft"),
        uses=("trl",),
    ),
    "polars": Link("polars"),
    "faiss-cpu": Link("faiss"),
    "mimigenrec.sft.train": Link("mimigenrec.sft.train", needs=("transformers", "peft")),
    "mimigenrec.grpo.trainer": Link("mimigenrec.grpo.trainer", needs=("trl",)),
    "mimigenrec.evaluation.run": Link("mimigenrec.evaluation.run", needs=("transformers",)),
}
STAGES = {
    "SFT": ("llamafactory", "mimigenrec.sft.train"),
    "RL": ("trl", "mimigenrec.grpo.trainer"),
    "evaluation": ("transformers", "mimigenrec.evaluation.run"),
}


@dataclass
class Diagnosis:
    """Why a name of CHAIN cannot be imported."""

    name: str
    cause: str  # the name below it that is to blame, or itself
    reason: str  # the error of the cause, in one line
    command: str  # what should help

    def __str__(self) -> str:
        version = installed(self.cause)
        what = f"{self.cause} {version}" if version else self.cause
        return f"{what} cannot be imported" + (f", and {self.name} needs it" if self.cause != self.name else "")


@cache
def failure(name: str) -> str | None:
    """Why the import of CHAIN[name] fails, in one line; None where it works.

    Only an ImportError counts in a module of our own: anything else is a bug, which is raised as it is.
    """
    link = CHAIN[name]
    try:
        module = import_module(link.module)
        if link.attribute:
            getattr(module, link.attribute)
    except Exception as error:  # a library that cannot be loaded may raise anything
        if name.startswith("mimigenrec.") and not isinstance(error, ImportError):
            raise
        return one_line(error)
    return None


def one_line(error: BaseException) -> str:
    """Type and text, and those of the error behind it, which often names what is wrong."""
    first = error
    while error.__cause__ is not None:
        error = error.__cause__
    texts = [" ".join(f"{type(e).__name__}: {e}".split()) for e in dict.fromkeys((first, error))]
    return textwrap.shorten("; ".join(texts), 400, placeholder=" ...")


def diagnose(name: str, failure: Callable[[str], str | None] = failure) -> Diagnosis | None:
    """The cause of a failing import and the command that should help; None where the import works.

    failure  name -> error or None. What lies below the name is asked for first: a broken package names its fault the
             first time it is imported, and often something else the second time
    """
    errors = {other: failure(other) for other in [*below(name), name]}
    if errors[name] is None:
        return None
    cause, reason = next((other, error) for other, error in errors.items() if error is not None)
    return Diagnosis(name, cause, reason, remedy(cause))


def below(name: str) -> list[str]:
    """What the import of a name imports, in the order of CHAIN."""
    reached: set[str] = set()
    rest = [name]
    while rest:
        link = CHAIN[rest.pop()]
        more = {*link.needs, *(other for other in link.uses if installed(other))} - reached
        reached |= more
        rest += more
    return [other for other in CHAIN if other in reached]


def remedy(name: str) -> str:
    """A command: `pip install` of what fits torch, or of what the ranges ask for, else the same version once more."""
    package = name.partition(".")[0]
    if package in FAMILY and not are_installed(torch_family()):
        return pip_install([package])
    parts = {package, *below(name)}
    wrong = [misfit for misfit in misfits(CHAIN) if {misfit.package, misfit.owner} & parts]
    if wrong:
        return pip_install([misfit.package + misfit.range for misfit in wrong])
    if package == "mimigenrec":
        return "pip check"
    version = installed(package)
    return f"pip install --force-reinstall --no-deps {package}=={version}" if version else pip_install([package])


def torch_family() -> list[str]:
    """The requirements for pip of torch, torchvision and torchaudio that fit: the pair of the installed torch, or a
    choice for pip within our ranges where that torch is outside them, unknown or missing."""
    torch = installed("torch")
    outside = torch is None or any(misfit.package == "torch" for misfit in misfits([]))
    pair = None if outside else matching(torch)
    return pair or [declared(package) for package in FAMILY]


def pip_install(requirements: list[str]) -> str:
    """`pip install` of requirements, quoted for a shell. One of torch's family stands for all three, which must fit.

    A torch with a local label, +cpu or +cu128, came from a package index of its own, and so must the others.
    """
    family = {need for need in requirements if Requirement(need).name in FAMILY}
    words = [need for need in dict.fromkeys(requirements) if need not in family]
    if family:
        words = torch_family() + words
    command = "pip install " + " ".join(map(shlex.quote, words))
    torch = installed("torch") or ""
    labelled = family and "+" in torch
    return command + (f" --index-url INDEX  # the package index that torch {torch} came from" if labelled else "")


def exit_unless_imports(command: str, *names: str) -> None:
    """Ends the process with status 1 and a message if one of the names cannot be imported.

    Of the processes that torchrun starts, the first on each machine speaks. The others wait for it: torchrun ends
    all of them as soon as one has ended.
    """
    found = next(filter(None, map(diagnose, names)), None)
    if found is None:
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(WAIT)
        sys.exit(1)
    sys.exit(
        f"error: mimigenrec {command} cannot start: {found}.\n    {found.reason}\nRun this, then start again:\n"
        f"    {found.command}\n`mimigenrec env` shows the rest."
    )
