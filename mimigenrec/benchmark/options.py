"""What a stage is told: the user's options, and over them what the benchmark sets itself.

    {key: value}                             options of the stage's command
    {config: x.yaml, key: value}             those of a file, the keys over them
    {config: [x.yaml, y.yaml], key: value}   those of several files, a later one over an earlier one
    x.yaml                                   those of a file

What the benchmark sets may stand in a file, so that one made for the command alone can be used as it is; in a map it
is refused.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mimigenrec.cli import read_yaml
from mimigenrec.errors import UserError
from mimigenrec.rewarding import reward_folders

WHY = {  # a key that the benchmark sets -> where it is told instead
    "raw": "it is given once, at the top",
    "data_dir": "it is given once, at the top, as raw",
    "category": "it is given once, at the top",
    "split": "it is given once, at the top",
    "seed": "seeds, at the top, lists them",
    "k": "evaluate: {k: ...} holds for all methods",
    "limit": "evaluate: {limit: ...} holds for all methods",
    "overwrite": "changed: rerun, at the top, makes stages anew",
}
Options = dict[str, Any]


def given(key: str, user: Options | str | None) -> Options:
    """All that the user says under `key`. Raises FileNotFoundError or UserError if a file cannot be read as a map."""
    file, own = _file_and_map(key, user)
    return file | own


def merged(key: str, user: Options | str | None, ours: Options) -> Options:
    """The user's options and ours, as JSON has them. An option that is None in ours is not set at all.

    Raises UserError for an option of ours in the user's map, and what `given` raises.
    """
    file, own = _file_and_map(key, user)
    ours = {"overwrite": None} | ours
    for name in own:
        if name in ours:
            why = WHY.get(name, "the stages hand each other their folders")
            raise UserError(f"{key}: '{name}' is set by the benchmark ({why}); leave it out here")
    whole = {name: value for name, value in {**file, **own, **ours}.items() if value is not None}
    return json.loads(json.dumps(whole, default=str))


def files_in(value: Any) -> tuple[Path, ...]:
    """Files that options name (deepspeed: x.json): what they hold matters too."""
    if isinstance(value, dict):
        return tuple(path for inner in value.values() for path in files_in(inner))
    if isinstance(value, list):
        return tuple(path for inner in value for path in files_in(inner))
    return (Path(value),) if isinstance(value, str) and Path(value).is_file() else ()


def as_list(value: Any) -> list:
    """A list in YAML may be one value alone."""
    return value if isinstance(value, list) else [value]


def reward_files(names: Iterable[str]) -> list[Path]:
    """The files of those rewards that are given as file.function."""
    files = []
    for module in dict.fromkeys(str(name).rpartition(".")[0] for name in names if ":" not in str(name)):
        files += [path for folder in reward_folders() if (path := folder / f"{module}.py").is_file()][:1]
    return files


def _file_and_map(key: str, user: Options | str | None) -> tuple[Options, Options]:
    own = {"config": user} if isinstance(user, str) else user if user is not None else {}
    if not isinstance(own, dict):
        raise UserError(f"{key}: found {user!r}; it takes a map of options or a YAML file")
    layers = [_file(key, path) for path in as_list(own.get("config") or [])]
    file = {name: value for layer in layers for name, value in layer.items()}  # a later file wins
    return file, {name: value for name, value in own.items() if name != "config"}


def _file(key: str, path: Any) -> Options:
    if not isinstance(path, (str, Path)):
        raise UserError(f"{key}: config names {path!r}; it takes a YAML file or a list of them")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key}: {path} is missing; it takes a map of options or a YAML file")
    try:
        file = read_yaml(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if not isinstance(file, dict):
        raise UserError(f"{key}: {path} holds {type(file).__name__}, not a map of keys to values")
    return file
