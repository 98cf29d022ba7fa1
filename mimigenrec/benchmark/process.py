"""A stage of a benchmark in a process of its own: what it said, what it cost, how it ended.

stages/<name>/config.yaml   what the command is told; `python -m MODULE config.yaml` runs it by hand
              log.txt       what it said, start after start
              stage.json    {"module", "options", "inputs", "after", "state", "exit"}: what its result depends on,
                            and how it ended
              cost.json     {"seconds", "cpu_seconds", "peak_memory_gb", "starts", "measured"}: sums over those of
                            its starts whose end was seen; a start killed together with the benchmark was not
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256, write_json, writing
from mimigenrec.manifest import inputs_of
from mimigenrec.stages import Facts, Stage

TAIL = 12  # lines of a log that are shown
LONGEST = 300  # characters of a reason
OUR_FAULT = "is a fault of mimigenrec"  # cli.py's word for an error that keeps its traceback
COST = dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_gb", "starts", "measured"), (int, float))


def facts_of(stages: Iterable[Stage]) -> dict[str, Facts]:
    """What each stage's result depends on, by name. Stages stand after those they need."""
    facts: dict[str, Facts] = {}
    for stage in stages:
        facts[stage.name] = {
            "module": stage.module,
            "options": stage.options,
            "inputs": inputs_of({"inputs": {path: sha256(path) for path in stage.reads}}),
            "after": {name: _hash(facts[name]) for name in stage.after},
        }
    return facts


def remembered(stage: Stage, facts: Facts, memory: Path) -> Facts | None:
    """The facts that the stage was run with and its state; None if it was not. memory: the folder of stages/.

    Raises UserError if the stage's folder holds files and nothing tells what made them.
    """
    path = memory / stage.name / "stage.json"
    if path.is_file():
        return _read(path, {**dict.fromkeys(facts, object), "state": str})
    if stage.folder.is_dir() and any(stage.folder.iterdir()):
        raise UserError(
            f"{stage.folder} holds files, but {path}, which would tell what made them, is missing; move them away "
            f"or choose another output_dir"
        )
    return None


def run(stage: Stage, facts: Facts, memory: Path, fresh: bool, lock: int | None = None) -> int:
    """Runs the stage to its end; returns its exit status, 0 if all is well.

    fresh   what is there is removed first: it was made with other settings
    lock    a file descriptor that the process keeps open for as long as it lives
    """
    place = memory / stage.name
    if fresh:
        for folder in filter(Path.exists, (stage.folder, place)):
            shutil.rmtree(folder)
    cost = _cost_so_far(place)
    write_json(place / "cost.json", cost)
    with writing(place / "config.yaml") as out:
        yaml.safe_dump(stage.options, out, sort_keys=False, allow_unicode=True)
    write_json(place / "stage.json", {**facts, "state": "begun", "exit": None})
    command = [sys.executable, "-m", stage.module, str(place / "config.yaml")]
    with open(place / "log.txt", "ab") as log:
        log.write(f"== {' '.join(command)}\n".encode())
        log.flush()
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=() if lock is None else (lock,),
        )
        ended = None  # (pid, status, usage), once its end was seen
        try:
            ended = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C or SIGTERM: the stage must not go on alone
            process.terminate()
            try:
                ended = os.wait4(process.pid, 0)
            except BaseException:  # a second one, while the stage takes its time
                process.kill()
                ended = os.wait4(process.pid, 0)
                raise
            raise
        finally:
            if ended:
                _, status, usage = ended
                process.returncode = os.waitstatus_to_exitcode(status)
                cost["seconds"] += time.perf_counter() - started
                cost["cpu_seconds"] += usage.ru_utime + usage.ru_stime
                cost["peak_memory_gb"] = max(cost["peak_memory_gb"], usage.ru_maxrss / 1e6)  # kB; at least ours
                cost["measured"] += 1
                write_json(place / "cost.json", {name: round(value, 3) for name, value in cost.items()})
        code = process.returncode
        missing = [path for path in stage.writes if not path.is_file()]
        if code == 0 and missing:
            code = 1
            log.write(f"ended without an error, but {missing[0]} is missing\n".encode())
    write_json(place / "stage.json", {**facts, "state": "failed" if code else "done", "exit": code})
    return code


def log_tail(log: Path, lines: int = TAIL) -> list[str]:
    """The last lines of its last start that are not empty."""
    text = log.read_text(encoding="utf-8", errors="replace").rpartition("\n== ")[2]
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def reason_of(code: int, log: Path) -> str:
    """Why a stage failed, in one line: the error that its log ends with, else its last line."""
    lines = log_tail(log, 50)
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception|Interrupt)\b", line.lstrip())]
    errors = [line.strip().removeprefix("error: ") for line in errors if OUR_FAULT not in line]
    told = f"status {code}" if code >= 0 else f"ended by signal {-code}" + (", out of memory?" if code == -9 else "")
    return f"{told}: {(errors or lines)[-1].strip()[:LONGEST]}"


def shown(log: Path) -> list[str]:
    """What a reader needs of a log beside the reason: what a longer message goes on to say, or a traceback's end."""
    lines = log_tail(log, 50)
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if not starts or OUR_FAULT in lines[starts[-1]]:
        return lines[-TAIL:]
    return lines[starts[-1] + 1 :][:TAIL]


def cost_of(stage: Stage, memory: Path) -> dict[str, float] | None:
    path = memory / stage.name / "cost.json"
    return _read(path, COST) if path.is_file() else None


def _cost_so_far(place: Path) -> dict[str, float]:
    path = place / "cost.json"
    begun = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_gb": 0.0, "starts": 0, "measured": 0}
    if (place / "stage.json").is_file() and path.is_file():
        if _read(place / "stage.json", {"state": str})["state"] != "done":
            begun = _read(path, COST)
    begun["starts"] += 1
    return begun


def _read(path: Path, keys: Mapping[str, Any]) -> Facts:
    """One of a stage's own files. keys: what it must hold, and of which type. Raises UserError if it does not."""
    content = read_json(path, made_by="mimigenrec benchmark", kind=dict)
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind) or key not in content:
            raise UserError(
                f"{path}: {key} is {content.get(key, 'missing')!r}; it comes from mimigenrec benchmark. Delete "
                f"{path.parent} and what the stage wrote, and run the benchmark again"
            )
    return content


def _hash(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
