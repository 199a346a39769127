"""The server of the page: who gets an answer, and what a browser may do with it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from legacy_style.errors import OptionError
from legacy_style.torch7.image import load, to_bytes
from legacy_style.watch import page
from legacy_style.watch.server import HOST, Server
from legacy_style.watch.watcher import Watcher


@pytest.fixture
def watcher() -> Watcher:
    made = Watcher()
    made.begin("a cat in the style of a rug", lambda: np.full((6, 9, 3), 200, np.uint8))
    return made


@pytest.fixture
def server(watcher: Watcher) -> Iterator[Server]:
    with Server(page.routes(watcher)) as started:
        yield started


def ask(
    server: Server, name: str = "", *, method: str = "GET", token: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    path = f"/{server.token if token is None else token}/{name}"
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), body


def test_whoever_knows_the_address_gets_the_page(server: Server) -> None:
    status, headers, body = ask(server)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<!doctype html>" in body
    for name in ("watch.css", "watch.js"):
        assert ask(server, name)[0] == 200


@pytest.mark.parametrize("token", ["", "x", "%C3%BC", "../x", "A" * 22, "A" * 5000])
@pytest.mark.parametrize("name", ["", "events", "picture", "watch.js"])
def test_whoever_does_not_know_it_gets_nothing(server: Server, token: str, name: str) -> None:
    status, _, body = ask(server, name, token=token)
    assert status == 404
    assert server.token.encode() not in body
    assert b"watch" not in body


def test_the_token_is_new_each_time_and_long(server: Server, watcher: Watcher) -> None:
    with Server(page.routes(watcher)) as other:
        assert other.token != server.token
        assert other.port != server.port
    assert len(server.token) >= 22  # 128 bits


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1"])
def test_a_name_that_was_made_to_point_here_is_refused(server: Server, host: str) -> None:
    assert ask(server, Host=host)[0] == 403


def test_a_tunnel_from_another_machine_s_localhost_is_let_in(server: Server) -> None:
    assert ask(server, Host="localhost:9999")[0] == 200


def test_another_site_cannot_press_the_buttons(server: Server, watcher: Watcher) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert ask(server, "stop", method="POST", Origin=origin)[0] == 403
    assert not watcher.update(1, 10, {"total": 1.0}, lambda: np.zeros((2, 2, 3), np.uint8))
    assert ask(server, "stop", method="POST", Origin=f"http://{HOST}:{server.port}")[0] == 200
    assert watcher.update(2, 10, {"total": 1.0}, lambda: np.zeros((2, 2, 3), np.uint8))


def test_looking_changes_nothing(server: Server, watcher: Watcher) -> None:
    assert ask(server, "stop")[0] == 404
    assert not watcher.update(1, 10, {"total": 1.0}, lambda: np.zeros((2, 2, 3), np.uint8))


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_kept(server: Server) -> None:
    for name in ("", "watch.js", "before", "nothing"):
        _, headers, _ = ask(server, name)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
    for name in ("", "watch.js", "watch.css", "studio.js"):
        text = ask(server, name)[2].decode().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.lower()
        assert " style=" not in text
        assert " on" + "click=" not in text


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    addresses = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError), socket.create_connection((address, server.port), 5):
            pass


def test_a_port_that_is_taken_is_said_to_be(server: Server, watcher: Watcher) -> None:
    with (
        pytest.raises(OptionError, match=rf"port {server.port} .*cannot be had"),
        Server(page.routes(watcher), server.port),
    ):
        pass
    with pytest.raises(OptionError, match="port 70000"), Server(page.routes(watcher), 70000):
        pass


@pytest.mark.parametrize(
    "request_bytes", [b"\0\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n"]
)
def test_what_is_no_request_does_no_harm(server: Server, request_bytes: bytes) -> None:
    with socket.create_connection((HOST, server.port), 5) as plain:
        plain.sendall(request_bytes)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(4096):
            pass
    assert ask(server)[0] == 200


@pytest.mark.parametrize("length", ["9" * 5000, "-3", "1e3", "\u00b2"])
def test_a_length_that_is_none_is_refused(server: Server, length: str) -> None:
    assert ask(server, "stop", method="POST", Content_Length=length)[0] == 411


def test_a_photograph_that_is_gone_is_said_to_be(server: Server, watcher: Watcher, tmp_path: Path) -> None:
    watcher.begin("a run", lambda: to_bytes(load(tmp_path / "gone.png")))
    status, _, body = ask(server, "before")
    assert status == 409
    assert "gone.png" in json.loads(body)["error"]


def test_too_many_connections_are_closed_and_the_others_go_on(server: Server) -> None:
    idle = [socket.create_connection((HOST, server.port), 5) for _ in range(80)]
    try:
        deadline = time.monotonic() + 60
        for each in idle[-10:]:
            each.settimeout(max(deadline - time.monotonic(), 1))
            assert each.recv(10) == b""
    finally:
        for each in idle:
            each.close()
    while True:  # until the closed ones are noticed
        try:
            assert ask(server)[0] == 200
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_body_that_is_no_json_object_is_refused() -> None:
    from legacy_style.watch.server import Answer, as_json

    def route(request: object) -> Answer:
        return as_json({"got": request.json()})  # type: ignore[attr-defined]

    with Server({"POST x": route}) as server:
        for body, status in (
            ("[1]", 400),
            ("{", 400),
            ("\udc80", 400),
            ("[" * 60000, 400),
            ("1" * 70000, 413),
            ('{"a": 1}', 200),
        ):
            connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
            connection.request("POST", f"/{server.token}/x", body=body.encode("utf-8", "surrogateescape"))
            answer = connection.getresponse()
            assert answer.status == status
            assert set(json.loads(answer.read())) == ({"got"} if status == 200 else {"error"})
            connection.close()
