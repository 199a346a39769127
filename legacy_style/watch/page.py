"""The page that shows a run: its HTML, what stands beside it, and the routes behind it."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import jinja2

from legacy_style.watch.server import Answer, Refused, Request, Routes, as_json
from legacy_style.watch.watcher import Watcher

_KINDS = {"watch.css": "text/css", "watch.js": "text/javascript", "studio.js": "text/javascript"}
_FILES = importlib.resources.files("legacy_style.watch")


def routes(watcher: Watcher, **studio: Any) -> Routes:
    """What the server of a run answers; `studio` is for the page's template, empty where a run is shown."""
    html = _template().render(studio=studio).encode()
    found: dict[str, Any] = {"GET ": lambda request: Answer("text/html; charset=utf-8", html)}
    for name, kind in _KINDS.items():
        found[f"GET {name}"] = _constant(Answer(f"{kind}; charset=utf-8", (_FILES / name).read_bytes()))
    return found | {
        "GET events": lambda request: Answer("text/event-stream", _events(watcher)),
        "GET picture": lambda request: jpeg(watcher.picture()),
        "GET before": lambda request: jpeg(watcher.before()),
        "POST save": lambda request: _ask(watcher, request, "save"),
        "POST stop": lambda request: _ask(watcher, request, "stop"),
    }


def jpeg(found: bytes | None) -> Answer:
    """An answer that is a picture; Refused where there is none."""
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "there is no picture yet")
    return Answer("image/jpeg", found)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((_FILES / "page.html").read_text("utf-8"))


def _constant(answer: Answer) -> Any:
    return lambda request: answer


def _ask(watcher: Watcher, request: Request, what: Any) -> Answer:
    watcher.ask(what)
    return as_json({})


def _events(watcher: Watcher) -> Iterator[bytes]:
    """Server-sent events."""
    for event in watcher.events():
        yield f"data: {json.dumps(event)}\n\n".encode()
