"""A file of answers that may be shared, killed and damaged."""

import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from time import sleep

import pytest

from mimigenrec.errors import UserError
from mimigenrec.request_cache import RequestCache, as_json, key_of
from tests.conftest import ROOT


def put(cache, *texts):
    cache.put({key_of(text): (text, text.upper().encode()) for text in texts})


def test_an_answer_is_found_again_and_the_first_one_stays(tmp_path):
    cache = RequestCache(tmp_path / "new" / "c.sqlite")
    put(cache, "one", "two")
    cache.put({key_of("one"): ("one", b"another")})
    again = RequestCache(tmp_path / "new" / "c.sqlite")
    assert again.get([key_of("one"), key_of("three"), key_of("two")]) == {key_of("one"): b"ONE", key_of("two"): b"TWO"}
    assert len(again) == 2


def test_more_keys_than_one_query_takes(tmp_path):
    cache = RequestCache(tmp_path / "c.sqlite")
    texts = [str(number) for number in range(1234)]
    put(cache, *texts)
    assert len(cache.get(list(map(key_of, texts)))) == 1234


def test_the_order_of_keys_makes_no_other_request():
    assert as_json({"b": 1, "a": [1, 2]}) == as_json({"a": [1, 2], "b": 1}) != as_json({"a": [2, 1], "b": 1})
    for bad in ({"x": {1}}, {"x": float("nan")}):
        with pytest.raises(UserError, match="JSON cannot express"):
            as_json(bad)


def damaged(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def test_a_damaged_file_is_said_and_not_trusted(tmp_path):
    path = tmp_path / "c.sqlite"
    texts = [f"text number {number}" for number in range(2000)]
    put(RequestCache(path), *texts)
    whole = path.read_bytes()
    keys = list(map(key_of, texts))

    path.write_bytes(b"these are no answers at all, but notes" * 100)
    with pytest.raises(UserError, match="c.sqlite is damaged, or is no cache.*file is not a database.*delete it"):
        RequestCache(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        RequestCache(path).get(keys)
    place = whole.index(b"TEXT NUMBER 77")  # a flipped bit that sqlite does not see
    path.write_bytes(whole[:place] + b"t" + whole[place + 1 :])
    with pytest.raises(UserError, match="the checksum of answer .* is wrong"):
        RequestCache(path).get(keys)
    path.write_bytes(whole)
    assert len(RequestCache(path).get(keys)) == 2000


def test_a_file_of_another_program_and_a_folder_are_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE answers (x)")
    db.close()
    with pytest.raises(UserError, match="other.sqlite is an sqlite file of another program"):
        RequestCache(tmp_path / "other.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder cannot be used as cache"):
        RequestCache(tmp_path / "folder")


WRITES = """
import sys
from mimigenrec.request_cache import RequestCache, key_of
cache = RequestCache(sys.argv[1])
for number in range(10**9):
    text = f"{sys.argv[2]} {number}"
    cache.put({key_of(text): (text, text.encode() * 100)})
    print(number, flush=True)
"""


def child(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, stdout=-1, text=True)


def test_what_was_put_is_there_after_a_kill_at_any_moment(tmp_path):
    writers = [child(WRITES, tmp_path / "c.sqlite", name) for name in "ab"]
    for writer in writers:
        while int(writer.stdout.readline()) < 20:
            pass
    for writer in writers:
        writer.kill()
    counts = [len(writer.communicate()[0].splitlines()) + 21 for writer in writers]
    cache = RequestCache(tmp_path / "c.sqlite")
    for name, count in zip("ab", counts, strict=True):
        texts = [f"{name} {number}" for number in range(count)]
        assert len(cache.get(list(map(key_of, texts)))) == count


HOLDS = """
import sys, time
from mimigenrec.request_cache import RequestCache, key_of
with RequestCache(sys.argv[1]).alone([key_of("one"), key_of("two")]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_key_is_held_by_one_thread_or_process_until_it_lets_go_or_dies(tmp_path):
    cache, order = RequestCache(tmp_path / "c.sqlite"), []
    holder = child(HOLDS, tmp_path / "c.sqlite")
    assert holder.stdout.readline() == "held\n"

    def want(text):
        with RequestCache(tmp_path / "c.sqlite").alone([key_of(text)]):
            order.append(text)

    threads = [Thread(target=want, args=(text,)) for text in ("one", "three")]
    for thread in threads:
        thread.start()
    threads[1].join(timeout=10)
    sleep(0.2)
    assert order == ["three"]
    holder.kill()
    holder.communicate()
    threads[0].join(timeout=10)
    assert order == ["three", "one"]

    inside = Event()

    def hold():
        with cache.alone([key_of("one")]):
            inside.set()
            sleep(0.2)
            order.append("first")

    holding = Thread(target=hold)
    holding.start()
    inside.wait()
    want("one")
    holding.join()
    assert order[-2:] == ["first", "one"]


def test_a_lock_file_that_cannot_be_opened_leaves_no_key_held(tmp_path):
    cache = RequestCache(tmp_path / "gone" / "c.sqlite")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(FileNotFoundError), cache.alone([key_of("one")]):
        pass
    (tmp_path / "gone").mkdir()
    inside = Event()

    def take():
        with cache.alone([key_of("one")]):
            inside.set()

    Thread(target=take, daemon=True).start()
    assert inside.wait(10)


def test_threads_that_want_each_others_keys_do_not_wait_for_ever(tmp_path):
    cache = RequestCache(tmp_path / "c.sqlite")
    keys = [key_of(str(number)) for number in range(6)]

    def work(turn):
        with cache.alone(keys[turn % 3 :] if turn % 2 else keys[: 3 + turn % 3][::-1]):
            return turn

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200), timeout=30)) == list(range(200))
