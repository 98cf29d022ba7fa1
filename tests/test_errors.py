"""What stops a run is one message; a fault of ours keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from mimigenrec import cli
from mimigenrec.cli import arg, check_range, message, one_message, parse
from mimigenrec.errors import MissingPackage, UserError


def stopped(capsys, error: BaseException) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop, one_message():
        raise error
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("x.json, row 3: no title; write one"), "x.json, row 3: no title; write one"),
        (MissingPackage("needs polars: pip install polars"), "needs polars: pip install polars"),
        (FileNotFoundError("x is missing; it comes from y"), "x is missing; it comes from y"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "x: there is no such file or folder; correct the path"),
        (PermissionError(errno.EACCES, "Denied", "x"), "x: no permission to read or write it"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "x: this is a folder, and a file is needed"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: no space left on the disk; free some"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk; free some"),
        (MemoryError(), "memory ran out (MemoryError); use smaller batches"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory ran out (DefaultCPUAllocator"),
        (KeyboardInterrupt(), "interrupted; the same command goes on"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error, text):
    status, shown = stopped(capsys, error)
    assert status == 1 and shown.startswith(f"error: {text}") and shown.count("\n") == 1


@pytest.mark.parametrize("error", [KeyError("title"), ValueError("range() arg 3"), AssertionError(), TypeError("no")])
def test_a_fault_of_ours_keeps_its_traceback_and_says_what_to_report(capsys, error):
    status, shown = stopped(capsys, error)
    last = shown.splitlines()[-1]
    assert status == 1 and shown.startswith("Traceback") and f"raise {'error'}" in shown
    assert last.startswith(f"error: {type(error).__name__} is a fault of mimigenrec") and "`mimigenrec env`" in last


def test_torch_says_that_memory_ran_out():
    import torch

    assert message(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")).startswith("memory ran out (CUDA out")


def test_debug_shows_the_traceback_of_a_message_too(capsys, monkeypatch):
    monkeypatch.setenv("MIMIGENREC_DEBUG", "1")
    _, shown = stopped(capsys, UserError("no title"))
    assert shown.startswith("Traceback") and shown.endswith("error: no title\n")


def test_other_processes_let_the_first_speak(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "SPEAKS_FIRST", 0.2)
    started = time.perf_counter()
    assert stopped(capsys, UserError("no title")) == (1, "error: no title\n")
    assert time.perf_counter() - started >= 0.2


def test_an_exit_on_purpose_passes():
    with pytest.raises(SystemExit) as stop, one_message():
        sys.exit(3)
    assert stop.value.code == 3


def test_a_reader_that_goes_away_is_no_error():
    code = "from mimigenrec.cli import one_message\nwith one_message():\n    for i in range(100_000): print(i)"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.readline()
    run.stdout.close()
    assert run.wait() == 1 and run.stderr.read() == b""


def test_an_interrupt_is_one_line():
    code = "import os, signal\nfrom mimigenrec.cli import one_message\nwith one_message(): os.kill(os.getpid(), 2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert signal.SIGINT == 2 and done.returncode == 1
    assert done.stderr == "error: interrupted; the same command goes on from what is written\n"


@dataclass
class Config:
    """Numbers with ranges."""

    steps: int = arg("how many", default=3, least=1)
    share: float = arg("of one", default=0.5, above=0, most=1)
    rate: float = arg("any", default=0.1)
    sizes: list[int] = arg("each", factory=lambda: [4], least=2, below=10)
    limit: int | None = arg("at most", default=None, least=1)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("steps=0", "--steps is 0; it must be at least 1"),
        ("--steps -3", "--steps is -3; it must be at least 1"),
        ("share=0", "--share is 0.0; it must be above 0 and at most 1"),
        ("share=1.5", "--share is 1.5; it must be"),
        ("rate=nan", "--rate is nan; it must be a finite number"),
        ("rate=-inf", "--rate is -inf; it must be a finite number"),
        ("--sizes 4 10", "--sizes is 10; it must be at least 2 and below 10"),
        ("limit=-1", "--limit is -1; it must be at least 1"),
    ],
)
def test_a_number_out_of_its_range_stops_the_run_however_it_came(tmp_path, capsys, argv, text):
    with pytest.raises(SystemExit) as stop:
        parse(Config, argv=argv.split())
    assert stop.value.code == 2 and f"error: {text}" in capsys.readouterr().err
    key, value = argv.replace("--", "").replace("=", " ", 1).split(" ", 1)
    (tmp_path / "x.yaml").write_text(f"{key}: [{value.replace(' ', ', ')}]" if key == "sizes" else f"{key}: {value}")
    if value not in ("nan", "-inf"):  # text in YAML
        with pytest.raises(SystemExit):
            parse(Config, argv=[str(tmp_path / "x.yaml")])
        assert f"error: {text}" in capsys.readouterr().err


def test_the_edges_of_a_range_and_no_number_at_all_pass():
    config = Config(steps=1, share=1.0, sizes=[2, 9], limit=None)
    assert parse(Config, argv=["steps=1", "share=1", "--sizes", "2", "9"]) == (config,)
    check_range("--flag", True, least=5)
    check_range("--name", "text", least=5)


def test_the_help_tells_the_range(capsys):
    with pytest.raises(SystemExit):
        parse(Config, argv=["--help"])
    assert "(above 0 and at most 1)" in capsys.readouterr().out


def test_a_key_given_twice_in_yaml_is_refused(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("steps: 2\nrate: 0.5\nsteps: 3\n")
    with pytest.raises(SystemExit):
        parse(Config, argv=[str(tmp_path / "x.yaml")])
    assert "x.yaml is not YAML: 'steps' is given twice" in capsys.readouterr().err


def test_what_a_dataclass_refuses_when_it_is_made_is_one_message(capsys):
    @dataclass
    class Picky:
        """One number."""

        count: int = arg("of things", default=1)

        def __post_init__(self):
            if self.count == 13:
                raise ValueError("count 13 brings bad luck")

    with pytest.raises(SystemExit) as stop:
        parse(Picky, argv=["count=13"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: count 13 brings bad luck\n")


def test_a_launcher_ends_without_its_traceback(tmp_path):
    (tmp_path / "child.py").write_text("import os, sys\nif os.environ['RANK'] == '0': sys.exit('error: no title')\n")
    launch = [sys.executable, "-m", "mimigenrec.training.launch", "torch.distributed.run", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "--master_port", "29731", str(tmp_path / "child.py")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "error: no title" in done.stderr and "Traceback" not in done.stderr


def test_the_status_of_what_a_launcher_started_is_kept(tmp_path):
    (tmp_path / "child.py").write_text("print('done')\n")
    launch = [
        sys.executable,
        "-m",
        "mimigenrec.training.launch",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
    ]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launch, str(tmp_path / "child.py")], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "done" in done.stdout


def test_a_child_that_was_killed_is_told(tmp_path):
    (tmp_path / "child.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    launch = [sys.executable, "-m", "mimigenrec.training.launch", "torch.distributed.run", "--nproc_per_node", "1"]
    done = subprocess.run(
        [*launch, "--master_port", "29741", str(tmp_path / "child.py")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: a process was ended by SIGKILL; after SIGKILL, see whether memory ran out" in done.stderr
