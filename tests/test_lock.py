"""One process at a time in a folder."""

import subprocess
import sys

import pytest

from mimigenrec.errors import UserError
from mimigenrec.lock import alone


def test_a_second_one_is_refused_and_the_next_one_gets_in(tmp_path):
    path = tmp_path / "out" / ".lock"
    with alone(path, "another run"), alone(path, "another run", needed=False):
        with pytest.raises(UserError, match="another run is at work in .*out; wait for it"):
            with alone(path, "another run"):
                pass
    with alone(path, "another run"):
        assert path.is_file()
    assert not (tmp_path / "out").exists()


def test_a_dead_process_holds_nothing(tmp_path):
    code = f"import os\nfrom mimigenrec.lock import alone\nwith alone({str(tmp_path / '.lock')!r}, 'it'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (tmp_path / ".lock").is_file()
    with alone(tmp_path / ".lock", "it"):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def no_locks(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("mimigenrec.lock.fcntl.flock", no_locks)
    with alone(tmp_path / ".lock", "it"):
        pass
    assert "this file system has no locks" in caplog.text
