"""A small web server for one page on this machine: http.server on 127.0.0.1, with a secret in the address.

Whoever does not know the secret gets nothing, and it is compared in constant time. Pages of other sites cannot come in
either: a request must name this machine as its host (against DNS rebinding), and one that changes something must come
from the page itself. The page may load nothing from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from legacy_style.errors import LegacyStyleError, OptionError

HOST = "127.0.0.1"
_OURSELVES = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_PATIENCE = 20.0  # seconds that a browser may take to send, or to receive
_MOST_CONNECTIONS = 64
_MOST_JSON = 2**16  # bytes of a request that is JSON

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Request:
    """What a browser asks: `query` has one text a name; `body` is not read yet and has `length` bytes."""

    query: Mapping[str, str]
    body: BinaryIO
    length: int

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; Refused for anything else."""
        if self.length > _MOST_JSON:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is too much to ask at once")
        try:
            found = json.loads(self.body.read(self.length))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the request is not a JSON object")
        return found


@dataclass(frozen=True)
class Answer:
    """What a browser gets: `body`, or pieces that are sent as they come. `name` offers it as a file to keep."""

    kind: str
    body: bytes | Iterator[bytes]
    name: str = ""
    status: HTTPStatus = HTTPStatus.OK


class Refused(Exception):
    """A request that cannot be met, with a sentence for the one who made it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def as_json(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer that is a JSON object."""
    return Answer("application/json", json.dumps(value).encode(), status=status)


Routes = Mapping[str, Callable[[Request], Answer]]
"""`GET name` or `POST name` -> what answers it, in a thread of its own."""


@dataclass
class Server:
    """The server of one page; `with Server(routes, port) as server` answers until the block ends.

    `port` 0 takes any that is free. Raises OptionError where the port cannot be had.
    """

    routes: Routes
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def __enter__(self) -> Server:
        try:
            self._http = _Http((HOST, self.port), self)
        except (OSError, OverflowError) as error:
            raise OptionError(
                f"port {self.port} of this machine cannot be had ({error}); name another one, or none for any that is"
                " free"
            ) from error
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.1,), name="page", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def address(self) -> str:
        """What to open in a browser; the secret is in it."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: BinaryIO) -> Answer:
        """The answer to a request whose first line has `method` and `target`; Refused where there is none."""
        host = headers.get("Host", "")
        if not _OURSELVES.fullmatch(host):
            raise Refused(
                HTTPStatus.FORBIDDEN, f"this page is for this machine alone: open http://{HOST}:{self.port}"
            )
        path, _, query = target.partition("?")
        token, _, name = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Refused(
                HTTPStatus.NOT_FOUND, "there is nothing here; open the whole address that was printed"
            )
        if method == "POST" and headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Refused(HTTPStatus.FORBIDDEN, "another site asked for this")
        route = self.routes.get(f"{method} {name}")
        if route is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing of that name")
        length = headers.get("Content-Length", "0")
        if not _LENGTH.fullmatch(length):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        named = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
        return route(Request(named, body, int(length)))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_CONNECTIONS  # fewer, and a system lets browsers wait for seconds
    # Elsewhere it means that a port is free at once; on Windows, that two processes may share one.
    allow_reuse_address = os.name != "nt"

    def __init__(self, place: tuple[str, int], page: Server) -> None:
        self.page = page
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(place, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Not of a browser that went away, which is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = _PATIENCE
    server_version, sys_version = "legacy-style", ""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        try:
            # A Message finds headers whatever their case; to its types it is no Mapping.
            found = self.server.page.answer(method, self.path, self.headers, self.rfile)  # type: ignore[arg-type]
        except Refused as refusal:
            found = as_json({"error": str(refusal)}, refusal.status)
        except LegacyStyleError as error:  # of a file that is gone, or a disk that is full
            found = as_json({"error": str(error)}, HTTPStatus.CONFLICT)
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        if isinstance(found.body, bytes):
            self.send_header("Content-Length", str(len(found.body)))
        if found.name:
            self.send_header("Content-Disposition", f'attachment; filename="{found.name}"')
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(found.body, bytes):
            self.wfile.write(found.body)
            return
        # The iterators of answers are generators, which can be closed.
        with contextlib.closing(found.body) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: stderr belongs to the run."""
