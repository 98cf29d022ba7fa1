"""One way to start every command: `mimigenrec <command> x.yaml --key value key=value`.

A command is a module with one config dataclass (or several) and `main`. Its fields are its flags; a YAML file gives
the same names. Flags and YAML values pass through the same argparse types and choices, so a wrong key, type or choice
stops the run whichever way it came in.
"""

import difflib
import json
import runpy
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from dataclasses import MISSING, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

COMMANDS = {
    "prepare": ("mimigenrec.sids.prepare", "raw logs -> sequences, item vectors, SIDs and a report on them"),
    "interactions": ("mimigenrec.interactions.build", "raw logs -> items, users, sequences, train, valid and test"),
    "embed": ("mimigenrec.sids.embed", "item texts -> item vectors"),
    "embed-als": ("mimigenrec.sids.collaborative", "train interactions -> item vectors"),
    "fuse": ("mimigenrec.sids.fuse", "several item vectors -> one"),
    "quantise": ("mimigenrec.sids.quantise", "item vectors -> SIDs and codebooks"),
    "sid-assign": ("mimigenrec.sid_assign", "SIDs for new items, removed items out, the rest as it was"),
    "sid-report": ("mimigenrec.sids.doctor", "index.json -> are these SIDs worth training on?"),
    "preprocess": ("mimigenrec.tasks.build", "interactions and SIDs -> SFT and RL rows"),
    "make-base": ("mimigenrec.sft.make_base", "sft/train.json -> a small Qwen2 from scratch with its tokenizer"),
    "add-sids": ("mimigenrec.sft.add_sids", "base model + SID tokens -> prepared base"),
    "sft": ("mimigenrec.sft.train", "prepared base + SFT rows -> SFT checkpoint (LLaMA-Factory)"),
    "grpo": ("mimigenrec.grpo.train", "SFT checkpoint + RL rows -> RL checkpoint (TRL)"),
    "rewards-preview": ("mimigenrec.grpo.preview", "rewards and advantages of a few groups, before training"),
    "evaluate": ("mimigenrec.evaluation.run", "checkpoint + test rows -> metrics"),
    "baseline": ("mimigenrec.baselines.train", "popularity to SASRec and TIGER: the same rows, the same metrics"),
    "benchmark": ("mimigenrec.benchmark.run", "every chosen method on the same rows, then one report"),
    "compare": ("mimigenrec.evaluation.compare", "two results: paired tests, what differs in their manifests"),
    "report": ("mimigenrec.evaluation.report", "several results -> one page: verdict, tests, curves, slices, users"),
    "recommend": ("mimigenrec.decoding.recommend", "checkpoint + histories -> items"),
    "env": ("mimigenrec.environment.report", "versions, imports, GPUs: what could run here, and what to install"),
    "plot": ("mimigenrec.plots", "training curves and metric bars"),
}


def arg(help: str, default: Any = MISSING, factory: Any = MISSING) -> Any:
    """A dataclass field that is a flag: its help text, and its default or a function that makes it."""
    return field(default=default, default_factory=factory, metadata={"help": help})


def parse(*configs: type, argv: list[str] | None = None) -> tuple:
    """One instance per dataclass, from a YAML file, then flags, which win.

    argv (default: the command line) may hold `x.yaml` first or `--config x.yaml`, `--key value`, `key=value`.
    Exits with status 2 and a message on an unknown key or a value of the wrong type or choice, as argparse does.
    """
    from transformers import HfArgumentParser  # loads torch

    parser = HfArgumentParser(configs, allow_abbrev=False, description=configs[0].__doc__)
    parser.add_argument(
        "--config", metavar="YAML", default=SUPPRESS, help="file with any of these keys; flags win over it"
    )
    fields: dict[str, Action] = {}
    for action in parser._actions:
        if action.dest not in ("help", "config"):
            fields.setdefault(action.dest, action)  # the first: a bool that is true also has a --no_ flag
            if action.type is dict or get_origin(action.type) is dict:
                action.type = json.loads
    argv = list(sys.argv[1:] if argv is None else argv)
    config_file, rest = _take_config(argv, parser)
    flags = []
    for token in rest:
        name, equals, value = token.partition("=")
        flags.append(f"--{name}={value}" if equals and name in fields else token)
    types = {name: _types(hint) for config in configs for name, hint in get_type_hints(config).items()}
    args = (_yaml_flags(config_file, fields, types, parser) if config_file else []) + flags
    unknown = parser.parse_known_args(args)[1]
    if unknown:
        key = unknown[0].lstrip("-").partition("=")[0]
        near = difflib.get_close_matches(key, fields, n=1)
        parser.error(f"unknown argument {unknown[0]!r}" + (f"; did you mean --{near[0]}?" if near else ""))
    return tuple(parser.parse_args_into_dataclasses(args=args, look_for_args_file=False))


def _types(hint: Any) -> set[Any]:
    """The types that an annotation allows for one value: dict | list[str] | None -> {dict, str, NoneType}."""
    if get_origin(hint) in (Union, UnionType, list):
        return set().union(*map(_types, get_args(hint)))
    return {get_origin(hint) or hint}


def _take_config(argv: list[str], parser: ArgumentParser) -> tuple[Path | None, list[str]]:
    if argv and argv[0].endswith((".yaml", ".yml")) and "=" not in argv[0]:
        return Path(argv[0]), argv[1:]
    for i, token in enumerate(argv):
        if token == "--config":
            if i + 1 == len(argv):
                parser.error("--config wants a YAML file")
            return Path(argv[i + 1]), argv[:i] + argv[i + 2 :]
        if token.startswith("--config="):
            return Path(token.removeprefix("--config=")), argv[:i] + argv[i + 1 :]
    return None, argv


def _yaml_flags(path: Path, fields: dict[str, Action], types: dict[str, set], parser: ArgumentParser) -> list[str]:
    if not path.is_file():
        parser.error(f"{path} is missing")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        parser.error(f"{path} is not YAML: {error}")
    if not isinstance(content, dict):
        parser.error(f"{path} holds {type(content).__name__}, not a map of keys to values")
    flags = []
    for key, value in content.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            parser.error(f"{path}: unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        if value is None:
            continue  # an empty value keeps the default
        texts = _texts(path, key, value, fields[key], types[key], parser)
        flags += [f"--{key}", *texts] if fields[key].nargs in ("+", "*") else [f"--{key}={texts[0]}"]
    return flags


def _texts(path: Path, key: str, value: Any, action: Action, types: set, parser: ArgumentParser) -> list[str]:
    """The value as argparse would meet it on the command line, checked so that an error can name file and key."""
    takes_many = action.nargs in ("+", "*")
    if isinstance(value, list) and not takes_many:
        parser.error(f"{path}: '{key}' takes one value, found the list {value}")
    texts = []
    for part in value if isinstance(value, list) else [value]:
        text = json.dumps(part) if isinstance(part, dict) else str(part)
        try:
            typed = action.type(text) if action.type else text
        except (ValueError, TypeError, ArgumentTypeError):
            wanted = getattr(action.type, "__name__", "value").replace("string_to_bool", "true or false")
            parser.error(f"{path}: '{key}' wants {wanted}, found {part!r}")
        mixed_up = action.type in (str, Path) and isinstance(part, (bool, dict, list)) and type(part) not in types
        if mixed_up or action.choices and typed not in action.choices:
            wanted = f"one of {', '.join(map(str, action.choices))}" if action.choices else "text"
            parser.error(f"{path}: '{key}' wants {wanted}, found {part!r}")
        texts.append(text)
    return texts


def main() -> None:
    """`mimigenrec <command> ...`: runs the command's module as `python -m` would."""
    asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if asked in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
        print("usage: mimigenrec <command> [x.yaml] [--key value ...]\n", *lines, sep="\n")
        print("\nmimigenrec <command> --help lists what a command takes.")
        return
    if asked not in COMMANDS:
        near = difflib.get_close_matches(asked, COMMANDS, n=1)
        sys.exit(f"mimigenrec: no command '{asked}'" + (f"; did you mean '{near[0]}'?" if near else "; see --help"))
    sys.argv = [f"mimigenrec {asked}", *sys.argv[2:]]
    runpy.run_module(COMMANDS[asked][0], run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
