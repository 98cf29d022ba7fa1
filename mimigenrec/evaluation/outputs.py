"""A page, a table or a picture replaces an earlier one of the same command, never a file of somebody else's."""

from collections.abc import Mapping
from pathlib import Path

from mimigenrec.errors import UserError


def check_own(command: str, marks: Mapping[Path, bytes]) -> None:
    """Raises UserError naming the first file that is there and does not hold the bytes that the command puts into it.

    marks   file to be written -> bytes that every such file of the command holds
    """
    for path, mark in marks.items():
        if path.exists() and (path.is_dir() or mark not in path.read_bytes()):
            raise UserError(
                f"{path} is there already and `mimigenrec {command}` did not write it; move it away, or take another "
                f"--output"
            )
