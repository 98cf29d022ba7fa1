import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mimigenrec import files
from mimigenrec.errors import UserError


def python(code: str, *argv) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, argv)], stderr=subprocess.PIPE, text=True)


def test_json_comes_back_as_written(tmp_path):
    value = {"a": [1, None, "日本語"], "b": {"c": 0.5}}
    files.write_json(tmp_path / "deep" / "er" / "x.json", value)
    assert files.read_json(tmp_path / "deep" / "er" / "x.json", made_by="a test") == value


def test_rows_are_one_a_line_and_counted(tmp_path):
    assert files.write_json_rows(tmp_path / "x.json", iter([{"a": 1}, {"a": 2}])) == 2
    assert (tmp_path / "x.json").read_text() == '[\n{"a": 1},\n{"a": 2}\n]\n'
    assert files.write_json_rows(tmp_path / "none.json", []) == 0
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    (tmp_path / "x.json").write_text("old")
    with pytest.raises(TypeError):
        files.write_json_rows(tmp_path / "x.json", [{"a": 1}, {"a": object()}])
    assert (tmp_path / "x.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_no_space_left_stops_the_run_and_keeps_the_old_file(tmp_path):
    (tmp_path / "x.json").write_text("old")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from mimigenrec.files import write_json_rows\n"
        "write_json_rows(sys.argv[1], ({'row': i} for i in range(10_000)))"
    )
    run = python(code, tmp_path / "x.json")
    assert run.wait() == 1 and "File too large" in run.stderr.read()
    assert (tmp_path / "x.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_kill_while_writing_leaves_the_target_as_it_was(tmp_path, old):
    target = tmp_path / "x.json"
    if old:
        target.write_text(old)
    code = (
        "import itertools, sys\n"
        "from mimigenrec.files import write_json_rows\n"
        "write_json_rows(sys.argv[1], ({'row': i} for i in itertools.count()))"
    )
    run = python(code, target)
    half = tmp_path / ".x.json.tmp"
    while run.poll() is None and not (half.exists() and half.stat().st_size > 10_000):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and half.exists()
    assert target.read_text() == old if old else not target.exists()
    files.write_json(target, ["new"])  # what the kill left behind is in nobody's way
    assert files.read_json(target, "a test") == ["new"] and not half.exists()


def test_what_is_not_json_is_named_with_its_place(tmp_path):
    (tmp_path / "x.json").write_text('{"a": \n ,}')
    with pytest.raises(ValueError, match=r"x.json is not JSON \(.*line 2.*; it comes from the moon"):
        files.read_json(tmp_path / "x.json", made_by="the moon")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="x.json, line 1: not UTF-8 text, but UTF-16; write it again"):
        files.read_json(tmp_path / "x.json", made_by="the moon")


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="x.json is missing; it comes from the moon"):
        files.read_json(tmp_path / "x.json", made_by="the moon")


def test_sha256_is_the_published_one(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_lines_end_where_editors_end_them_and_nowhere_else(tmp_path):
    (tmp_path / "x").write_bytes("\ufeffa\r\nb\rc\n\nd\u2028e\x85f".encode())
    assert list(files.read_lines(tmp_path / "x")) == [(1, "a"), (2, "b"), (3, "c"), (5, "d\u2028e\x85f")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ok\nfa\u00e7ade".encode("latin-1"), "x, line 2: not UTF-8 text; write it again as UTF-8 .iconv -f LATIN1"),
        ("title".encode("utf-16"), "x, line 1: not UTF-8 text, but UTF-16; write it again as UTF-8 .iconv -f UTF-16"),
        (b"\x1f\x8b\x08\x00", "x, line 1: not UTF-8 text, but gzip; unpack it first"),
    ],
)
def test_what_is_not_utf8_is_named_with_its_remedy(tmp_path, content, text):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=text):
        files.read_text(tmp_path / "x")


def test_json_of_another_kind_or_with_a_key_twice_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"3": 1, "4": 2, "3": 5}')
    assert files.read_json(tmp_path / "x.json", "a test", kind=dict) == {"3": 5, "4": 2}
    with pytest.raises(UserError, match="x.json must hold a list, found .*; it comes from a test"):
        files.read_json(tmp_path / "x.json", "a test", kind=list)
    with pytest.raises(UserError, match="x.json holds the key '3' twice"):
        files.read_json(tmp_path / "x.json", "a test", unique=True)
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="x.json is not JSON"):
        files.read_json(tmp_path / "x.json", "a test")
