"""One way to start every command: `mimigenrec <command> x.yaml --key value key=value`, in a wing `mimigenrec <wing>
<command> ...`.

A command is a module with one config dataclass (or several) and `main`, and ends with `start(main, Config)`. Its
fields are its flags; a YAML file gives the same names. Flags and YAML values pass through the same argparse types,
choices and ranges, so a wrong key, type or number stops the run whichever way it came in.

What stops a run is one message on stderr, `error: ...`:

exit status 2   the command line or the YAML cannot be meant
exit status 1   a UserError, or one of a few errors of the system (a missing file, a full disk, no memory, Ctrl-C). The
                traceback is shown with MIMIGENREC_DEBUG=1
                any other exception is a fault of ours: its traceback stays, with a line that says what to report

Of the processes that torchrun starts, the first speaks. The others give it SPEAKS_FIRST seconds to end, since torchrun
then ends them; what one of them alone has met is printed after that.
"""

import difflib
import json
import math
import os
import runpy
import select
import sys
import time
import traceback
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, field, fields
from errno import ENOSPC
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

from mimigenrec.errors import UsageError, UserError
from mimigenrec.files import read_text
from mimigenrec.flags import add_fields, in_words

SPEAKS_FIRST = 20.0  # seconds that the first process may be behind the others

Command = tuple[str, str]  # its module, and what it makes of what

STAGES: dict[str, dict[str, Command]] = {  # as the data flow
    "raw data": {
        "prepare": ("mimigenrec.prepare", "raw logs -> sequences, item vectors, SIDs and a report on them"),
        "interactions": ("mimigenrec.interactions.build", "raw logs -> items, users, sequences, train, valid, test"),
    },
    "item vectors and SIDs": {
        "embed": ("mimigenrec.vectors.embed", "item texts -> item vectors"),
        "embed-als": ("mimigenrec.vectors.als", "train interactions -> item vectors"),
        "fuse": ("mimigenrec.vectors.fuse", "several item vectors -> one"),
        "quantise": ("mimigenrec.sids.quantise", "item vectors -> SIDs and codebooks"),
        "sid-assign": ("mimigenrec.sid_assign", "SIDs for new items, removed items out, the rest as it was"),
        "sid-report": ("mimigenrec.sid_report.build", "index.json -> are these SIDs worth training on?"),
    },
    "training rows": {
        "preprocess": ("mimigenrec.tasks.build", "interactions and SIDs -> SFT and RL rows"),
    },
    "SFT": {
        "make-base": ("mimigenrec.sft.make_base", "sft/train.json -> a small Qwen2 from scratch with its tokenizer"),
        "add-sids": ("mimigenrec.sft.add_sids", "base model + SID tokens -> prepared base"),
        "sft": ("mimigenrec.sft.train", "prepared base + SFT rows -> SFT checkpoint (LLaMA-Factory)"),
        "merge": ("mimigenrec.training.merge", "LoRA adapter + its base -> a whole checkpoint"),
    },
    "RL": {
        "rewards-preview": ("mimigenrec.grpo.preview", "rewards and advantages of a few groups, before training"),
        "grpo": ("mimigenrec.grpo.train", "SFT checkpoint + RL rows -> RL checkpoint (TRL)"),
    },
    "evaluation": {
        "evaluate": ("mimigenrec.evaluation.run", "checkpoint + test rows -> metrics"),
        "baseline": ("mimigenrec.baselines.train", "popularity to SASRec and TIGER: the same rows, the same metrics"),
        "benchmark": ("mimigenrec.benchmark.run", "every chosen method on the same rows, then one report"),
        "compare": ("mimigenrec.evaluation.compare", "two results: paired tests, what differs in their manifests"),
        "report": ("mimigenrec.report.build", "results -> one page: verdict, tests, curves, slices, users"),
        "plot": ("mimigenrec.plots", "training curves and metric bars"),
    },
    "serving": {
        "recommend": ("mimigenrec.decoding.recommend", "checkpoint + histories -> items"),
    },
    "environment": {
        "env": ("mimigenrec.environment.report", "versions, imports, GPUs: what could run here, and what to install"),
    },
}
WINGS: dict[str, tuple[str, dict[str, Command]]] = {}  # name: (what it is for, its commands)

COMMANDS = {name: command for stage in STAGES.values() for name, command in stage.items()} | {
    f"{wing} {name}": command for wing, (_, commands) in WINGS.items() for name, command in commands.items()
}


def arg(help: str, default: Any = MISSING, factory: Any = MISSING, aliases: Sequence[str] = (), **range: float) -> Any:
    """A dataclass field that is a flag: its help text, and its default or a function that makes it.

    aliases   further names of it, each a flag and a YAML key too: ["data_dir"]
    range     of a number, or of each number of a list: least, most (inclusive), above, below (exclusive). Floats must
              be finite without saying so
    """
    return field(default=default, default_factory=factory, metadata={"help": help, "aliases": aliases, "range": range})


def start(main: Callable, *configs: type, argv: list[str] | None = None) -> None:
    """Runs main with one instance per dataclass, as `parse` fills them; an error ends the process with its message."""
    with one_message():
        main(*parse(*configs, argv=argv))


@contextmanager
def one_message() -> Iterator[None]:
    """Ends the process with status 1 and one message when the block raises; see the module."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(1)
        let_the_first_speak()
        text = message(error)
        if text is None or os.environ.get("MIMIGENREC_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        if text is None:
            text = (
                f"{type(error).__name__} is a fault of mimigenrec, not of yours: please report the lines above, the "
                f"command, and what `mimigenrec env` prints"
            )
        print(f"error: {text}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def let_the_first_speak() -> None:
    """Waits, in the other processes that torchrun started, for the end that they meet when the first has ended."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(SPEAKS_FIRST)


def _nobody_reads() -> bool:
    """Whether whoever read our output has gone, as `| head` does; what is left of it then goes nowhere."""
    look = select.poll()
    look.register(sys.stdout.fileno(), select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in look.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def message(error: BaseException) -> str | None:
    """What a user needs to know of an error that is no fault of ours; None for all others."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from what is written"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in type(error).__name__ or _no_memory(error):
        first = str(error).strip().partition("\n")[0]
        return f"memory ran out ({first or 'MemoryError'}); use smaller batches, or a machine with more memory"
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else error.filename2
        where = f"{name}: " if name is not None else ""
        if error.errno == ENOSPC:
            return f"{where}no space left on the disk; free some and run the same command again"
        if where:
            remedy = {
                FileNotFoundError: "there is no such file or folder; correct the path",
                PermissionError: "no permission to read or write it; change its mode, or take another path",
                IsADirectoryError: "this is a folder, and a file is needed; correct the path",
                NotADirectoryError: "a part of this path is a file, not a folder; correct the path",
                FileExistsError: "a file of that name is there already; remove it, or take another path",
            }
            return where + remedy.get(type(error), error.strerror or str(error))
        return str(error)
    return None


def _no_memory(error: BaseException) -> bool:
    """torch has no class of its own for an allocation that fails on the CPU."""
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def check_range(name: str, value: Any, least=None, most=None, above=None, below=None) -> None:
    """Raises UserError naming the setting if a number, or one of a list, is outside its range or is not finite."""
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            continue
        inside = (
            math.isfinite(one)
            and (least is None or one >= least)
            and (most is None or one <= most)
            and (above is None or one > above)
            and (below is None or one < below)
        )
        if not inside:
            bounds = {"least": least, "most": most, "above": above, "below": below}
            wanted = in_words(bounds)
            if not math.isfinite(one):
                wanted = f"{wanted} and finite" if wanted else "a finite number"
            raise UserError(f"{name} is {one}; it must be {wanted}")


def check_ranges(config: Any) -> None:
    """The same for every number of a config dataclass, by the ranges that `arg` was given."""
    for one in fields(config):
        check_range(f"--{one.name}", getattr(config, one.name), **one.metadata.get("range", {}))


def parse(*configs: type, argv: list[str] | None = None, usage: str = "[x.yaml] [--key value ...]") -> tuple:
    """One instance per dataclass, from a YAML file, then flags, which win.

    argv (default: the command line) may hold `x.yaml` first or `--config x.yaml`, `--key value`, `key=value`.
    Exits with status 2 and a message on an unknown key, a wrong type or choice, or a number out of its range.
    """
    parser = OneMessageParser(usage=f"%(prog)s {usage}", allow_abbrev=False, description=configs[0].__doc__)
    parser.add_argument(
        "--config", metavar="YAML", default=SUPPRESS, help="file with any of these keys; flags win over it"
    )
    actions = add_fields(parser, *configs)
    argv = list(sys.argv[1:] if argv is None else argv)
    config_file, rest = _take_config(argv, parser)
    flags = [_as_flag(token, actions) for token in rest]
    _refuse_two_names([flag[2:].partition("=")[0] for flag in flags if flag.startswith("--")], actions, parser)
    types = {name: _types(hint) for config in configs for name, hint in get_type_hints(config).items()}
    args = (_yaml_flags(config_file, actions, types, parser) if config_file else []) + flags
    values, unknown = parser.parse_known_args(args)
    if unknown:
        key = unknown[0].lstrip("-").partition("=")[0]
        near = difflib.get_close_matches(key, actions, n=1)
        parser.error(f"unknown argument {unknown[0]!r}" + (f"; did you mean --{near[0]}?" if near else ""))
    try:
        filled = [config(**{f.name: getattr(values, f.name) for f in fields(config) if f.init}) for config in configs]
        for config in filled:
            check_ranges(config)
    except ValueError as error:  # a dataclass of TRL or transformers checks itself when it is made
        parser.error(str(error))
    return tuple(filled)


def _as_flag(token: str, actions: dict[str, Action]) -> str:
    """key=value as --key=value, and --a-key as --a_key; other words as they are."""
    name, equals, value = token.partition("=")
    if name.startswith("--"):
        return f"--{name[2:].replace('-', '_')}{equals}{value}"
    return f"--{token}" if equals and name in actions else token


def _refuse_two_names(
    names: Iterable[str], actions: dict[str, Action], parser: ArgumentParser, place: str = ""
) -> None:
    """Stops at an option that is given by its name and by an alias, of which one value would be lost."""
    first: dict[str, str] = {}
    for name in names:
        if name in actions:
            other = first.setdefault(actions[name].dest, name)
            if other != name:
                parser.error(f"{place}'{other}' and '{name}' are two names of one option; give one of them")


class OneMessageParser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse puts the usage before it."""
        let_the_first_speak()
        self.exit(2, f"error: {message}\n{self.prog} --help lists what it takes\n")


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            place = f"line {node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{twice[0]!r} is given twice in the map that begins at {place}; keep one of them")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """The plain values in a YAML file, {} for an empty one: UniqueKeys is a SafeLoader and makes nothing else.

    Raises FileNotFoundError, and UserError naming the file and the line if it is not YAML or holds a key twice.
    """
    try:
        return UniqueKeys(read_text(path)).get_single_data() or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error


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


def yaml_file() -> Path | None:
    """The file that the command line of this process names; None without one."""
    return _take_config(sys.argv[1:], OneMessageParser())[0]


def _yaml_flags(path: Path, actions: dict[str, Action], types: dict[str, set], parser: ArgumentParser) -> list[str]:
    if not path.is_file():
        parser.error(f"{path} is missing")
    try:
        content = read_yaml(path)
    except UserError as error:
        parser.error(str(error))
    if not isinstance(content, dict):
        parser.error(f"{path} holds {type(content).__name__}, not a map of keys to values")
    _refuse_two_names(map(str, content), actions, parser, f"{path}: ")
    flags = []
    for key, value in content.items():
        if key not in actions:
            near = difflib.get_close_matches(str(key), actions, n=1)
            parser.error(f"{path}: unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        if value is None:
            continue  # an empty value keeps the default
        texts = _texts(path, key, value, actions[key], types[actions[key].dest], parser)
        flags += [f"--{key}", *texts] if actions[key].nargs in ("+", "*") else [f"--{key}={texts[0]}"]
    return flags


def _texts(path: Path, key: str, value: Any, action: Action, types: set, parser: ArgumentParser) -> list[str]:
    """The value as argparse would meet it on the command line, checked so that an error can name file and key."""
    takes_many = action.nargs in ("+", "*")
    if isinstance(value, list) and not takes_many:
        parser.error(f"{path}: '{key}' takes one value, found the list {value}")
    texts = []
    for part in value if isinstance(value, list) else [value]:
        text = json.dumps(part) if isinstance(part, dict) else str(part)
        if part is False and "no" in (action.choices or ()):  # YAML reads a bare no as false
            part = text = "no"
        try:
            typed = action.type(text) if action.type else text
        except (ValueError, TypeError, ArgumentTypeError):
            wanted = getattr(action.type, "__name__", "value").replace("_", " ")
            parser.error(f"{path}: '{key}' wants {wanted}, found {part!r}")
        mixed_up = action.type in (str, Path) and isinstance(part, (bool, dict, list)) and type(part) not in types
        if mixed_up or action.choices and typed not in action.choices:
            wanted = f"one of {', '.join(map(str, action.choices))}" if action.choices else "text"
            parser.error(f"{path}: '{key}' wants {wanted}, found {part!r}")
        texts.append(text)
    return texts


def main() -> None:
    """`mimigenrec <command> ...` or `mimigenrec <wing> <command> ...`: runs its module as `python -m` would."""
    prog, words, stages = "mimigenrec", sys.argv[1:], STAGES
    if words and words[0] in WINGS:
        prog, words, stages = f"mimigenrec {words[0]}", words[1:], {words[0]: WINGS[words[0]][1]}
    if not words or words[0] in ("-h", "--help"):
        print(_overview(prog, stages))
        return
    commands = {name: command for stage in stages.values() for name, command in stage.items()}
    if words[0] not in commands:
        near = difflib.get_close_matches(words[0], [*commands, *(WINGS if stages is STAGES else ())], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"{prog} --help lists them"
        print(f"error: {prog} has no command '{words[0]}'; {hint}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{prog} {words[0]}", *words[1:]]
    with one_message():  # what is raised while its modules are loaded, too
        runpy.run_module(commands[words[0]][0], run_name="__main__", alter_sys=False)


def _overview(prog: str, stages: dict[str, dict[str, Command]]) -> str:
    """The commands by stage, and below those of the spine the wings."""
    lines = {heading: {name: what for name, (_, what) in stage.items()} for heading, stage in stages.items()}
    if stages is STAGES and WINGS:
        lines["wings (mimigenrec <wing> --help lists the commands of one)"] = {
            w: what for w, (what, _) in WINGS.items()
        }
    width = max(len(name) for rows in lines.values() for name in rows)
    text = f"usage: {prog} <command> [x.yaml] [--key value ...]\n"
    for heading, rows in lines.items():
        text += f"\n{heading}:\n" + "".join(f"  {name:<{width}}  {what}\n" for name, what in rows.items())
    return f"{text}\n{prog} <command> --help lists what a command takes."


if __name__ == "__main__":
    main()
