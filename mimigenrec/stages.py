"""Stages of a command that runs other commands, remembered so that none is run twice: `prepare`, `benchmark`.

A stage is a command with its options. What its result depends on are its facts: options, contents of files, stages
before it. A stage whose facts are those that it was run with is done; the command that runs it keeps them in a file of
its own (C.prepare.json, stage.json) and decides what becomes of a stage that has changed.

Options are asked of the command's own parser before the first stage runs, so that a slip costs no stage.
"""

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

Facts = dict[str, Any]


class Stage(NamedTuple):
    name: str  # "sft/1"
    key: str  # where its options stand in the YAML, for messages: "sft", "baselines: sasrec"
    module: str  # of its command: what `python -m` runs
    options: Facts
    writes: tuple[Path, ...]  # files that are there when it is done
    reads: tuple[Path, ...] = ()  # files whose content counts
    after: tuple[str, ...] = ()  # names of the stages whose result counts as a whole
    method: str | None = None  # of a benchmark: in whose service it is, and with which seed
    seed: int | None = None

    @property
    def folder(self) -> Path:
        """Of a stage that has a folder to itself, with the one file that is written last."""
        return self.writes[0].parent

    @property
    def command(self) -> ModuleType:
        return importlib.import_module(self.module)

    @property
    def configs(self) -> list[type]:
        """The dataclasses that the command's main takes, which are its options."""
        return [*filter(is_dataclass, get_type_hints(self.command.main).values())]


class Standing(NamedTuple):
    """What is there of a stage. word: "done", "to do", "begun", "failed" (both run again) or "changed"."""

    word: str
    changes: list[str] = []


def standing(stage: Stage, facts: Facts, before: Mapping[str, Any] | None) -> Standing:
    """before: the facts that it was run with, and the "state" that it came to where it may have failed."""
    if before is None:
        return Standing("to do")
    changes = [change for part in facts for change in differing(part, before[part], facts[part])]
    if changes:
        return Standing("changed", changes)
    state = before.get("state", "done")
    if state == "done" and not all(path.is_file() for path in stage.writes):
        return Standing("to do")
    return Standing(state)


def differing(name: str, before: Any, now: Any) -> list[str]:
    """["options: epochs was 2, is 3", ...]"""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [] if before == now else [f"{name} was {before}, is {now}"]
    keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if name == "inputs":
        return [f"{key} is read no more" if key not in now else f"{key} has changed or is new" for key in keys]
    if name == "after":
        return [f"it comes after {key}" for key in keys]
    return [f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}" for key in keys]


def refusals(stages: Iterable[Stage], ask: Callable[[Stage], Any]) -> list[str]:
    """A line for each key whose options are refused, with the key and the reason; of several seeds one is asked.

    ask   lets the command's own parser read the options, and raises what that raises
    """
    problems = []
    for key, stage in {stage.key: stage for stage in stages}.items():
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                ask(stage)
        except SystemExit as stop:  # argparse has said why, and exits
            problems.append(f"{key}: {_reason(said.getvalue()) or stop}")
        except (ImportError, OSError, ValueError, TypeError) as error:
            problems.append(f"{key}: {error}")
    return problems


def _reason(message: str) -> str:
    """What stopped a command, without the line below it that points at its --help."""
    return re.sub(r"\n.* --help lists what it takes\s*$", "", message.rpartition("error: ")[2]).strip()


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
