"""Are these options that each stage's command takes? Asked of the commands' own parsers, before anything runs."""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import yaml

from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.stages import Stage, refusals


def check_options(stages: Iterable[Stage]) -> None:
    """Raises UserError naming every stage whose options its command refuses, or whose extra is not installed.

    In a process of its own: the commands load torch, TRL and LLaMA-Factory, and may take hold of a GPU.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        problems = process.submit(problems_of, list(stages)).result()
    if problems:
        raise UserError("\n".join(["nothing was run:", *problems]))


def problems_of(stages: Iterable[Stage]) -> list[str]:
    """A line for each key of the benchmark's YAML whose options are refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "options.yaml"
        return [problem.replace(f"{path}: ", "") for problem in refusals(stages, lambda stage: ask(stage, path))]


def ask(stage: Stage, path: Path) -> None:
    """Lets the command's own parser read the options from a file, as it will. Raises what it raises."""
    path.write_text(yaml.safe_dump(stage.options, allow_unicode=True), encoding="utf-8")
    if stage.key == "sft":
        from mimigenrec.sft import checks  # loads torch, as the module of every command that trains does

        _, args = stage.command.read_arguments([str(path)])
        checks.check_keys(args, ours=[field.name for field in fields(stage.command.SftConfig)])
        checks.check_extras(args)
        return
    parsed = parse(*stage.configs, argv=[str(path)])
    if stage.key == "preprocess" or stage.key.startswith("baselines: "):
        stage.command.check(*parsed)
    if stage.key == "grpo":
        stage.command.load_rewards(parsed[0].rewards, parsed[0].reward_args)
