import importlib
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional, Union, get_type_hints

from mimigenrec.cli import COMMANDS, arg
from mimigenrec.flags import add_fields

TEXTS = [
    "",
    "x",
    "1",
    "-2",
    "0.5",
    "1e-4",
    "inf",
    "true",
    "False",
    "no",
    "index",
    "vocab",
    "steps",
    "linear",
    "a/b",
    "x y",
]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class EveryKind:
    """All that a field may be."""

    text: str
    path: Path
    one_of: Literal["a", "b", 3]
    colour: Colour
    must: bool
    many: list[int]
    number: int = 1
    maybe: int | None = None
    old_maybe: Optional[float] = None  # noqa: UP045
    on: bool = True
    off: bool = False
    open_on: bool | None = True
    open_end: bool | None = None
    maybe_one_of: Literal["a", "b"] | None = None
    colour_or_text: Union[Colour, str] = Colour.RED  # noqa: UP007
    text_or_bool: Union[str, bool] = "all"  # noqa: UP007
    text_or_list: Union[str, list[str]] = ""  # noqa: UP007
    maybe_list: list[float] | None = None
    map_or_text: Union[dict, str, None] = None  # noqa: UP007
    map: dict[str, Any] | None = None
    names: list[str] = arg("names", factory=lambda: ["a", "b"])
    bounded: float = arg("a number", default=0.5, least=0, aliases=["limited"])


def frameworks() -> list[type]:
    from llamafactory import hparams

    names = "ModelArguments DataArguments TrainingArguments FinetuningArguments GeneratingArguments".split()
    return [getattr(hparams, name) for name in names]


def configs() -> list[type]:
    """Each config of each command once, GRPOConfig's fields in ours; and those of LLaMA-Factory."""
    mains = [importlib.import_module(module).main for module, _ in COMMANDS.values()]
    hints = [hint for main in mains for hint in get_type_hints(main).values() if is_dataclass(hint)]
    return [EveryKind, *dict.fromkeys(hints), *frameworks()]


def read(type_: Any, text: str) -> Any:
    try:
        return type_(text)
    except (ValueError, TypeError, ArgumentTypeError):
        return "refused"


def test_every_field_of_every_config_is_read_as_by_transformers():
    from transformers import HfArgumentParser

    for config in configs():
        ours = add_fields(ArgumentParser(), config)

        class Reference(HfArgumentParser):
            def add_argument(self, *names, range=None, aliases=(), **kwargs):
                return super().add_argument(*(name for name in names if name.startswith("-")), **kwargs)

        reference = {}
        for action in Reference(config)._actions:
            if action.dest != "help":
                reference.setdefault(action.dest, action)
        assert (
            {action.dest for action in ours.values()} == reference.keys() == {f.name for f in fields(config) if f.init}
        )
        for name, expected in reference.items():
            for key in ("nargs", "const", "default", "required", "choices"):
                assert getattr(ours[name], key) == getattr(expected, key), f"{config.__name__}.{name}: {key}"
            if expected.type is dict or getattr(expected.type, "__origin__", None) is dict:
                assert ours[name].type('{"a": 1}') == {"a": 1}  # there, a text is no map
            elif isinstance(expected.type, type) and not issubclass(expected.type, (int, float, str, Path)):
                assert ours[name].type is expected.type
            else:
                results = {text: (read(ours[name].type, text), read(expected.type, text)) for text in TEXTS}
                assert not {text: pair for text, pair in results.items() if repr(pair[0]) != repr(pair[1])}, name
