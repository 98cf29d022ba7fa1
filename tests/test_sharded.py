"""Work of toy size dealt to processes: n rows, each the square of its place."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from mimigenrec.errors import UserError
from mimigenrec.sharded import (
    ALONE,
    Process,
    begin,
    is_begun,
    merge_shards,
    processes,
    read_shards,
    write_chunks,
    write_shard,
)
from tests.conftest import ROOT

RUN = {"config": {"k": 5}, "inputs": {"data/x.json": "1"}}


class Alone(Process):
    """One of several processes that run one after the other here, so that none waits."""

    def wait(self):
        pass


def squares(batch, missing):
    return ({"square": place * place} for place in missing)


def batches(process, n=20, size=3):
    mine = process.share(range(n))
    return [mine[first : first + size] for first in range(0, len(mine), size)]


def write(folder, process, work=squares, n=20):
    return write_shard(folder, "rows", batches(process, n), work, process, ["square"])


def in_order(n=20):
    return [{"square": place * place} for place in range(n)]


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_all_processes_together_have_each_piece_once(world):
    dealt = [Process(rank, world).share(range(20)) for rank in range(world)]
    assert sorted(place for share in dealt for place in share) == list(range(20))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_are_merged_in_order_whoever_wrote_them(tmp_path, world):
    for rank in reversed(range(world)):
        write(tmp_path, Alone(rank, world))
    assert merge_shards(tmp_path, "rows", 20, ["square"]) == in_order()
    names = ["rows.jsonl"] if world == 1 else [f"rows.rank{rank}.jsonl" for rank in range(world)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def dies_at(place):
    def work(batch, missing):
        for row, one in zip(squares(batch, missing), missing, strict=True):
            if one == place:
                raise UserError(f"row {place} is odd")
            yield row

    return work


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    with pytest.raises(UserError, match="row 14 is odd"):
        write(tmp_path, Alone(0, 2), dies_at(14))  # 0, 2, ..., 12 are on the disk
    write(tmp_path, Alone(1, 2), lambda batch, missing: squares(batch, missing))
    with pytest.raises(UserError, match="holds rows for 17 of 20 rows, row 14 is missing"):
        merge_shards(tmp_path, "rows", 20)
    written = [write(tmp_path, Alone(rank, 3)) for rank in range(3)]
    assert sum(written) == 3 and merge_shards(tmp_path, "rows", 20) == in_order()
    assert write(tmp_path, ALONE) == 0


def test_a_batch_is_the_same_in_every_start_and_says_what_is_missing(tmp_path):
    seen = []

    def work(batch, missing):
        seen.append((list(batch), list(missing)))
        return squares(batch, missing)

    with pytest.raises(UserError):
        write(tmp_path, ALONE, dies_at(4), n=6)
    write(tmp_path, ALONE, work, n=6)
    assert seen == [([3, 4, 5], [4, 5])]


def test_a_torn_last_line_is_made_again(tmp_path):
    write(tmp_path, Alone(0, 2))
    write(tmp_path, Alone(1, 2))
    path = tmp_path / "rows.rank1.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="row 19 is missing"):
        merge_shards(tmp_path, "rows", 20)
    assert write(tmp_path, ALONE) == 1  # another process than the one that tore it
    assert merge_shards(tmp_path, "rows", 20) == in_order()


def test_work_that_gives_too_few_or_too_many_rows_is_a_fault(tmp_path):
    for rows in ([], [{"square": 0}] * 9):
        with pytest.raises(ValueError, match="zip"):
            write(tmp_path, ALONE, lambda batch, missing, rows=rows: rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [("[1]", "it has no place, square"), ('{"place": 0}', "it has no square"), ("{", "not JSON")]
    + [('{"place": "0", "square": 0}', "it has no number as its place")],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=rf"rows.jsonl, line 1: .*{message}"):
        read_shards(tmp_path, "rows", ["square"])


def test_rows_of_another_name_are_others(tmp_path):
    write(tmp_path, ALONE)
    (tmp_path / "rows2.jsonl").write_text("no rows\n")
    assert merge_shards(tmp_path, "rows", 20) == in_order()


def test_arrays_are_made_once_in_any_number_of_processes(tmp_path):
    made = []

    def work(first):
        made.append(first)
        return np.arange(first, min(first + 4, 10), dtype=np.float32)

    starts = range(0, 10, 4)
    write_chunks(tmp_path, starts, work, Alone(1, 2))
    write_chunks(tmp_path, starts, work, ALONE)
    assert made == [4, 0, 8]
    rows = np.concatenate([np.load(tmp_path / f"{first}.npy") for first in starts])
    assert rows.tolist() == list(range(10))


def test_a_chunk_that_fails_leaves_nothing(tmp_path):
    def work(first):
        raise UserError("no vectors")

    with pytest.raises(UserError, match="no vectors"):
        write_chunks(tmp_path, range(3), work, ALONE)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_begun_once_and_belongs_to_its_run(tmp_path):
    folder = tmp_path / "out"
    other = {"config": {"k": 6}, "inputs": RUN["inputs"]}
    assert not is_begun(folder, RUN, "toy")
    begin(folder, RUN)
    (folder / "rows.jsonl").write_text("")
    assert is_begun(folder, RUN, "toy") and is_begun(folder, RUN, "toy", overwrite=True)
    assert is_begun(folder, other, "toy", free=["k"])
    with pytest.raises(UserError, match="k: 5 then, 6 now.*--overwrite"):
        is_begun(folder, other, "toy")
    assert not is_begun(folder, other, "toy", overwrite=True)
    (folder / "notes.txt").write_text("mine")
    begin(folder, other, ["rows*.jsonl"])
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "run.json"]
    assert json.loads((folder / "run.json").read_text()) == other


def test_a_folder_of_something_else_is_refused_also_to_overwrite(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="rows.jsonl but no run.json, so no toy wrote it"):
            is_begun(tmp_path, RUN, "toy", overwrite=overwrite)
    for content in ("[]", '{"k": 5}', "{"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match="run.json"):
            is_begun(tmp_path, RUN, "toy")
        assert not is_begun(tmp_path, RUN, "toy", overwrite=True)


def test_alone_nobody_is_waited_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as process:
        process.wait()
        assert process == (0, 1) and process.tell("word") == "word"


SHARES = """
import os, sys
from pathlib import Path
from mimigenrec import cli, sharded
from mimigenrec.cli import one_message
from mimigenrec.errors import UserError
cli.SPEAKS_FIRST = sharded.SPEAKS_FIRST = 0.5

folder = Path(sys.argv[1])

def work(batch, missing):
    for place in missing:
        if place == 13 and "ODD" in os.environ:
            raise UserError("row 13 is odd")
        yield {"square": place * place}

with one_message(), sharded.processes() as process:
    if process.rank == 0 and not sharded.is_begun(folder, {"config": {}, "inputs": {}}, "toy"):
        sharded.begin(folder, {"config": {}, "inputs": {}})
    assert process.tell(f"word of {process.rank}") == "word of 0"
    process.wait()
    mine = process.share(range(20))
    sharded.write_shard(folder, "rows", [mine], work, process)
    process.wait()
    if process.rank == 0:
        print(len(sharded.merge_shards(folder, "rows", 20)), "rows")
"""


def started(folder, world, **more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "PYTHONPATH": str(ROOT)}
    runs = []
    for rank in range(world):
        environment = {**os.environ, **address, "RANK": str(rank), **more}
        command = [sys.executable, "-c", SHARES, str(folder)]
        runs.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True))
    return [(run.communicate(timeout=120), run.returncode) for run in runs]


def test_one_process_that_fails_fails_the_run_and_a_restart_goes_on(tmp_path):
    """Of two gloo processes the second meets an odd row; then one alone ends the work."""
    [(out, err), first], [(_, why), second] = started(tmp_path / "out", 2, ODD="1")
    assert first == second == 1 and "rows" not in out
    assert re.findall("^error: .*", why, re.M) == ["error: row 13 is odd"] and "Traceback" not in why
    assert "error: another process of this run ended early" in err and "Traceback" not in err
    [[(out, err), code]] = started(tmp_path / "out", 1)
    assert (out, code) == ("20 rows\n", 0), err
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == 4  # 13, 15, 17 and 19
