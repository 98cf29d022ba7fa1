"""Are these options that each stage's command takes? Asked of the commands' own parsers, before anything runs."""

import contextlib
import importlib
import io
import re
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, is_dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import get_type_hints

import yaml

from mimigenrec.benchmark.stage import Stage
from mimigenrec.cli import parse
from mimigenrec.errors import UserError


def check_options(stages: Iterable[Stage]) -> None:
    """Raises UserError naming every stage whose options its command refuses, or whose extra is not installed.

    In a process of its own: the commands load torch, TRL and LLaMA-Factory, and may take hold of a GPU.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        problems = process.submit(problems_of, list(stages)).result()
    if problems:
        raise UserError("\n".join(["nothing was run:", *problems]))


def problems_of(stages: Iterable[Stage]) -> list[str]:
    """A line for each key of the benchmark's YAML whose options are refused; of several seeds one is asked for."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for key, stage in {stage.key: stage for stage in stages}.items():
            path, told = Path(folder) / "options.yaml", io.StringIO()
            path.write_text(yaml.safe_dump(stage.options, allow_unicode=True), encoding="utf-8")
            try:
                with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                    ask(stage, path)
            except SystemExit as stop:  # argparse has said why, and exits
                problems.append(f"{key}: {_message(told.getvalue()) or stop}")
            except (ImportError, OSError, ValueError, TypeError) as error:
                problems.append(f"{key}: {error}")
    return [problem.replace(f"{path}: ", "") for problem in problems]


def ask(stage: Stage, path: Path) -> None:
    """Lets the command's own parser read the options from a file, as it will. Raises what it raises."""
    module = importlib.import_module(stage.module)
    if stage.key == "sft":
        from mimigenrec.sft import checks  # loads torch, as the module of every command that trains does

        _, args = module.read_arguments([str(path)])
        checks.check_keys(args, ours=[field.name for field in fields(module.SftConfig)])
        checks.check_extras(args)
        return
    parsed = parse(*filter(is_dataclass, get_type_hints(module.main).values()), argv=[str(path)])
    if stage.key == "preprocess" or stage.key.startswith("baselines: "):
        module.check(*parsed)
    if stage.key == "grpo":
        module.load_rewards(parsed[0].rewards, parsed[0].reward_args)


def _message(told: str) -> str:
    """What stopped a command, without the line below it that points at its --help."""
    return re.sub(r"\n.* --help lists what it takes\s*$", "", told.rpartition("error: ")[2]).strip()
