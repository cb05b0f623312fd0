"""A server on this machine that answers well or badly, as a test tells it, and counts who asked for what.

with FaultyServer({"/a.txt": b"whole"}) as server:
    server.script("/a.txt", status(429, retry_after=0), TRUNCATED)  # then well for ever
    ...  # ask for server.url("/a.txt")
    assert server.count("/a.txt") == 3
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Answer:
    """One answer: what is different from a good one."""

    status: int = 200
    body: Any = None  # bytes, text, or what becomes JSON; None is what is served under the path
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds before the first byte
    pause: float = 0.0  # seconds in the middle of the body
    sent: float = 1.0  # part of the promised bytes that is sent before the line breaks
    reset: bool = False  # the connection is torn down without an answer (or, if sent < 1, in the middle of one)
    length: bool = True  # is Content-Length sent? Without it the end of the line is the end of the body.


OK = Answer()
TRUNCATED = Answer(sent=0.5)  # Content-Length of the whole, half of the bytes, end of the line
RESET = Answer(reset=True)  # "connection reset by peer"
WRONG = Answer(
    body=b"<html>Please sign in to this network</html>", headers={"Content-Type": "text/html"}
)  # a status of 200


def slow(seconds: float) -> Answer:
    """The right answer, but only after a while."""
    return Answer(wait=seconds)


def stalled(seconds: float) -> Answer:
    """The right answer, with a pause in the middle."""
    return Answer(pause=seconds)


def status(code: int, body: Any = b"", retry_after: float | str | None = None) -> Answer:
    """An error such as 404, 429 or 503; ``retry_after`` in seconds, or the text of the header (an HTTP date)."""
    return Answer(code, body, {} if retry_after is None else {"Retry-After": str(retry_after)})


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str  # decoded, without the query
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case


def nobody() -> str:
    """A URL on this machine at which nobody listens: the connection is refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class FaultyServer:
    """Serves a folder, or {path: content}, over http on this machine, with the faults that a test has scripted.

    Content is bytes, text, what becomes JSON, or a function of the `Request` that returns one of these or an `Answer`.
    A path that is not served answers 404. ``contents`` may be changed while the server runs.

    Attributes:
        contents: {path: content}, looked at before the folder.
        requests: every `Request` so far, in the order of arrival.
    """

    def __init__(self, contents: Mapping[str, Any] | None = None, folder: str | Path | None = None):
        self.contents: dict[str, Any] = dict(contents or {})
        self.folder = None if folder is None else Path(folder)
        self.requests: list[Request] = []
        self._scripts: dict[str, list[Answer]] = {}
        self._always: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> "FaultyServer":
        handler = type("Handler", (_Handler,), {"faulty": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on connections to the same address are refused."""
        if not self._over.is_set():
            self._over.set()  # those who wait answer no more
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def script(self, path: str, *answers: Answer) -> None:
        """The next answers to requests for a path, or for "*", any path without a script; afterwards all is well."""
        with self._lock:
            self._scripts[path] = list(answers)

    def always(self, path: str, answer: Answer | None) -> None:
        """The answer to every request for a path (or "*") once its script is used up; None ends that."""
        with self._lock:
            self._always.pop(path, None)
            if answer is not None:
                self._always[path] = answer

    def count(self, path: str | None = None) -> int:
        """Requests so far, for one path or all."""
        return len(self.requests) if path is None else len([r for r in self.requests if r.path == path])

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            for path in (request.path, "*"):
                if self._scripts.get(path):
                    return self._scripts[path].pop(0)
            return self._always.get(request.path) or self._always.get("*") or OK

    def _content(self, request: Request) -> Any:
        """What is served under a path; None is nothing."""
        content: Any = self.contents.get(request.path)
        if content is None and self.folder is not None and ".." not in request.path:
            file = self.folder / request.path.lstrip("/")
            content = file.read_bytes() if file.is_file() else None
        return content(request) if isinstance(content, Callable) else content  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer in two parts waits 40 ms for the client to acknowledge the first
    faulty: FaultyServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(parts.path), parse_qs(parts.query, True), headers)
        answer, over = self.faulty._answer(request), self.faulty._over
        if over.wait(answer.wait) or (answer.reset and answer.sent == 1):
            return self._tear()
        code, body, extra = answer.status, answer.body, dict(answer.headers)
        if body is None:
            body = self.faulty._content(request)
            if isinstance(body, Answer):
                code, body, extra = body.status, body.body, extra | dict(body.headers)
            elif body is None:
                code, body = 404, b"not found"
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            extra, body = {"Content-Type": "application/json"} | extra, json.dumps(body).encode()
        asked = headers.get("range", "")
        if code == 200 and asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            low = int(first) if first else max(0, len(body) - int(last))
            high = int(last) + 1 if first and last else len(body)
            extra["Content-Range"] = f"bytes {low}-{min(high, len(body)) - 1}/{len(body)}"
            code, body = 206, body[low:high]
        self.send_response(code)
        for name, value in extra.items():
            self.send_header(name, value)
        if answer.length:
            self.send_header("Content-Length", str(len(body)))
        if not answer.length or answer.sent < 1:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return None
        middle = len(body) // 2 if answer.pause else 0
        self.wfile.write(body[:middle])
        self.wfile.flush()
        if over.wait(answer.pause):
            return self._tear()
        self.wfile.write(body[middle : int(len(body) * answer.sent)])
        self.wfile.flush()
        if answer.sent < 1 and answer.reset:
            return self._tear()
        return None

    do_HEAD = do_GET

    def _tear(self) -> None:
        # Linger 0: the kernel sends RST in the place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError, OSError):  # the client has gone, or the test is over
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
