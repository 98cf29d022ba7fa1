"""Who may write into a folder: nothing of others is overwritten, and what is finished is not made again.

A command that writes a folder asks first. Either it writes a new folder and puts it in the place of the old one,

    if not claim_folder(output, now, made=("config.json",), free=("output",), overwrite=config.overwrite):
        return
    new = temporary_of(output)
    ...                                   # save everything in it, manifest.json last
    replace_folder(new, output)

or it writes into the folder itself, between begin_folder(output, now) and finish_folder(output, now). What marks a
folder as a command's own is manifest.json with its "command"; while it is written, .unfinished.json stands there.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.manifest import check_same_run

MANIFEST = "manifest.json"
MARK = ".unfinished.json"


def claim_folder(
    folder: str | Path,
    now: Mapping[str, Any],
    made: Collection[str] = (),
    free: Collection[str] = (),
    overwrite: bool = False,
) -> bool:
    """Whether a command is to write its result into `folder`; False, and a line that says so, if that is done already.

    now         its manifest, as make_manifest gives it, with its "command"
    made        files of a finished result, relative to the folder; where one is missing, it is made again
    free        keys of the config on which the result does not depend
    overwrite   whether an earlier result of the same command is replaced in any case
    raises      UserError for a folder that holds an earlier result of other settings or data, unless overwrite; and
                always for one that holds anything else
    """
    folder, command = Path(folder), now["command"]
    if not is_own(folder, command):
        return True
    manifest = folder / MANIFEST
    if overwrite or not manifest.is_file():  # replaced, or an interrupted one
        return True
    check_same_run(folder, read_json(manifest, made_by=command, kind=dict), now, free, "--overwrite")
    if not all((folder / name).exists() for name in made):
        return True
    print(f"{folder} is finished: nothing to do; --overwrite starts anew")  # noqa: T201  the command's only output
    return False


def is_own(folder: str | Path, command: str) -> bool:
    """True for a folder that `command` wrote or began to write, False for one that is new or empty.

    Raises UserError for any other.
    """
    folder = Path(folder)
    if not folder.exists() or folder.is_dir() and not _names(folder) and not (folder / MARK).is_file():
        return False
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, and {command} writes a folder; choose another one")
    for name in (MANIFEST, MARK):
        if (folder / name).is_file():
            told = read_json(folder / name, made_by=command)
            if isinstance(told, dict) and told.get("command") == command:
                return True
            if isinstance(told, dict) and told.get("command"):
                raise UserError(
                    f"{folder} holds what {told['command']} wrote, which {command} will not overwrite; choose another "
                    f"folder"
                )
    raise UserError(
        f"{folder} holds something that {command} did not write ({_some(folder)}); choose another folder, or move "
        f"that away"
    )


def check_same_file(
    path: str | Path, before: Mapping[str, Any] | None, now: Mapping[str, Any], free: Collection[str] = ()
) -> None:
    """Raises UserError if a file that is there is of another run than `now`, the manifest of this one.

    before   manifest of the run that wrote it; None where nothing tells
    """
    if before is None:
        raise UserError(
            f"{path} is there already, and nothing says that this command wrote it; take another --output, or "
            f"--overwrite to replace it"
        )
    check_same_run(path, before, now, free, "--overwrite")


def begin_folder(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Marks a folder as being written, so that it counts as unfinished and as this command's own from here on."""
    write_json(Path(folder) / MARK, {"command": now["command"]})
    (Path(folder) / MANIFEST).unlink(missing_ok=True)


def finish_folder(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Writes the manifest, the last file of all."""
    write_json(Path(folder) / MANIFEST, now)
    (Path(folder) / MARK).unlink(missing_ok=True)


def temporary_of(target: str | Path) -> Path:
    """An empty place beside `target`, for a folder that will take its place; what a kill left there is removed."""
    target = Path(target).resolve()
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def replace_folder(new: Path, target: str | Path) -> None:
    """Puts a finished folder in the place of an earlier one; at no time is a half-written one there.

    Raises UserError, and removes `new`, if the earlier one holds a file that the new one has not: somebody else put
    it there.
    """
    target = Path(target).resolve()
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        strange = sorted(_names(target) - _names(new))
        if strange:
            shutil.rmtree(new)
            raise UserError(
                f"{target} also holds {', '.join(strange[:3])}, which would be lost; move that away, or choose "
                f"another folder"
            )
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    """Of all files in it and below, hidden ones (.DS_Store) left out."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in files if not path.name.startswith(".")}


def _some(folder: Path) -> str:
    names = sorted(_names(folder))
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
