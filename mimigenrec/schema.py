"""What the values of a JSON file must be, said as data, and one message for a value that is something else.

    str  int  float  bool  dict       a text, a whole number, any number, true or false, any map
    None                              null
    [schema]                          a list of such values
    {"key": schema, "key?": schema}   a map that has these keys; one with "?" may be missing; other keys are left alone
    (schema, schema)                  any of these

A reader says what it needs, `read_rows(path, {"user": str, "history": [str], "brand?": (str, None)}, made_by=...)`,
and its errors name file, row, key, what stands there and what is wanted.
"""

from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, read_json_lines

Schema = type | list | dict | tuple | None
WORDS = {  # of one value, of several
    str: ("a text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
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
        check(row, schema, f"{path}, row {i}")
    return rows


def read_map(path: str | Path, schema: Schema, made_by: str, entry: str = "key") -> dict[str, Any]:
    """A JSON map, every value of it of this schema (`entry`: what its keys are). Raises as read_json and check do."""
    content = read_json(path, made_by, kind=dict)
    for key, value in content.items():
        check(value, schema, f"{path}, {entry} {key!r}")
    return content


def check(value: Any, schema: Schema, place: str, key: str = "") -> None:
    """Raises UserError naming place and key of the first value that is not what its schema says.

    place   the file, and the row in it, for the error
    key     where in the row the value stands: "prompt[0].role"
    """
    if isinstance(schema, dict) and isinstance(value, dict):
        for name, inner in schema.items():
            inside = f"{key}.{name}" if key else name
            if name.removesuffix("?") in value:
                check(value[name.removesuffix("?")], inner, place, inside.removesuffix("?"))
            elif not name.endswith("?"):
                raise UserError(f"{place}: {inside} is missing, which must be {words(inner)}; found {shown(value)}")
    elif isinstance(schema, list) and isinstance(value, list):
        for i, one in enumerate(value):
            check(one, schema[0], place, f"{key}[{i}]")
    elif not fits(value, schema):
        raise UserError(f"{place}: {key}{' ' if key else ''}must be {words(schema)}, found {shown(value)}")


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is what its schema says."""
    if isinstance(schema, tuple):
        return any(fits(value, one) for one in schema)
    if isinstance(schema, list):
        return isinstance(value, list) and all(fits(one, schema[0]) for one in value)
    if isinstance(schema, dict):
        return isinstance(value, dict) and all(
            fits(value[name.removesuffix("?")], inner) if name.removesuffix("?") in value else name.endswith("?")
            for name, inner in schema.items()
        )
    return value is None if schema is None else type(value) in ((int, float) if schema is float else (schema,))


def words(schema: Schema, several: bool = False) -> str:
    """A schema as a message says it: "a list of maps with 'role' and 'content'"."""
    if isinstance(schema, tuple):
        return " or ".join(words(one, several) for one in schema)
    if isinstance(schema, list):
        return ("lists of " if several else "a list of ") + words(schema[0], several=True)
    if isinstance(schema, dict):
        needed = [repr(name) for name in schema if not name.endswith("?")]
        keys = " and ".join([", ".join(needed[:-1]), needed[-1]] if needed[1:] else needed)
        return WORDS[dict][several] + (f" with {keys}" if keys else "")
    return WORDS[schema][several]


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
