"""A language model's server on the loopback, in a thread, that answers, refuses or breaks as a test tells it.

    stub.plan = [refuse(429, wait="2"), cut(), OK]     # one per request, in order; when they are used up, OK
    stub.requests                                      # what came in: (path, headers, body)

OK answers as the protocol of the path does: a chat with "echo: " and the last message's text, and per text the vector
[length, 1.0].
"""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import sleep


def answer(status, body=b"", **headers):
    """Any answer; headers with _ for -."""

    def act(handler, asked):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def refuse(status, message="slow down", wait=None):
    body = {"error": {"message": message, "code": status, "status": "REFUSED"}}
    return answer(status, body, **({"Retry_After": wait} if wait else {}))


def drop(handler, asked):
    """The connection ends without an answer."""
    handler.close_connection = True


def cut(handler, asked):
    """The connection ends in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def late(seconds):
    """The right answer, too late."""

    def act(handler, asked):
        sleep(seconds)
        try:
            OK(handler, asked)
        except OSError:  # the client has gone
            handler.close_connection = True

    return act


def OK(handler, asked):
    if handler.path.endswith("embeddings"):
        data = [{"index": i, "embedding": [len(text), 1.0]} for i, text in enumerate(asked["input"])]
        content = {"data": data[::-1], "usage": {"prompt_tokens": len(data), "total_tokens": len(data)}}
    elif handler.path.endswith("completions"):
        said = {"role": "assistant", "content": f"echo: {asked['messages'][-1]['content']}"}
        choices = [{"index": i, "message": said, "finish_reason": "stop"} for i in range(asked.get("n", 1))]
        content = {"choices": choices[::-1], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    elif handler.path.endswith(":batchEmbedContents"):
        texts = [one["content"]["parts"][0]["text"] for one in asked["requests"]]
        content = {"embeddings": [{"values": [len(text), 1.0]} for text in texts]}
    else:
        part = {"text": f"echo: {asked['contents'][-1]['parts'][0]['text']}"}
        parts = [{"text": "let me think", "thought": True}, part]
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
        counts = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 2}
        n = asked["generationConfig"].get("candidateCount", 1)
        content = {"candidates": [candidate] * n, "usageMetadata": counts}
    answer(200, content)(handler, asked)


class Stub:
    def __init__(self, url):
        self.url, self.plan, self.requests, self.lock = url, [], [], Lock()

    @property
    def bodies(self):
        return [body for _, _, body in self.requests]


@contextmanager
def stub_server():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else headers and body, two writes, wait 40 ms for each other

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.requests.append((self.path, headers, asked))
                act = stub.plan.pop(0) if stub.plan else OK
            act(self, asked)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = Stub(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
