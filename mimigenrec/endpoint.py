"""One client for language models behind an address: chat and embeddings, by OpenAI's protocol or Gemini's.

    budget = Budget(max_calls=500, max_tokens_total=2_000_000)      # several endpoints may share it
    with Endpoint("gpt-4.1-mini", cache="answers.sqlite", budget=budget) as teacher:
        reply = teacher.chat([{"role": "user", "content": "Which film?"}], temperature=0.0, seed=7)
        replies = teacher.chats(conversations, threads=8)           # as they come, in the order of the conversations
        vectors = teacher.embed(texts)                              # (n, dim) float32
    print(teacher.usage)

Every answer passes through the cache (request_cache.py) under a hash of all that determines it: protocol, address,
model, messages or text, settings, and `draw`. It is on the disk before it is returned, so a run that was killed, or
that its budget stopped, pays for no answer twice when it is started again. Keys come from the environment alone
(OPENAI_API_KEY; GEMINI_API_KEY or GOOGLE_API_KEY); no cached request, log line or error message holds one.

408, 409, 429, 5xx and lost connections are tried again, after the time that the server names (Retry-After) or an
exponential one with jitter, at most `attempts` times. Any other refusal ends the run with the server's own words.
`tenacity` does the waiting: it is kept, and google-genai brings it anyway.
"""

import json
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.extras import need
from mimigenrec.protocols import PROTOCOLS, Failure, Message, Reply
from mimigenrec.request_cache import RequestCache, as_json, key_of

FORMAT = 1  # of what the cache keeps; a part of every request
CHARACTERS_PER_TOKEN = 4  # where a server does not say how many tokens there were: OpenAI's rule of thumb for English
ROLES = ("system", "user", "assistant")
LONGEST_BACKOFF = 60.0  # seconds
REMEDIES = {401: "; check the key in {key}", 404: "; check the address and the name of the model"}
REMEDIES[403] = REMEDIES[401]

logger = logging.getLogger(__name__)
Item, Result = TypeVar("Item"), TypeVar("Result")


class EndpointError(UserError, ConnectionError):
    """A server that gives no usable answer. status: that of its last answer; None where it gave none."""

    def __init__(self, text: str, status: int | None = None):
        super().__init__(text)
        self.status = status


@dataclass
class Usage:
    """What was asked and answered so far."""

    calls: int = 0  # requests sent, repeated ones too
    retries: int = 0  # those of them that repeat one
    cached: int = 0  # replies and vectors that came from the cache
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # calls whose tokens the server did not tell and that are counted at 4 characters per token

    def add(self, **counts: int) -> None:
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)

    def __str__(self) -> str:
        return (
            f"{self.calls} calls, {self.retries} of them repeated; {self.cached} answers from the cache; "
            f"{self.prompt_tokens} prompt tokens, {self.completion_tokens} completion tokens"
        )


class BudgetSpent(UserError):
    """The next call would exceed a budget. What was answered before is in the cache."""

    def __init__(self, limit: str, usage: Usage):
        super().__init__(limit)
        self.limit, self.usage = limit, usage

    def __str__(self) -> str:  # when it is read, the calls that were under way have ended and are counted
        return (
            f"the budget {self.limit} is spent: {self.usage}. Give more, and the same command goes on from the "
            f"answers in its cache"
        )


@dataclass
class Budget:
    """The most that all endpoints with this budget may spend in one run; None for no limit.

    max_calls         requests sent, repeated ones too; never exceeded
    max_tokens_total  tokens of prompts and completions; once they are spent no call begins, and those under way end
    """

    max_calls: int | None = None
    max_tokens_total: int | None = None
    usage: Usage = field(default_factory=Usage)
    lock: Lock = field(default_factory=Lock, repr=False)

    def take_call(self, endpoint: Usage) -> None:
        """Counts one call. Raises BudgetSpent, saying what was spent, if there is none left."""
        with self.lock:
            tokens = self.usage.prompt_tokens + self.usage.completion_tokens
            limits = {
                "max_calls": (self.max_calls, self.usage.calls),
                "max_tokens_total": (self.max_tokens_total, tokens),
            }
            for name, (limit, spent) in limits.items():
                if limit is not None and spent >= limit:
                    raise BudgetSpent(f"{name} {limit}", self.usage)
            self.usage.calls += 1
            endpoint.calls += 1

    def count(self, endpoint: Usage, **counts: int) -> None:
        """Adds to the usage of an endpoint and to the sum of all."""
        with self.lock:
            self.usage.add(**counts)
            endpoint.add(**counts)


class Endpoint:
    """A model behind an address. Threads may share it.

    model         the name by which the server knows it
    protocol      "openai" for every OpenAI-compatible server, or "gemini"
    url           the server's address, up to /v1 for OpenAI's protocol; None for the vendor's own
    key_variable  environment variable that holds the key, where it is not the protocol's own
    cache         file to keep answers in; None keeps nothing
    budget        limits; None for no limit
    timeout       seconds to wait for an answer (600 as in OpenAI's library)
    attempts      the most requests for one answer
    longest_wait  seconds; a server that asks to wait longer ends the run
    raises        UserError for settings that cannot be meant and a missing key; MissingPackage
    """

    def __init__(
        self,
        model: str,
        *,
        protocol: str = "openai",
        url: str | None = None,
        key_variable: str | None = None,
        cache: str | Path | None = None,
        budget: Budget | None = None,
        timeout: float = 600.0,
        attempts: int = 8,
        longest_wait: float = 120.0,
    ):
        need("tenacity", "a model behind an address")
        if protocol not in PROTOCOLS:
            raise UserError(f"there is no protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
        kind = PROTOCOLS[protocol]
        self.model, self.protocol, self.url = model, protocol, _checked_url(url or kind.URL)
        self.attempts, self.longest_wait = attempts, longest_wait
        self.usage, self.budget = Usage(), budget or Budget()
        self.cache = RequestCache(cache) if cache else None
        names = (key_variable,) if key_variable else kind.KEYS
        self._key_names = " or ".join(names)
        self._key = _read_key(names, needed=url is None or key_variable is not None)
        self._wire = kind(self.url, self._key, timeout)

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *error) -> None:
        self._wire.close()

    def chat(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = 0.0,
        seed: int | None = None,
        max_tokens: int | None = None,
        n: int = 1,
        draw: int = 0,
        stop_waiting: Event | None = None,
        **settings: Any,
    ) -> Reply:
        """The server's reply to one conversation.

        messages      [{"role": "system" | "user" | "assistant", "content": text}, ...]
        temperature   None where the model takes none
        n             number of texts in the reply
        draw          is not sent; another number asks anew what the cache has an answer to
        stop_waiting  ends pauses between attempts early, and then no further attempt is made; see in_threads
        settings      sent as they are: top_p, stop, response_format, ... (Gemini: fields of GenerateContentConfig)
        raises        UserError for messages of another form; EndpointError; BudgetSpent; CancelledError once
                      stop_waiting is set
        """
        _check_messages(messages)
        temperature = temperature if temperature is None else float(temperature)  # 0 and 0.0 are one request
        given = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens, **settings}
        given |= {"n": n} if n > 1 else {}  # a server may not know it
        given = {name: value for name, value in given.items() if value is not None}
        request = {
            "kind": "chat",
            "messages": [dict(message) for message in messages],
            "settings": given,
            "draw": draw,
        }

        def ask(places: Sequence[int]) -> list[bytes]:
            reply = self._ask(lambda: self._wire.chat(self.model, messages, given), stop_waiting)
            prompt, completion = self._spend(reply, [message["content"] for message in messages])
            reply = reply._replace(prompt_tokens=prompt, completion_tokens=completion)
            return [json.dumps(reply._asdict()).encode()]

        [answer] = self._kept([request], ask)
        return Reply(**json.loads(answer))

    def chats(self, conversations: Iterable[Sequence[Message]], threads: int = 8, **settings: Any) -> Iterator[Reply]:
        """`chat` for each conversation, `threads` at once: see in_threads for order and errors."""
        stop = Event()
        return in_threads(
            lambda messages: self.chat(messages, stop_waiting=stop, **settings), conversations, threads, stop
        )

    def embed(self, texts: Sequence[str], *, batch_size: int = 32, threads: int = 1, **settings: Any) -> np.ndarray:
        """(texts, dim) float32, not normalised. The cache keeps a vector per text, whatever the batches were.

        settings   sent as they are: dimensions, ... (Gemini: fields of EmbedContentConfig)
        raises     EndpointError for vectors of different lengths, too few of them, or NaN in one; BudgetSpent
        """
        for number, text in enumerate(texts, 1):
            _check_text(text, f"text {number}")
        stop = Event()
        requests = {text: {"kind": "embed", "text": text, "settings": settings} for text in texts}
        vector_of = self._known(requests)
        missing = [text for text in requests if text not in vector_of]
        batches = [missing[first : first + batch_size] for first in range(0, len(missing), batch_size)]

        def embedded(batch: list[str]) -> list[bytes]:
            def ask(places: Sequence[int]) -> list[bytes]:
                some = [batch[place] for place in places]
                vectors, tokens = self._ask(lambda: self._wire.embed(self.model, some, settings), stop)
                self._spend(Reply([], [], tokens, 0), some)
                return [vector.tobytes() for vector in vectors]

            return self._kept([requests[text] for text in batch], ask)

        for batch, vectors in zip(batches, in_threads(embedded, batches, threads, stop), strict=True):
            vector_of.update(zip(batch, vectors, strict=True))
        sizes = sorted({len(vector) // 4 for vector in vector_of.values()})
        if len(sizes) > 1:
            raise EndpointError(
                f"{self.url} gave vectors of different lengths for {self.model} ({sizes[0]} and {sizes[-1]} numbers), "
                f"so two models had this name; take another cache"
            )
        rows = [np.frombuffer(vector_of[text], dtype=np.float32) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def _known(self, requests: dict[str, dict[str, Any]]) -> dict[str, bytes]:
        """What the cache has, by text, in one look: so that the rest goes to the server in full batches."""
        if self.cache is None:
            return {}
        keys = {text: key_of(self._as_text(request)) for text, request in requests.items()}
        answers = self.cache.get(keys.values())
        self.budget.count(self.usage, cached=len(answers))
        return {text: answers[key] for text, key in keys.items() if key in answers}

    def _kept(self, requests: Sequence[dict[str, Any]], ask: Callable[[Sequence[int]], list[bytes]]) -> list[bytes]:
        """The answers to several requests: from the cache, the others by one `ask(places)` and kept before they are
        returned. Another thread or process with the same request waits, and then finds the answer."""
        if self.cache is None:
            return ask(range(len(requests)))
        bodies = [self._as_text(request) for request in requests]
        keys = [key_of(body) for body in bodies]
        with self.cache.alone(keys):
            answers = self.cache.get(keys)
            self.budget.count(self.usage, cached=len(answers))
            places = [place for place, key in enumerate(keys) if key not in answers]
            if places:
                new = dict(zip(places, ask(places), strict=True))
                self.cache.put({keys[place]: (bodies[place], answer) for place, answer in new.items()})
                answers |= {keys[place]: answer for place, answer in new.items()}
        return [answers[key] for key in keys]

    def _as_text(self, request: dict[str, Any]) -> str:
        """All that determines an answer, as the cache knows it."""
        return as_json({"format": FORMAT, "protocol": self.protocol, "url": self.url, "model": self.model, **request})

    def _ask(self, call: Callable[[], Result], stop_waiting: Event | None) -> Result:
        """One answer of the server, in as many attempts as it takes. Raises EndpointError or BudgetSpent."""
        import tenacity

        stop_waiting = stop_waiting or Event()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failure) and self._is_passing(error)),
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_when_event_set(stop_waiting),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(stop_waiting),
            before_sleep=self._announce,
            reraise=True,
        )
        try:
            return retrying(self._attempt, call, stop_waiting)
        except Failure as failure:
            attempts = retrying.statistics["attempt_number"]
            raise EndpointError(self._last_words(failure, attempts), failure.status) from None

    def _attempt(self, call: Callable[[], Result], stop_waiting: Event) -> Result:
        if stop_waiting.is_set():  # in the pause before this attempt
            raise CancelledError
        self.budget.take_call(self.usage)
        return call()

    def _is_passing(self, failure: Failure) -> bool:
        return failure.again and (failure.retry_after or 0) <= self.longest_wait

    def _pause(self, state: Any) -> float:
        """Seconds until the next attempt: the server's wish and up to one more, so that threads do not come back all
        at once; else a random time below 1, 2, 4, ... seconds."""
        import tenacity

        wish = state.outcome.exception().retry_after
        if wish is not None:
            return wish + random.random()
        return tenacity.wait_random_exponential(max=min(LONGEST_BACKOFF, self.longest_wait))(state)

    def _announce(self, state: Any) -> None:
        self.budget.count(self.usage, retries=1)
        logger.warning(
            "%s; attempt %d of %d in %.0f s",
            self._without_key(str(state.outcome.exception())),
            state.attempt_number + 1,
            self.attempts,
            state.next_action.sleep,
        )

    def _last_words(self, failure: Failure, attempts: int) -> str:
        text = self._without_key(str(failure)) + REMEDIES.get(failure.status, "").format(key=self._key_names)
        if failure.again and not self._is_passing(failure):
            text += f"; it asks to wait {failure.retry_after:.0f} s, run the same command again then"
        elif attempts > 1:
            text += f"; {attempts} attempts were made, run the same command again when it answers"
        return text

    def _without_key(self, text: str) -> str:
        """Servers quote the key that they refuse."""
        return text.replace(self._key, "***") if self._key else text

    def _spend(self, reply: Reply, prompts: Sequence[str]) -> tuple[int, int]:
        """Counts the tokens of a reply: as the server told them, else by their characters."""
        told = reply.prompt_tokens is not None and reply.completion_tokens is not None
        prompt, completion = (
            -(-sum(map(len, texts)) // CHARACTERS_PER_TOKEN) if tokens is None else tokens
            for tokens, texts in ((reply.prompt_tokens, prompts), (reply.completion_tokens, reply.texts))
        )
        self.budget.count(self.usage, prompt_tokens=prompt, completion_tokens=completion, estimated=0 if told else 1)
        return prompt, completion


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, stop: Event | None = None
) -> Iterator[Result]:
    """function(item) for each item, `threads` at once; the results in the order of the items, as they come.

    stop     set as soon as one fails: then no further item is begun, those under way end, and the error is raised at
             the place of the first item without a result
    """
    stop, errors, items = stop or Event(), [], iter(items)

    def one(item: Item) -> Result:
        if stop.is_set():
            raise CancelledError
        try:
            return function(item)
        except BaseException as error:
            errors.append(error)
            stop.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future] = deque(pool.submit(one, item) for item in islice(items, 2 * threads))
        try:
            while waiting:
                try:
                    result = waiting.popleft().result()
                except Exception as error:
                    raise (errors or [error])[0] from None
                waiting.extend(pool.submit(one, item) for item in islice(items, 1))
                yield result
        finally:
            stop.set()  # Ctrl-C, or a caller that wants no more
            pool.shutdown(cancel_futures=True)


def _checked_url(url: str) -> str:
    """The address without a slash at its end. Raises UserError for one that holds more, which the cache would keep."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url!r} is no address of a server; give one like http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"the address of {parts.hostname} holds a user, a password or a query, which would stand in files; give "
            f"the address alone, and the key in the environment"
        )
    return url.rstrip("/")


def _read_key(names: Sequence[str], needed: bool) -> str | None:
    """The first of these environment variables that is set. Raises UserError, without the key, for one that no HTTP
    header can hold; and if none is set though needed."""
    for name in names:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise UserError(f"the environment variable {name} holds characters that no key has; set it again")
            return key
    if needed:
        raise UserError(f"no key: set the environment variable {' or '.join(names)}, or give the address of a server")
    return None


def _check_messages(messages: Sequence[Message]) -> None:
    """Raises UserError naming the message that has another form."""
    if isinstance(messages, str) or not messages:
        raise UserError(f"a conversation is a list of messages, found {messages!r}")
    for number, message in enumerate(messages, 1):
        whole = set(message) == {"role", "content"} if isinstance(message, dict) else False
        if not whole or message["role"] not in ROLES or not isinstance(message["content"], str):
            raise UserError(
                f"message {number} must have a role ({', '.join(ROLES)}) and a text as content, found "
                f"{str(message)[:80]!r}"
            )
        _check_text(message["content"], f"message {number}")


def _check_text(text: str, name: str) -> None:
    """Raises UserError for half a surrogate pair, which no server can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} is no Unicode text ({error.reason}); clean it first") from error
