"""Runs with --watch in processes of their own, and their pages, for tests without a browser."""

from __future__ import annotations

import http.client
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from PIL import Image

from legacy_style.cli.process import Interrupts


def draw(folder: Path) -> None:
    """Two pictures of waves: photo.png and style.png."""
    y, x = np.mgrid[0:48, 0:64]
    for name, phase in (("photo", 3), ("style", 7)):
        waves = np.stack([np.sin(x / (phase + each)) * np.cos(y / (5 + each)) for each in range(3)], 2)
        Image.fromarray(np.uint8(127 + 120 * waves)).save(folder / f"{name}.png")


def begin(folder: Path, *words: str, **how: bool) -> forked.Running:
    """A Python with these words, in the folder, on one thread."""
    return forked.start(*words, cwd=folder, stdout=forked.DEVNULL, CUDA_VISIBLE_DEVICES="", **how)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Let that call of `Interrupts.check`, which programs make in every iteration, be one after Ctrl-C."""
    calls = itertools.count(1)

    def check(interrupts: Interrupts) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(Interrupts, "check", check)


class Page:
    """What a browser does, without one."""

    def __init__(self, run: forked.Running) -> None:
        assert run.stderr is not None
        line = next(line for line in run.stderr if "watch it at" in line)
        found = re.search(r"http://(127\.0\.0\.1):(\d+)(/[\w-]+/)$", line.strip())
        assert found, line
        self.host, self.port, self.path = found[1], int(found[2]), found[3]

    def ask(self, method: str, name: str) -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.request(method, self.path + name)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    def events(self) -> Iterator[dict[str, Any]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.request("GET", self.path + "events")
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
