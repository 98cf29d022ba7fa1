"""The fields of dataclasses as flags of an ArgumentParser: `--name`, with type, choices, default and help.

A text on the command line becomes the same value as with transformers' HfArgumentParser, which users of TRL and
LLaMA-Factory know and tests/test_flags.py compares with, field by field. That one loads torch, and its help hides a
command's own options behind two hundred others. Here `--help` lists them first, then the options of each class of a
framework below a heading of its own; it marks what is required and shows a default where there is one.

A field made by `cli.arg` is ours. The metadata of a field are arguments of add_argument; two of them argparse does not
know: `aliases`, further names, and `range`, the bounds of a number.
"""

import json
from argparse import Action, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints


class Placed(NamedTuple):
    """A field with its type and its place in the help."""

    rank: int  # 0 for ours; for one of a framework, how far up the class is that has it
    heading: str
    field: Field
    hint: Any


def add_fields(parser: ArgumentParser, *configs: type) -> dict[str, Action]:
    """Adds a flag per field; returns the flags by name, those with aliases by each of these too.

    A bool that is true by default gets a second flag, --no_<name>, which is not among those returned.
    """
    groups: dict[str, Any] = {}
    flags: dict[str, Action] = {}
    for _, heading, field, hint in sorted(placed(configs, parser.prog), key=lambda one: one.rank):
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        names = names_of(field)
        action = groups[heading].add_argument(*(f"--{name}" for name in names), **arguments(field, hint))
        flags |= dict.fromkeys(names, action)
        if action.type is true_or_false and field.default is True:
            groups[heading].add_argument(
                f"--no_{field.name}", dest=field.name, action="store_false", help=f"turns off --{field.name}"
            )
    return flags


def placed(configs: Sequence[type], prog: str) -> Iterator[Placed]:
    for config in configs:
        hints = get_type_hints(config)
        for field in fields(config):
            rank, heading = 0, f"options of {prog}" if config is configs[0] else config.__doc__.strip().rstrip(".")
            if "range" not in field.metadata:
                definers = [base for base in config.__mro__ if field.name in base.__dict__.get("__annotations__", {})]
                rank = config.__mro__.index(definers[-1])
                heading = f"options of {definers[-1].__module__.partition('.')[0]} ({definers[-1].__name__})"
            if field.init:
                yield Placed(rank, heading, field, hints[field.name])


def names_of(field: Field) -> list[str]:
    """Its name, then its aliases, without dashes."""
    aliases = field.metadata.get("aliases", ())
    return [field.name, *(alias.lstrip("-") for alias in ([aliases] if isinstance(aliases, str) else aliases))]


def arguments(field: Field, hint: Any) -> dict[str, Any]:
    """What ArgumentParser.add_argument takes for a field of this type."""
    kwargs: dict[str, Any] = {"dest": field.name, "metavar": "VALUE", "type": (hint := one_type(hint))}
    kwargs |= {key: value for key, value in field.metadata.items() if key not in ("aliases", "range")}
    if field.default is not MISSING or field.default_factory is not MISSING:
        kwargs["default"] = field.default if field.default is not MISSING else field.default_factory()
    elif hint is bool:
        kwargs["default"] = False
    else:
        kwargs["required"] = True
    if get_origin(hint) is Literal or isinstance(hint, type) and issubclass(hint, Enum):
        kwargs["choices"] = get_args(hint) or [member.value for member in hint]
        kwargs["type"] = choice(kwargs["choices"])
    elif hint in (bool, bool | None):
        kwargs |= {"type": true_or_false, "metavar": "true|false"}
        if hint is bool or kwargs.get("default") is not None:
            kwargs |= {"nargs": "?", "const": True}  # --name alone is true
    elif get_origin(hint) is list:
        kwargs |= {"type": get_args(hint)[0], "nargs": "+"}
        if field.default is not MISSING:
            kwargs["default"] = None  # transformers passes on no default that is a text
    elif dict in (hint, get_origin(hint)):
        kwargs |= {"type": json_map, "metavar": "JSON"}
    if "choices" in kwargs:
        del kwargs["metavar"]  # argparse shows the choices in its place
    elif kwargs["type"] in (int, float, str, Path):
        kwargs["metavar"] = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}[kwargs["type"]]
    notes = [in_words(field.metadata.get("range", {})), "required" if "required" in kwargs else ""]
    notes.append("default: %(default)s" if kwargs.get("default") is not None else "")
    kwargs["help"] = " ".join([kwargs.get("help", ""), *(f"({note})" for note in notes if note)])
    return kwargs


def one_type(hint: Any) -> Any:
    """The type by which a text is read, of X | None, X | str and the like. A bool may be None as well."""
    members = get_args(hint)
    if get_origin(hint) not in (Union, UnionType) or hint == bool | None:
        return hint
    if NoneType in members:
        return members[0] if members[1] is NoneType else members[1]
    return members[0] if members[1] is str else members[1]


def in_words(bounds: dict[str, float]) -> str:
    """{"least": 0, "below": 1} -> at least 0 and below 1"""
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    return " and ".join(f"{words[word]} {bounds[word]}" for word in words if bounds.get(word) is not None)


def true_or_false(text: str) -> bool:
    """Raises ArgumentTypeError for any other word."""
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise ArgumentTypeError(f"{text!r} is none of yes/no, true/false, t/f, y/n, 1/0")


def json_map(text: str) -> dict[str, Any]:
    """Raises ValueError for text that is no JSON, and ArgumentTypeError for JSON that is no map."""
    if not isinstance(value := json.loads(text), dict):
        raise ArgumentTypeError(f'{text!r} is no map; give {{"key": value}}')
    return value


def choice(choices: Sequence[Any]) -> Callable[[str], Any]:
    """The one of the choices that is spelled like the text; argparse refuses a text that is none."""
    by_text = {str(one): one for one in choices}
    return lambda text: by_text.get(text, text)
