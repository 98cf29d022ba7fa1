"""The client against a server on the loopback that misbehaves in every way that a client must bear.

Gemini is asked through google-genai itself, whose address is the same stub's.
"""

import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event
from time import monotonic, sleep

import numpy as np
import pytest

from mimigenrec.cli import message
from mimigenrec.endpoint import Budget, BudgetSpent, Endpoint, EndpointError, in_threads
from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.protocols import seconds_to_wait
from tests.conftest import ROOT
from tests.stub_server import OK, answer, cut, drop, late, refuse, stub_server

KEY = "sk-very-secret-0123456789"
HELLO = [{"role": "system", "content": "You are short."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def stub():
    with stub_server() as server:
        yield server


@pytest.fixture(params=["openai", "gemini"])
def protocol(request):
    return request.param


@pytest.fixture
def pauses(monkeypatch):
    """No pause is made; the seconds that each would have lasted."""
    seconds = []
    monkeypatch.setattr("tenacity.nap.sleep_using_event.__call__", lambda self, wait: seconds.append(wait))
    return seconds


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


def endpoint(stub, protocol="openai", **settings):
    path = "/v1" if protocol == "openai" else ""
    return Endpoint("m", protocol=protocol, url=stub.url + path, **settings)


def ask(text):
    return [{"role": "user", "content": text}]


# ---- what goes over the wire


def test_a_chat_of_both_protocols_has_one_form(stub, protocol):
    with endpoint(stub, protocol) as model:
        reply = model.chat(HELLO, temperature=0.5, seed=3, max_tokens=20, n=2)
    assert reply.texts == ["echo: Hello", "echo: Hello"] and reply.reasons == ["stop", "stop"]
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 5)
    assert (model.usage.calls, model.usage.prompt_tokens, model.usage.completion_tokens) == (1, 10, 5)
    [(path, headers, body)] = stub.requests
    if protocol == "openai":
        assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
        assert body == {"model": "m", "messages": HELLO, "temperature": 0.5, "seed": 3, "max_tokens": 20, "n": 2}
    else:
        assert path == "/v1beta/models/m:generateContent" and headers["x-goog-api-key"] == KEY
        assert body["systemInstruction"]["parts"] == [{"text": "You are short."}]
        assert body["contents"] == [{"role": "user", "parts": [{"text": "Hello"}]}]
        assert body["generationConfig"] == {"temperature": 0.5, "seed": 3, "maxOutputTokens": 20, "candidateCount": 2}


def test_vectors_are_in_the_order_of_the_texts(stub, protocol):
    texts = ["one", "three", "one", "seventeen"]
    with endpoint(stub, protocol) as model:
        vectors = model.embed(texts, batch_size=2)
        assert model.embed([]).shape == (0, 0)
    assert vectors.dtype == np.float32 and vectors.tolist() == [[3, 1], [5, 1], [3, 1], [9, 1]]
    assert len(stub.requests) == 2  # "one" was asked once


def test_a_local_server_needs_no_key_and_the_vendor_does(stub, monkeypatch, protocol):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name)
    with endpoint(stub, protocol) as model:
        assert model.chat(HELLO).texts == ["echo: Hello"]
    assert "authorization" not in stub.requests[0][1]
    with pytest.raises(UserError, match="no key: set the environment variable (OPENAI|GEMINI)_API_KEY"):
        Endpoint("m", protocol=protocol)
    with pytest.raises(UserError, match="environment variable MY_KEY"):
        endpoint(stub, protocol, key_variable="MY_KEY")


def test_settings_that_cannot_be_meant_are_refused_without_a_call(stub, tmp_path):
    for bad, expected in {
        "localhost:8000": "no address of a server",
        "http://me:word@x/v1": "holds a user, a password",
        "http://x/v1?key=secret": "or a query",
    }.items():
        with pytest.raises(UserError, match=expected) as error:
            Endpoint("m", url=bad)
        assert "word@" not in str(error.value) and "secret" not in str(error.value)
    with pytest.raises(UserError, match="'claude'; choose one of openai, gemini"):
        Endpoint("m", protocol="claude")
    with endpoint(stub) as model:
        for bad, expected in (
            ("hello", "list of messages"),
            ([], "list of messages"),
            ([{"role": "user"}], "message 1 must have"),
            ([*HELLO, {"role": "tool", "content": "x"}], "message 3 must have a role"),
            ([{"role": "user", "content": "\ud800"}], "message 1 is no Unicode text"),
        ):
            with pytest.raises(UserError, match=expected):
                model.chat(bad)
        with pytest.raises(UserError, match="text 2 is no Unicode text"):
            model.embed(["one", "\ud800"])
    with endpoint(stub, cache=tmp_path / "c.sqlite") as model, pytest.raises(UserError, match="JSON cannot express"):
        model.chat(HELLO, stop={1, 2})
    with endpoint(stub, "gemini") as model, pytest.raises(UserError, match="no such setting .*frequency"):
        model.chat(HELLO, frequency=3)
    assert not stub.requests


def test_a_package_that_is_missing_is_named(stub, monkeypatch):
    monkeypatch.setattr("mimigenrec.extras.find_spec", lambda name: None if name == "openai" else True)
    with pytest.raises(MissingPackage, match=r"needs openai.*pip install 'mimigenrec\[llm\]'"):
        endpoint(stub)


# ---- refusals and broken connections


@pytest.mark.parametrize("trouble", [408, 409, 429, 500, 502, 503, "drop", "cut"])
def test_passing_trouble_is_tried_again(stub, protocol, pauses, caplog, trouble):
    act = {"drop": drop, "cut": cut}.get(trouble) or refuse(trouble)
    stub.plan = [act, act, OK]
    with endpoint(stub, protocol) as model:
        assert model.chat(HELLO).texts == ["echo: Hello"]
    assert len(stub.requests) == 3 and len(pauses) == 2
    assert (model.usage.calls, model.usage.retries) == (3, 2)
    assert pauses[0] <= 1 and pauses[1] <= 2  # random below 1, 2, 4, ... s
    assert "attempt 2 of 8" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_for_good_ends_with_the_servers_own_words(stub, protocol, pauses, status):
    stub.plan = [refuse(status, f"no, not with {KEY}")]
    with endpoint(stub, protocol) as model, pytest.raises(EndpointError) as error:
        model.chat(HELLO)
    text = str(error.value)
    assert f"answered {status}: no, not with ***" in text and KEY not in text and message(error.value) == text
    assert error.value.status == status and len(stub.requests) == 1 and not pauses
    assert error.value.__cause__ is None  # nothing in a traceback quotes what the server said
    if status == 401:
        assert "the key in OPENAI_API_KEY" in text or "the key in GEMINI_API_KEY or GOOGLE_API_KEY" in text


def test_attempts_are_bounded(stub, protocol, pauses):
    stub.plan = [refuse(503, "busy")] * 9
    with endpoint(stub, protocol, attempts=4) as model:
        with pytest.raises(EndpointError, match="answered 503: busy; 4 attempts were made"):
            model.chat(HELLO)
    assert len(stub.requests) == 4 and len(pauses) == 3


def test_a_server_that_is_not_there_is_said(protocol, pauses):
    with Endpoint("m", protocol=protocol, url="http://127.0.0.1:9/v1", attempts=2) as model:
        with pytest.raises(EndpointError, match="http://127.0.0.1:9/.* gave no answer .*refused.*2 attempts"):
            model.chat(HELLO)
    assert len(pauses) == 1


def test_an_answer_that_is_late_is_asked_again(stub, protocol, pauses):
    stub.plan = [late(1.5)]
    with endpoint(stub, protocol, timeout=0.5, attempts=1) as model:
        with pytest.raises(EndpointError, match="gave no answer within 0.5 s"):
            model.chat(HELLO)
    stub.plan = [late(1.5)]
    with endpoint(stub, protocol, timeout=0.5) as model:
        assert model.chat(HELLO).texts == ["echo: Hello"]


def test_the_time_that_a_server_asks_for_is_kept(stub, protocol, pauses):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    stub.plan = [refuse(429, wait="7"), refuse(503, wait=date), refuse(429, wait="soon")]
    with endpoint(stub, protocol) as model:
        model.chat(HELLO)
    assert 7 <= pauses[0] <= 8 and 28 <= pauses[1] <= 31 and pauses[2] <= 4
    stub.plan = [refuse(429, "quota of today", wait="3600")]
    with (
        endpoint(stub, protocol) as model,
        pytest.raises(EndpointError, match="quota of today; it asks to wait 3600 s"),
    ):
        model.chat(HELLO)
    assert len(pauses) == 3


def test_gemini_says_in_the_body_how_long_to_wait(stub, pauses):
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "23s"}]
    stub.plan = [answer(429, {"error": {"code": 429, "message": "quota", "details": details}})]
    with endpoint(stub, "gemini") as model:
        model.chat(HELLO)
    assert 23 <= pauses[0] <= 24


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), ("0.5", 0.5), ("-3", 0), ("Sun, 29 Nov 2026 10:00:30 GMT", 30), ("Sun, 29 Nov 2026 09:00:00 GMT", 0)]
    + [("nan", None), ("inf", None), ("", None), ("tomorrow", None), (None, None)],
)
def test_retry_after_by_hand(value, seconds):
    assert seconds_to_wait(value, now=datetime(2026, 11, 29, 10, 0, 0, tzinfo=UTC)) == seconds


def test_the_key_does_not_follow_a_redirection(stub, protocol):
    with stub_server() as other:
        stub.plan = [answer(307, Location=other.url)] * 2
        with endpoint(stub, protocol, attempts=1) as model, pytest.raises(EndpointError):
            stub.plan = [answer(302, Location=f"{other.url}/v1/chat/completions")]
            model.chat(HELLO)
        assert not any(KEY in str(headers) for _, headers, _ in other.requests)


# ---- answers of another form


WRONG = {
    "half a JSON": b'{"choices": [{"mess',
    "nothing": b"",
    "a page": b"<html>\nhi\n</html>",
    "a deep list": b"[" * 100_000,
    "a list": b"[1]",
    "a number": b"3",
    "other keys": b'{"text": "hi"}',
    "wrong types": b'{"choices": "x", "candidates": "x"}',
    "a content that is no text": b'{"choices": [{"message": {"content": 7}}], "candidates": [{"content": 7}]}',
    "no choice": b'{"choices": [], "candidates": []}',
}


@pytest.mark.parametrize("name", WRONG)
def test_a_chat_of_another_form_is_told_once_and_not_kept(stub, protocol, tmp_path, name):
    stub.plan = [answer(200, WRONG[name])]
    with endpoint(stub, protocol, cache=tmp_path / "c.sqlite") as model:
        with pytest.raises(EndpointError, match="did not answer as|gave 0 answers where n is 1") as error:
            model.chat(HELLO)
        assert "\n" not in str(error.value) and len(stub.requests) == 1
        assert model.chat(HELLO).texts == ["echo: Hello"]


def test_a_server_that_knows_no_n_is_told(stub):
    stub.plan = [answer(200, {"choices": [{"message": {"content": "hi"}}]})]
    with endpoint(stub) as model, pytest.raises(EndpointError, match="gave 1 answers where n is 3; .*different seeds"):
        model.chat(HELLO, n=3)


def test_a_withheld_text_is_empty_and_says_why(stub):
    said = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
    stub.plan = [answer(200, said)]
    with endpoint(stub) as model:
        assert model.chat(HELLO)[:2] == ([""], ["content_filter"])
    stub.plan = [answer(200, {"promptFeedback": {"blockReason": "SAFETY"}})]
    with endpoint(stub, "gemini") as model:
        assert model.chat(HELLO)[:2] == ([""], ["safety"])


def test_half_a_surrogate_pair_is_replaced_and_an_error_page_is_one_line(stub, protocol, pauses):
    stub.plan = [answer(200, {"choices": [{"message": {"content": "a\ud800"}}]} | gemini_says("a\ud800"))]
    with endpoint(stub, protocol, attempts=1) as model:
        assert model.chat(HELLO).texts == ["a?"]
        stub.plan = [answer(502, b"<html>\n<h1>Bad\ngateway</h1>")]
        with pytest.raises(EndpointError, match="answered 502: <html> <h1>Bad gateway</h1>$"):
            model.chat(HELLO)


def gemini_says(text):
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}


WRONG_VECTORS = {
    "too few": ([[1.0]], "gave 1 vectors for 2 texts"),
    "ragged": ([[1.0], [1.0, 2.0]], "different lengths"),
    "none": ([[], []], "no list of numbers"),
    "words": ([["x"], ["y"]], "did not answer as|no numbers"),
    "null": ([[1.0], [None]], "did not answer as|'two'.*holds NaN"),
    "NaN": ([[1.0], [float("nan")]], "'two'.*holds NaN"),
    "endless": ([[1.0], [float("inf")]], "'two'.*holds NaN or infinite"),
}


@pytest.mark.parametrize("name", WRONG_VECTORS)
def test_vectors_of_another_form_are_told_and_not_kept(stub, protocol, tmp_path, name):
    vectors, expected = WRONG_VECTORS[name]
    data = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    stub.plan = [answer(200, {"data": data, "embeddings": [{"values": vector} for vector in vectors]})]
    with endpoint(stub, protocol, cache=tmp_path / "c.sqlite") as model:
        with pytest.raises(EndpointError, match=expected):
            model.embed(["one", "two"])
        assert len(model.cache) == 0
        assert model.embed(["one", "two"]).shape == (2, 2)


def test_vectors_of_two_models_are_told(stub, tmp_path):
    with endpoint(stub, cache=tmp_path / "c.sqlite") as model:
        model.embed(["one"])
        stub.plan = [answer(200, {"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0]}]})]
        with pytest.raises(EndpointError, match=r"different lengths for m \(2 and 3 numbers\)"):
            model.embed(["one", "two"])


# ---- cache


def test_nothing_is_asked_twice_and_everything_that_matters_tells_requests_apart(stub, protocol, tmp_path):
    cache = tmp_path / "new folder" / "c.sqlite"
    with endpoint(stub, protocol, cache=cache) as model:
        first = model.chat(HELLO)
        assert model.chat(HELLO) == first and (model.usage.calls, model.usage.cached) == (1, 1)
        assert model.usage.prompt_tokens == 10  # what the cache has costs nothing
    with endpoint(stub, protocol, cache=cache) as model:  # another run
        assert model.chat(HELLO, temperature=0) == first and model.usage.calls == 0
        for settings in (
            {"temperature": 1.0},
            {"temperature": None},
            {"seed": 1},
            {"n": 2},
            {"draw": 1},
            {"top_p": 0.5},
        ):
            model.chat(HELLO, **settings)
        model.chat(HELLO[1:])
        assert model.usage.calls == 7
    with Endpoint("other", protocol=protocol, url=model.url, cache=cache) as model:
        model.chat(HELLO)
        assert model.usage.calls == 1
    assert not any("draw" in body for body in stub.bodies)


def test_vectors_are_kept_by_text_whatever_the_batches(stub, protocol, tmp_path):
    with endpoint(stub, protocol, cache=tmp_path / "c.sqlite") as model:
        model.embed(["a", "bb", "ccc"], batch_size=2)
        again = model.embed(["ccc", "dddd", "a"], batch_size=3)
        assert again[:, 0].tolist() == [3, 4, 1] and model.usage.cached == 2
        assert (model.usage.calls, len(model.cache)) == (3, 4)


def test_neither_key_nor_answer_of_another_key_is_in_the_file(stub, tmp_path):
    with endpoint(stub, cache=tmp_path / "c.sqlite") as model:
        model.chat(HELLO)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert KEY not in repr(model.usage) + repr(model.budget)


def test_threads_with_one_request_pay_once(stub, tmp_path):
    stub.plan = [late(0.3)]
    with endpoint(stub, cache=tmp_path / "c.sqlite") as model:
        replies = list(model.chats([HELLO] * 6, threads=6))
    assert {reply.texts[0] for reply in replies} == {"echo: Hello"}
    assert (len(stub.requests), model.usage.calls, model.usage.cached) == (1, 1, 5)


ASKS = """
import sys
from mimigenrec.endpoint import Endpoint
url, cache, *texts = sys.argv[1:]
with Endpoint("m", url=url, cache=cache) as model:
    for reply in model.chats([[{"role": "user", "content": text}] for text in texts], threads=3):
        print(reply.texts[0], flush=True)
"""


def started(stub, cache, *texts):
    command = [sys.executable, "-c", ASKS, f"{stub.url}/v1", str(cache), *texts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_with_one_cache_pay_once(stub, tmp_path):
    stub.plan = [late(0.1)] * 100
    texts = [f"text {i}" for i in range(8)]
    runs = [started(stub, tmp_path / "c.sqlite", *texts) for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert out.splitlines() == [f"echo: {text}" for text in texts], err
    assert Counter(body["messages"][0]["content"] for body in stub.bodies) == dict.fromkeys(texts, 1)


def test_a_killed_run_pays_for_no_answer_twice(stub, tmp_path):
    """Killed while it waits for the fourth answer; what the server answered before is never asked again."""
    stub.plan = [OK, OK, OK, late(60), late(60), late(60)]
    texts = [f"text {i}" for i in range(6)]
    run = started(stub, tmp_path / "c.sqlite", *texts)
    assert [run.stdout.readline() for _ in range(1)] == ["echo: text 0\n"]
    while len(stub.requests) < 6:
        sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=10)
    run.stdout.close()
    run.stderr.close()
    answered = {body["messages"][0]["content"] for body in stub.bodies[:3]}
    before = len(stub.requests)
    out, err = started(stub, tmp_path / "c.sqlite", *texts).communicate(timeout=60)
    assert out.splitlines() == [f"echo: {text}" for text in texts], err
    again = {body["messages"][0]["content"] for body in stub.bodies[before:]}
    assert again == set(texts) - answered  # the locks of the killed process are gone too


# ---- budgets


def test_calls_are_never_more_than_the_budget_and_a_rerun_goes_on(stub, protocol, tmp_path):
    conversations = [ask(f"text {i}") for i in range(10)]
    budget = Budget(max_calls=4)
    with endpoint(stub, protocol, cache=tmp_path / "c.sqlite", budget=budget) as model:
        with pytest.raises(BudgetSpent, match="max_calls 4 is spent: 4 calls, 0 of them") as error:
            list(model.chats(conversations, threads=3))
        assert len(stub.requests) == 4 == len(model.cache) and "40 prompt tokens" in str(error.value)
    with endpoint(stub, protocol, cache=tmp_path / "c.sqlite", budget=Budget(max_calls=6)) as model:
        replies = list(model.chats(conversations, threads=3))
    assert [reply.texts[0] for reply in replies] == [f"echo: text {i}" for i in range(10)]
    assert (model.usage.calls, model.usage.cached) == (6, 4) and len(stub.requests) == 10


def test_repeated_calls_count_and_end_the_budget_too(stub, pauses):
    stub.plan = [refuse(503)] * 5
    with endpoint(stub, budget=Budget(max_calls=2)) as model, pytest.raises(BudgetSpent, match="2 calls, "):
        model.chat(HELLO)
    assert len(stub.requests) == 2


def test_tokens_are_counted_and_no_call_begins_once_they_are_spent(stub, protocol):
    with endpoint(stub, protocol, budget=Budget(max_tokens_total=31)) as model:
        with pytest.raises(
            BudgetSpent, match="max_tokens_total 31 is spent: 3 calls.*30 prompt tokens, 15 completion"
        ):
            list(model.chats([ask(str(i)) for i in range(9)], threads=1))
    assert len(stub.requests) == 3  # 15 tokens each: 30 are below 31, 45 are not


def test_endpoints_share_a_budget_and_each_has_its_usage(stub):
    budget = Budget(max_calls=3)
    with endpoint(stub, budget=budget) as teacher, endpoint(stub, "gemini", budget=budget) as simulator:
        teacher.chat(HELLO)
        simulator.embed(["some text"])
        teacher.chat(HELLO)
        with pytest.raises(BudgetSpent):
            simulator.chat(HELLO)
    assert (teacher.usage.calls, simulator.usage.calls, budget.usage.calls) == (2, 1, 3)
    assert (simulator.usage.prompt_tokens, simulator.usage.estimated) == (3, 1)  # 9 characters, Gemini does not tell


def test_a_server_that_tells_no_tokens_is_counted_by_characters(stub):
    stub.plan = [answer(200, {"choices": [{"message": {"content": "x" * 9}}], "usage": {"prompt_tokens": "many"}})]
    with endpoint(stub) as model:
        reply = model.chat(ask("y" * 8))
    assert (reply.prompt_tokens, reply.completion_tokens, model.usage.estimated) == (2, 3, 1)


# ---- threads


def test_replies_come_in_order_whichever_is_first(stub):
    stub.plan = [late(0.4), late(0.2), late(0.1)]
    started = monotonic()
    with endpoint(stub) as model:
        replies = list(model.chats((ask(str(i)) for i in range(9)), threads=3))
    assert [reply.texts[0] for reply in replies] == [f"echo: {i}" for i in range(9)]
    assert monotonic() - started < 0.7  # at once, not one after the other


def test_after_a_failure_no_further_call_begins_and_pauses_end(stub):
    """The first waits a minute for a second attempt, the third is refused for good: the second answer is kept."""
    stub.plan = [refuse(503, wait="60"), OK, refuse(401, "who are you?")]
    started = monotonic()
    with endpoint(stub) as model:
        with pytest.raises(EndpointError, match="401: who are you"):
            list(model.chats([ask(str(i)) for i in range(50)], threads=3))
    assert monotonic() - started < 5 and len(stub.requests) <= 6


def test_after_a_failure_a_call_that_waits_is_not_repeated(stub):
    stub.plan = [refuse(503, wait="60"), refuse(401, "who are you?")]
    with endpoint(stub) as model, pytest.raises(EndpointError, match="401: who are you"):
        list(model.chats([ask("0"), ask("1")], threads=2))
    assert len(stub.requests) == 2


def test_in_threads_yields_what_was_there_before_the_failure():
    def work(number):
        if number == 5:
            raise UserError("five")
        sleep(0.01)
        return number

    got = []
    with pytest.raises(UserError, match="five"):
        for result in in_threads(work, range(100), threads=2):
            got.append(result)
    assert got == [0, 1, 2, 3, 4]


def test_in_threads_ends_when_its_caller_wants_no_more():
    stop, done = Event(), []
    results = in_threads(lambda number: done.append(number), range(1000), 2, stop)
    next(results)
    results.close()
    assert stop.is_set() and len(done) < 10


def test_no_log_of_any_library_holds_the_key(stub, protocol, caplog):
    with caplog.at_level(logging.DEBUG), endpoint(stub, protocol) as model:
        model.chat(HELLO)
        model.embed(["one"])
    assert KEY not in caplog.text
