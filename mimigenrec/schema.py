"""What the values of a JSON file must be, said as data, and one message for a value that is something else.

    str  int  float  bool  dict       a text, a whole number, a finite number, true or false, any map
    None                              null
    [schema]                          a list of such values
    {str: schema}                     a map of such values, whatever its keys
    {"key": schema, "key?": schema}   a map that has these keys; one with "?" may be missing; other keys are left alone
    (schema, schema)                  any of these

A reader says what it needs, `read_rows(path, {"user": str, "history": [str], "brand?": (str, None)}, made_by=...)`,
and its errors name file, row, key, what stands there and what is wanted.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, read_json_lines

Schema = type | list | dict | tuple | None
WORDS = {  # of one value, of several
    str: ("a text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "values true or false"),
    dict: ("a map", "maps"),
    None: ("null", "nulls"),
}
LONGEST = 80  # characters of a value that an error shows


def read_rows(path: str | Path, schema: dict[str, Schema], made_by: str) -> list[dict[str, Any]]:
    """The rows of a JSON list, or of a .jsonl, at least one, each of them a map of this schema.

    Raises as read_json and check do.
    """
    rows = read_json_lines(path) if str(path).endswith(".jsonl") else read_json(path, made_by, kind=list)
    if not rows:
        raise UserError(f"{path} must hold at least one row, found none; it comes from {made_by}")
    for i, row in enumerate(rows):
        check(row, schema, f"{path}, row {i}", f"it comes from {made_by}")
    return rows


def read_map(path: str | Path, schema: dict, made_by: str) -> dict[str, Any]:
    """A JSON map of this schema. Raises as read_json and check do."""
    content = read_json(path, made_by, kind=dict)
    check(content, schema, str(path), f"it comes from {made_by}")
    return content


def check(value: Any, schema: Schema, place: str, remedy: str = "") -> None:
    """Raises UserError naming place and key of the first value that is not what its schema says.

    place    the file, and the row in it, for the error
    remedy   what to do, or where such values come from
    """
    for fault in faults(value, schema):
        raise UserError(f"{place}: {fault}" + (f"; {remedy}" if remedy else ""))


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is what its schema says."""
    return next(faults(value, schema), None) is None


def faults(value: Any, schema: Schema, key: str = "") -> Iterator[str]:
    """What is wrong with a value, in words, fault by fault. key: where in the row it stands, "prompt[0].role"."""
    if isinstance(schema, list) and isinstance(value, list):
        inner = schema[0]
        for i, one in enumerate(value):
            if not is_plain(one, inner):
                yield from faults(one, inner, f"{key}[{i}]")
    elif isinstance(schema, dict) and isinstance(value, dict):
        inside = f"{key}." if key else ""
        for name, inner in ((name, schema[str]) for name in value) if str in schema else schema.items():
            plain = name.removesuffix("?") if str not in schema else name
            if plain in value:
                if not is_plain(value[plain], inner):
                    yield from faults(value[plain], inner, inside + plain)
            elif plain == name:
                yield f"{inside}{plain} is missing, which must be {words(inner)}; found {shown(value)}"
    elif not (any(fits(value, one) for one in schema) if isinstance(schema, tuple) else is_plain(value, schema)):
        yield f"{key} must be {words(schema)}, found {shown(value)}".lstrip()


def is_plain(value: Any, schema: Schema) -> bool:
    """Whether a value is of a kind that has no parts; true and false are no numbers."""
    if schema is str:  # nearly all values, and files hold millions
        return isinstance(value, str)
    if schema is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max  # NaN is not, nor a whole number that no float can hold
    if schema is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if schema is None else isinstance(schema, type) and isinstance(value, schema)


def words(schema: Schema, several: bool = False) -> str:
    """A schema as a message says it: "a list of maps with 'role' and 'content'"."""
    if isinstance(schema, tuple):
        return " or ".join(words(one, several) for one in schema)
    if isinstance(schema, list):
        return ("lists of " if several else "a list of ") + words(schema[0], several=True)
    if isinstance(schema, dict):
        if str in schema:
            return ("maps of " if several else "a map of ") + words(schema[str], several=True)
        needed = [repr(name) for name in schema if not name.endswith("?")]
        keys = " and ".join([", ".join(needed[:-1]), needed[-1]] if needed[1:] else needed)
        return WORDS[dict][several] + (f" with {keys}" if keys else "")
    return WORDS[schema][several]


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
