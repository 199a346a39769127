"""A local HTTP server that gets everything wrong that servers of model files get wrong.

`Server.content` is what it offers under every path; the path's words say how: `/cut` closes the connection
early, `/html` sends a page instead, and so on. A path of several words, `/429,cut,good`, misbehaves once per
request in that order and then goes on as its last word says.
"""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

PAGE = b"<!DOCTYPE html><html><title>This site has moved</title><body>Please log in" + b" " * 600
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.removeprefix("http://models.invalid")  # as a proxy is asked
        words = path.strip("/").split(",")
        count = sum(1 for seen, _ in self.server.requests if seen == path)
        self.server.requests.append((path, dict(self.headers)))
        word = words[min(count, len(words) - 1)].partition("?")[0]
        getattr(self, f"word_{word.replace('-', '_')}")()

    def offset(self) -> int:
        asked = self.headers.get("Range", "")
        return 0 if not asked else int(asked.removeprefix("bytes=").removesuffix("-"))

    def send(
        self,
        body: bytes,
        *,
        status: int = 200,
        length: int | None = -1,
        most: int | None = None,
        **headers: str,
    ) -> None:
        """Sends `body`, or its first `most` bytes and then nothing; `length` is what is announced."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.send_header("ETag", self.server.tag)
        for name, value in {"Content_Type": "application/octet-stream", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[:most])
        if most is not None or length != -1:
            self.close_connection = True

    def send_rest(self, **how: Any) -> None:
        """Sends what the request's Range asks for."""
        start, content = self.offset(), self.server.content
        if start >= len(content):
            self.send(b"", status=416, Content_Range=f"bytes */{len(content)}")
        elif start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(content[start:], status=206, Content_Range=span, **how)
        else:
            self.send(content, **how)

    def word_good(self) -> None:
        self.send_rest()

    def word_rest_unasked(self) -> None:
        """The end of the file, whatever was asked for."""
        start, content = self.server.piece, self.server.content
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(content[start:], status=206, Content_Range=span)

    def word_no_ranges(self) -> None:
        self.send(self.server.content)

    def word_cut(self) -> None:
        self.send_rest(most=self.server.piece)

    def word_cut_no_ranges(self) -> None:
        self.send(self.server.content, most=self.server.piece)

    def word_cut_no_length(self) -> None:
        self.send(self.server.content, length=None, most=self.server.piece)

    def word_no_length(self) -> None:
        self.send(self.server.content, length=None)

    def word_says_more(self) -> None:
        self.send_rest(length=len(self.server.content) - self.offset() + 1000)

    def word_says_more_no_ranges(self) -> None:
        self.send(self.server.content, length=len(self.server.content) + 1000)

    def word_says_less(self) -> None:
        self.send_rest(
            length=min(len(self.server.content) - self.offset(), len(self.server.content) * 3 // 4)
        )

    def word_sends_more(self) -> None:
        self.send(self.server.content + b"more")

    def word_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        for _ in range(10000):  # ends when the client hangs up
            self.wfile.write(bytes(range(1, 256)) * 64)

    def word_other_range(self) -> None:
        start, content = self.offset(), self.server.content
        if not start:
            return self.send(content, most=self.server.piece)
        later = start + 7
        span = f"bytes {later}-{len(content) - 1}/{len(content)}"
        return self.send(content[later:], status=206, Content_Range=span)

    def word_whole_as_range(self) -> None:
        content = self.server.content
        span = f"bytes 0-{len(content) - 1}/{len(content)}"
        self.send(content, status=206, Content_Range=span)

    def word_no_such_range(self) -> None:
        if self.offset():
            self.send(b"", status=416)
        else:
            self.send(self.server.content)

    def word_flipped(self) -> None:
        wrong = bytearray(self.server.content)
        wrong[len(wrong) // 2] ^= 1
        self.send(bytes(wrong))

    def word_gzip(self) -> None:
        self.send(gzip.compress(self.server.content), Content_Encoding="gzip")

    def word_html(self) -> None:
        self.send(PAGE, Content_Type="text/html; charset=utf-8")

    def word_lfs(self) -> None:
        self.send(LFS, Content_Type="text/plain")

    def word_text(self) -> None:
        self.send(b"This file has been removed.\n", Content_Type="text/plain")

    def word_json(self) -> None:
        self.send(b'{"error": "quota exceeded"}', Content_Type="application/json")

    def word_empty(self) -> None:
        self.send(b"")

    def word_404(self) -> None:
        self.send(PAGE, status=404, Content_Type="text/html")

    def word_429(self) -> None:
        self.send(b"slower", status=429, Retry_After="1")

    def word_503(self) -> None:
        self.send(b"", status=503)

    def word_hangs_up(self) -> None:
        self.close_connection = True

    def word_stalls(self) -> None:
        self.send_rest(most=self.server.piece)
        time.sleep(self.server.stall)

    def word_drips(self) -> None:
        start, content = self.offset(), self.server.content
        self.send(content, most=0)
        for k in range(start, len(content), 1 + len(content) // 20):
            self.wfile.write(content[k : k + 1 + len(content) // 20])
            time.sleep(0.005)

    def word_redirects(self) -> None:
        self.send(b"", status=302, Location="/good")

    def word_redirects_to_html(self) -> None:
        self.send(b"", status=302, Location="/html")

    def word_redirects_in_a_ring(self) -> None:
        self.send(b"", status=302, Location="/redirects-in-a-ring")


class Server(ThreadingHTTPServer):
    """Serves `content` on 127.0.0.1 within its `with` block; over TLS if given a certificate and its key."""

    daemon_threads = True

    def __init__(self, content: bytes, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag = '"first"'
        self.piece = len(content) // 5
        self.stall = 0.5
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are what the tests are about

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
