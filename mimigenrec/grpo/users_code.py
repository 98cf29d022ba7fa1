"""What a reward raised, as a text with the file and line of its author. MIMIGENREC_DEBUG=1 shows the traceback."""

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path

RAISED = (Exception, SystemExit)  # Ctrl-C is no reward's


def told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}); let it raise an error, or return scores"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def at_function(function: Callable, error: BaseException | None = None) -> str:
    """Such as " (rewards/mine.py, line 7)": the last line of the function's file that the error passed, else where the
    function begins; an empty text where nothing tells the file, as for a class."""
    function = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    return at(error, code.co_filename) or _shown(code.co_filename, code.co_firstlineno)


def at(error: BaseException | None, file: str | None = None) -> str:
    """The same for the last line of `file`, or of any file but Python's import and ours; "" where there is none."""
    if error is None:
        return ""
    if isinstance(error, SyntaxError) and error.filename and file in (None, error.filename):
        return _shown(error.filename, error.lineno)
    frames = traceback.extract_tb(error.__traceback__)
    if file:
        lines = [frame for frame in frames if frame.filename == file]
    else:
        ours = str(Path(__file__).parent)
        lines = [frame for frame in frames if "importlib" not in frame.filename and ours not in frame.filename]
    return _shown(lines[-1].filename, lines[-1].lineno) if lines else ""


def _shown(file: str, line: int | None) -> str:
    path = Path(file)
    return f" ({path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}, line {line})"
