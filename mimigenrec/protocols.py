"""What goes over the wire to a language model and what comes back: OpenAI's protocol and Gemini's.

    protocol = PROTOCOLS["openai"](url, key, timeout)
    reply = protocol.chat(model, messages, {"temperature": 0.0, "n": 1})
    vectors, tokens = protocol.embed(model, texts, {})

Each sends one request and never repeats it; endpoint.py decides about that from the Failure raised here. Why these
libraries: `openai` and `google-genai` are kept by the vendors, take the address of any server, and know the settings
and the errors of their protocol. Their own retries are off, since they neither count nor tell them. What a server of
that protocol answers is checked here, field by field: `openai` does not check it, and `google-genai` reads an empty
body as an empty answer.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.extras import need

Message = Mapping[str, str]
QUOTED = 300  # characters of a server's answer that a message shows


class Reply(NamedTuple):
    """What a chat server answered. Token counts are None where it does not tell them."""

    texts: list[str]  # n of them; "" where the server withheld it
    reasons: list[str]  # why each ended: "stop", "length", "content_filter", "safety", ...
    prompt_tokens: int | None
    completion_tokens: int | None


class Failure(Exception):
    """A request without a usable answer.

    status       HTTP status of the answer; None without an answer
    again        whether the same request may succeed later
    retry_after  seconds that the server asks to wait; None where it says nothing
    """

    def __init__(self, text: str, status: int | None = None, again: bool = False, retry_after: float | None = None):
        super().__init__(text)
        self.status, self.again, self.retry_after = status, again, retry_after


def is_passing(status: int) -> bool:
    """408 a time-out, 409 a conflict, 429 too many requests, 5xx the server's own trouble."""
    return status in (408, 409, 429) or 500 <= status < 600


def seconds_to_wait(value: str | None, now: datetime | None = None) -> float | None:
    """Retry-After, seconds or an HTTP date -> seconds, at least 0; None for what is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


class OpenAI:
    """POST {url}/chat/completions and {url}/embeddings."""

    URL = "https://api.openai.com/v1"
    KEYS = ("OPENAI_API_KEY",)

    def __init__(self, url: str, key: str | None, timeout: float):
        need("openai", "an OpenAI-compatible server")
        import openai

        self.url, self.library, self.timeout = url, openai, timeout
        self.client = openai.OpenAI(api_key=key or "none", base_url=url, timeout=timeout, max_retries=0)
        self.headers = {} if key else {"Authorization": openai.Omit()}  # a local server often wants none

    def chat(self, model: str, messages: Sequence[Message], settings: Mapping[str, Any]) -> Reply:
        """settings: temperature, seed, max_tokens, n, and whatever else the server knows."""
        url = f"{self.url}/chat/completions"
        text = self._post(url, self.client.chat.completions, {"model": model, "messages": messages}, settings)
        with _well_formed(url, "a chat server", text):
            answer = json.loads(text)
            choices = sorted(enumerate(answer["choices"]), key=lambda place: place[1].get("index", place[0]))
            texts = [choice["message"].get("content") or "" for _, choice in choices]
            reasons = [str(choice.get("finish_reason") or "unknown") for _, choice in choices]
            usage = answer.get("usage") or {}
            counts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(_checked(url, texts, settings.get("n", 1), text), reasons, *counts)

    def embed(
        self, model: str, texts: Sequence[str], settings: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int | None]:
        """One vector per text, float32, and the tokens of all."""
        url = f"{self.url}/embeddings"
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        text = self._post(url, self.client.embeddings, body, settings)
        with _well_formed(url, "an embeddings server", text):
            answer = json.loads(text)
            embedding_of = {one["index"]: one["embedding"] for one in answer["data"]}
            tokens = _count((answer.get("usage") or {}).get("prompt_tokens"))
        if set(embedding_of) != set(range(len(texts))):
            raise Failure(f"{url} gave {len(embedding_of)} vectors for {len(texts)} texts, or numbered them otherwise")
        return _vectors(url, texts, [embedding_of[index] for index in range(len(texts))]), tokens

    def _post(self, url: str, resource: Any, body: dict[str, Any], settings: Mapping[str, Any]) -> str:
        """The body of the answer, whatever it holds."""
        library = self.library
        try:
            answer = resource.with_raw_response.create(**body, extra_body=dict(settings), extra_headers=self.headers)
            return answer.text
        except library.APIStatusError as error:
            raise _refused(
                url, error.status_code, error.response.text, error.response.headers.get("retry-after")
            ) from None
        except library.APITimeoutError:
            raise Failure(f"{url} gave no answer within {self.timeout:g} s", again=True) from None
        except library.APIConnectionError as error:
            raise _lost(url, error.__cause__ or error) from None

    def close(self) -> None:
        self.client.close()


class Gemini:
    """POST {url}/v1beta/models/{model}:generateContent and :batchEmbedContents."""

    URL = "https://generativelanguage.googleapis.com"
    KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    NAMES = {"max_tokens": "max_output_tokens", "n": "candidate_count", "stop": "stop_sequences"}
    REASONS = {"max_tokens": "length"}  # what OpenAI's protocol calls it

    def __init__(self, url: str, key: str | None, timeout: float):
        need("google-genai", "Gemini")
        import httpx
        from google import genai

        self.url, self.library, self.httpx, self.timeout = url, genai, httpx, timeout
        options = genai.types.HttpOptions(
            base_url=url,
            timeout=math.ceil(timeout * 1000),
            retry_options=genai.types.HttpRetryOptions(attempts=1),
            client_args={"follow_redirects": False},  # the key would go along
        )
        self.client = genai.Client(api_key=key or "none", vertexai=False, http_options=options)

    def chat(self, model: str, messages: Sequence[Message], settings: Mapping[str, Any]) -> Reply:
        """settings: temperature, seed, max_tokens, n, stop, and fields of google-genai's GenerateContentConfig."""
        types, url = self.library.types, f"{self.url}/v1beta/models/{model}:generateContent"
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        contents = [
            types.Content(
                role="model" if message["role"] == "assistant" else "user",
                parts=[types.Part(text=message["content"])],
            )
            for message in messages
            if message["role"] != "system"
        ]
        names = {self.NAMES.get(name, name): value for name, value in settings.items()}
        config = self._config(types.GenerateContentConfig, names | ({"system_instruction": system} if system else {}))
        answer = self._send(
            url, lambda: self.client.models.generate_content(model=model, contents=contents, config=config)
        )
        texts, reasons = [], []
        for candidate in answer.candidates or []:
            parts = (candidate.content and candidate.content.parts) or []
            if not parts and not candidate.finish_reason:  # google-genai makes one of anything
                raise Failure(f"{url} did not answer as Gemini does: a candidate has no content")
            texts.append("".join(part.text for part in parts if part.text and not part.thought))
            reason = (candidate.finish_reason.name if candidate.finish_reason else "unknown").lower()
            reasons.append(self.REASONS.get(reason, reason))
        if not texts and answer.prompt_feedback and answer.prompt_feedback.block_reason:
            n = settings.get("n", 1)
            texts, reasons = [""] * n, [answer.prompt_feedback.block_reason.name.lower()] * n
        texts = _checked(url, texts, settings.get("n", 1), "")
        usage = answer.usage_metadata
        written = [usage and usage.candidates_token_count, usage and usage.thoughts_token_count]
        completion = None if written[0] is None else sum(count or 0 for count in written)
        return Reply(texts, reasons, usage and usage.prompt_token_count, completion)

    def embed(
        self, model: str, texts: Sequence[str], settings: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int | None]:
        """One vector per text, float32; Gemini does not tell how many tokens the texts have.

        settings: fields of google-genai's EmbedContentConfig.
        """
        url = f"{self.url}/v1beta/models/{model}:batchEmbedContents"
        config = self._config(self.library.types.EmbedContentConfig, settings)
        answer = self._send(
            url, lambda: self.client.models.embed_content(model=model, contents=list(texts), config=config)
        )
        values = [embedding.values for embedding in answer.embeddings or []]
        if len(values) != len(texts):
            raise Failure(f"{url} gave {len(values)} vectors for {len(texts)} texts")
        return _vectors(url, texts, values), None

    def _config(self, kind: type, settings: Mapping[str, Any]) -> Any:
        try:
            return kind(**settings)
        except ValueError as error:  # pydantic's
            first = str(error).splitlines()[1:3]
            raise UserError(f"Gemini takes no such setting ({': '.join(map(str.strip, first))})") from error

    def _send(self, url: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self.library.errors.APIError as error:
            said = error.response.text if hasattr(error.response, "text") else json.dumps(error.details)
            header = error.response.headers.get("retry-after") if hasattr(error.response, "headers") else None
            raise _refused(url, error.code, said, header or _retry_delay(error.details)) from None
        except self.httpx.TimeoutException:
            raise Failure(f"{url} gave no answer within {self.timeout:g} s", again=True) from None
        except self.httpx.RequestError as error:
            raise _lost(url, error) from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # the library's reading
            body = _quoted(getattr(error, "doc", ""))
            raise Failure(f"{url} did not answer as Gemini does ({_first_line(error)}): {body}") from None

    def close(self) -> None:
        self.client.close()


PROTOCOLS = {"openai": OpenAI, "gemini": Gemini}


def _refused(url: str, status: int, body: str, retry_after: str | None) -> Failure:
    return Failure(
        f"{url} answered {status}: {_quoted(_message_in(body)) or 'nothing'}",
        status,
        is_passing(status),
        seconds_to_wait(retry_after),
    )


def _message_in(body: str) -> str:
    """{"error": {"message": "..."}} -> the message; any other body as it is."""
    try:
        said = json.loads(body)["error"]
        return str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError, RecursionError):
        return body


def _quoted(body: str) -> str:
    """The beginning of an answer, on one line."""
    return " ".join(body.split())[:QUOTED]


def _retry_delay(details: Any) -> str | None:
    """Gemini says it in the body: {"error": {"details": [{"retryDelay": "23s"}]}}."""
    try:
        delays = [one["retryDelay"] for one in details["error"]["details"] if "retryDelay" in one]
        return str(delays[0]).removesuffix("s") if delays else None
    except (KeyError, TypeError):
        return None


def _lost(url: str, error: BaseException) -> Failure:
    return Failure(f"{url} gave no answer ({_first_line(error)}); see that it runs", again=True)


@contextmanager
def _well_formed(url: str, server: str, body: str):
    """What is not of the protocol's form becomes a Failure that quotes it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Failure(
            f"{url} did not answer as {server} does ({type(error).__name__}: {error}): {_quoted(body)}"
        ) from None


def _checked(url: str, texts: Sequence[Any], n: int, body: str) -> list[str]:
    """n texts, half a surrogate pair in one replaced by "?": no file could hold it."""
    if not all(isinstance(text, str) for text in texts):
        raise Failure(f"{url} did not answer as a chat server does (a content that is no text): {_quoted(body)}")
    if len(texts) != n:
        raise Failure(
            f"{url} gave {len(texts)} answers where n is {n}; if this server knows no n, ask n times with different "
            f"seeds" + (f": {_quoted(body)}" if body else "")
        )
    return [text.encode(errors="replace").decode() for text in texts]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _vectors(url: str, texts: Sequence[str], values: Sequence[Any]) -> list[np.ndarray]:
    """Lists of numbers, one per text -> float32 vectors of one length."""
    try:
        vectors = [np.array(value, dtype=np.float32) for value in values]
    except (ValueError, TypeError, OverflowError) as error:
        raise Failure(f"{url} gave vectors that hold no numbers ({error})") from None
    shapes = list(dict.fromkeys(vector.shape for vector in vectors))
    if any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise Failure(f"{url} gave no list of numbers as a vector")
    if len(shapes) > 1:
        raise Failure(f"{url} gave vectors of different lengths ({shapes[0][0]} and {shapes[1][0]} numbers)")
    for text, vector in zip(texts, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise Failure(f"{url} gave a vector for the text {text[:60]!r} that holds NaN or infinite numbers")
    return vectors


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
