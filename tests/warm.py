"""One process that has loaded everything, and a child forked from it for each command: milliseconds in place of the
ten seconds that a command takes to load torch, TRL and LLaMA-Factory.

    python tests/warm.py SOCKET    a line of JSON for each connection to this Unix socket, one after the other

asked      {"argv", "cwd", "env", "limit", ...}
answered   {"status", "stdout", "stderr", "seconds"}

argv       after "mimigenrec"; run by mimigenrec.cli.main
module     in place of "mimigenrec": argv goes to this module, as with `python -m`
env        variables over those of this process
limit      seconds, after which the child is killed and its status is null
interrupt  a path: once it is there, the child gets SIGINT, as from Ctrl-C
broken     "module:function", in whose place the child has one that raises KeyError('planted')

tests/conftest.py starts it, and makes a `mimigenrec` and a `python` for scripts, which ask it.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"


def load() -> None:
    import torch

    from mimigenrec.cli import COMMANDS

    late = (
        "mimigenrec.baselines.tiger llamafactory.train.tuner trl.trainer.grpo_trainer"  # loaded when they are needed
    )
    for module in (*(module for module, _ in COMMANDS.values()), *late.split()):
        importlib.import_module(module)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that a child's collector writes to no page that it shares with us, and copies none


def run(asked: dict) -> dict:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        child = os.fork()
        if child == 0:
            be_the_command(asked, out, err)
        status = wait_for(child, asked)
        told = [path.read_text(errors="replace") if path.is_file() else "" for path in (out, err)]
    seconds = round(time.perf_counter() - started, 2)
    return {"status": status, "stdout": told[0], "stderr": told[1], "seconds": seconds}


def be_the_command(asked: dict, out: Path, err: Path) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
        sys.stdout = open(1, "w", closefd=False)
        os.chdir(asked["cwd"])
        os.environ.update(asked.get("env", {}))
        if asked.get("broken"):
            module, _, function = asked["broken"].partition(":")
            setattr(importlib.import_module(module), function, broken)
        sys.argv, sys.path[0] = ["mimigenrec", *asked["argv"]], asked["cwd"]
        if asked.get("module"):
            runpy.run_module(asked["module"], run_name="__main__")
        else:
            from mimigenrec.cli import main

            main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:  # as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def broken(*_, **__):
    raise KeyError("planted")


def wait_for(child: int, asked: dict) -> int | None:
    """The exit status, that of a signal negative; None for a child that we killed."""
    end, interrupt = time.monotonic() + asked.get("limit", 30), asked.get("interrupt")
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if interrupt and Path(asked["cwd"], interrupt).exists():
            os.kill(child, signal.SIGINT)
            interrupt = None
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    load()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{sys.argv[1]}.new")
        server.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])  # it is there when it listens
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as lines:
                line = lines.readline()
                if not line:
                    continue  # somebody who looked whether we are there
                lines.write(json.dumps(run(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
