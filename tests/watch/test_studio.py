"""The studio: uploads, orders, the queue, and its page in a real browser. Paintings are small and short here."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import chromium
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from legacy_style.cli.legacy_style import main
from legacy_style.cli.tools import studio as studio_command
from legacy_style.cli.tools.studio import main as command
from legacy_style.errors import OptionError
from legacy_style.programs import examples
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.output import Result
from legacy_style.watch import studio as module
from legacy_style.watch.server import HOST, Server
from legacy_style.watch.studio import Studio
from legacy_style.watch.watcher import Watcher

CHECKOUT = Path(__file__).parents[2]


def png(width: int = 40, height: int = 30, **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, "PNG", **more)
    return file.getvalue()


class Here:
    """A studio whose paintings take as long as the test wants: `brush` is what paints."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ordered: list[Options] = []
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None
        monkeypatch.setattr(module, "stylize", self._stylize)
        results = folder / "results"
        results.mkdir()
        self.studio = Studio(Watcher(), folder, results)
        threading.Thread(target=self.studio.work, daemon=True).start()

    def _stylize(self, options: Options, **more: Any) -> Result:
        self.ordered.append(options)
        assert self.go.acquire(timeout=60)
        if self.error is not None:
            raise self.error
        Path(options.output_image).write_bytes(png(20, 10))
        losses: list[Any] = [None] * int(options.num_iterations)
        return Result(np.full((3, 10, 20), 0.5), losses)

    def states(self) -> list[str]:
        return [job["state"] for job in next(self.studio.watcher.events())["jobs"]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(tmp_path, monkeypatch)


@pytest.fixture
def server(here: Here) -> Iterator[Server]:
    with Server(here.studio.routes()) as started:
        yield started


def ask(
    server: Server, name: str, body: Any = None, *, method: str = "POST"
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request(method, f"/{server.token}/{name}", body=data)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    found = json.loads(content) if answer.headers["Content-Type"] == "application/json" else content
    return answer.status, found, dict(answer.headers)


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


ORDER = {"photo": "1", "style": "4", "size": 256, "steps": 40, "strength": 3, "colors": False}


def test_what_is_ordered_is_painted_one_after_the_other(here: Here, server: Server) -> None:
    for more in ({}, {"photo": "2", "colors": True, "strength": 5}, {"style": "6"}):
        assert ask(server, "start", ORDER | more)[0] == 200
    wait(lambda: here.states() == ["running", "waiting", "waiting"])
    assert ask(server, "remove?job=3")[0] == 200
    assert ask(server, "remove?job=1")[0] == 409
    here.go.release(2)
    wait(lambda: here.states() == ["done", "done"])
    first, second = here.ordered
    assert Path(first.content_image) == examples.FOLDER / "china.jpg"
    assert Path(first.style_image) == examples.FOLDER / "ink_wash.jpg"
    assert (first.image_size, first.num_iterations, first.style_weight) == (256, 40, 100)
    assert (first.init, first.original_colors, first.exif_rotate) == ("image", 0, True)
    assert (second.style_weight, second.original_colors) == (2000, 1)
    status, content, headers = ask(server, "result?job=1", method="GET")
    assert status == 200
    assert content.startswith(b"\x89PNG")
    assert headers["Content-Disposition"] == 'attachment; filename="pagoda_ink_wash.png"'
    assert ask(server, "view?job=1", method="GET")[1].startswith(b"\xff\xd8")


def test_no_two_paintings_have_one_number(here: Here, server: Server) -> None:
    for _ in range(3):
        ask(server, "start", ORDER)
    assert ask(server, "remove?job=2")[0] == 200
    assert ask(server, "start", ORDER)[1] == {"job": 4}
    here.go.release(3)
    wait(lambda: here.states() == ["done"] * 3)
    Path(here.ordered[0].output_image).unlink()
    for name in ("result", "view"):
        status, found, _ = ask(server, f"{name}?job=1", method="GET")
        assert status in (404, 409)
        assert "pagoda_ink_wash.png" in found["error"]


def test_the_same_order_twice_gives_two_files(here: Here, server: Server) -> None:
    for _ in range(2):
        ask(server, "start", ORDER)
    here.go.release(2)
    wait(lambda: here.states() == ["done", "done"])
    assert [Path(each.output_image).name for each in here.ordered] == [
        "pagoda_ink_wash.png", "pagoda_ink_wash_2.png"
    ]  # fmt: skip


def test_a_painting_that_fails_is_told_and_the_next_one_is_painted(here: Here, server: Server) -> None:
    _, found, _ = ask(server, "upload?name=holiday.png", png())
    ask(server, "start", ORDER | {"photo": found["id"]})
    wait(lambda: here.ordered)
    here.error = OptionError(
        f"{here.ordered[0].content_image}: does not fit into memory; choose a smaller size"
    )
    here.go.release()
    wait(lambda: here.states() == ["failed"])
    event = next(here.studio.watcher.events())
    assert event["message"] == "holiday.png: does not fit into memory; choose a smaller size"
    here.error = None
    ask(server, "start", ORDER)
    here.go.release()
    wait(lambda: here.states() == ["failed", "done"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "x.png"), "x.png: No space left on device; free some space"),
        (MemoryError(), "not enough memory; choose a smaller size"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            "not enough memory; choose a smaller size",
        ),
    ],
)
def test_a_painting_that_the_machine_has_no_room_for_fails_alone(
    here: Here, server: Server, error: Exception, says: str
) -> None:
    ask(server, "start", ORDER)
    wait(lambda: here.ordered)
    here.error = error
    here.go.release()
    wait(lambda: here.states() == ["failed"])
    assert next(here.studio.watcher.events())["message"].startswith(says)
    here.error = None
    ask(server, "start", ORDER)
    here.go.release()
    wait(lambda: here.states() == ["failed", "done"])


@pytest.mark.parametrize("home", [None, "there", "gone"])
def test_the_secret_is_in_no_command_line_and_in_a_file_for_oneself(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the home folder, where snaps can read it, if there are any; None: there are none."""
    opened: list[tuple[str, str, int, int]] = []

    def browse(address: str) -> bool:
        path = Path(url2pathname(urlsplit(address).path))
        modes = [each.stat().st_mode & 0o777 for each in (path, path.parent)]
        assert (path.parent.parent == tmp_path / "there") == (home == "there")
        assert not any(part.startswith(".") for part in path.relative_to(path.parents[1]).parts)
        opened.append((address, path.read_text(), *modes))
        return True

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(studio_command, "SNAPS", ["/no such place", str(tmp_path)] if home else [])
    monkeypatch.setenv("HOME", str(tmp_path / (home or "there")))
    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr(Studio, "work", lambda studio: None)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    printed = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", result.output)
    assert printed is not None
    ((address, content, mode, folder),) = opened
    secret = printed[0].split("/")[-2]
    assert address.startswith("file://") and secret not in address
    assert f'content="0; url={printed[0]}"' in content
    assert (mode, folder) == (0o600, 0o700)
    assert list((tmp_path / "there").iterdir()) == []


def test_uploads_are_read_by_the_reader_of_every_program(server: Server, tmp_path: Path) -> None:
    status, found, _ = ask(server, "upload?name=Meine%20K%C3%BCche.png", png())
    assert (status, found["name"]) == (200, "Meine Küche.png")
    assert ask(server, f"file?id={found['id']}", method="GET")[1].startswith(b"\xff\xd8")
    for data, words in (
        (b"%PDF-1.4", "a PDF document, which is not read here"),
        (b"", "an empty file"),
        (png(300, 200)[:150], "photo.jpg: a broken PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
    ):
        status, found, _ = ask(server, "upload?name=photo.jpg", data)
        assert status == 400
        assert words in found["error"]
        assert str(tmp_path) not in found["error"]


def test_a_photograph_that_lies_on_its_side_stands_upright(server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _, found, _ = ask(server, "upload?name=a.png", png(40, 20, exif=exif))
    with Image.open(io.BytesIO(ask(server, f"file?id={found['id']}", method="GET")[1])) as image:
        assert image.size == (20, 40)


def test_what_is_too_large_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    status, found, _ = ask(server, "upload?name=a.png", bytes(101))
    assert status == 413
    assert "larger than" in found["error"]
    monkeypatch.setattr(module, "_MOST_BYTES", 10**6)
    monkeypatch.setattr(module, "_MOST_PIXELS", 100)
    status, found, _ = ask(server, "upload?name=a.png", png())
    assert status == 400
    assert found["error"] == "a.png has 1200 pixels; save it with 100 at most"
    monkeypatch.setattr(module, "_MOST_FILES", 0)
    assert ask(server, "upload?name=a.png", png())[0] == 409


@pytest.mark.parametrize(
    "more",
    [{"size": 100000}, {"size": "256"}, {"size": None}, {"steps": 10**9}, {"strength": 0}, {"size": [256]}],
)
def test_an_order_takes_what_is_offered(here: Here, server: Server, more: dict[str, Any]) -> None:
    assert ask(server, "start", ORDER | more)[0] == 400
    assert here.states() == []


@pytest.mark.parametrize("name", ["99", "../../etc/passwd", "", None, 7, {}])
def test_a_picture_is_named_by_its_number_alone(here: Here, server: Server, name: Any) -> None:
    assert ask(server, "start", ORDER | {"photo": name})[0] == 404
    assert ask(server, f"result?job={name}", method="GET")[0] == 404


def test_names_of_results_are_plain() -> None:
    assert module._stem("Meine Küche (2).JPG") == "meine_k_che_2"
    assert module._stem("../../x") == "x"
    assert module._stem("東京.png") == "picture"


def test_the_queue_is_not_endless(here: Here, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 1)
    ask(server, "start", ORDER)
    wait(lambda: here.states() == ["running"])
    assert ask(server, "start", ORDER)[0] == 200
    assert ask(server, "start", ORDER)[0] == 409
    here.go.release(2)


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    if chromium.find() is None:
        pytest.skip(f"NO BROWSER: the studio was not looked at; install one of {', '.join(chromium.NAMES)}")
    with chromium.browser() as started:
        yield started


def test_a_newcomer_s_way_through_the_page(
    browser: chromium.Browser, here: Here, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "my cat.png").write_bytes(png(300, 200))
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    browser.visit(server.address, width=1440)
    browser.wait_for("document.getElementById('state').textContent === 'Ready'")
    assert browser.evaluate("document.querySelectorAll('.choice img').length") == 6
    browser.wait_for(
        "[...document.images].filter(each => each.src && !each.hidden).every(each => each.naturalWidth)"
    )
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    field = browser.call("DOM.querySelector", nodeId=root, selector=".drop[data-kind=photo] input")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "notes.pdf")])
    browser.wait_for("document.getElementById('photo-said').textContent.includes('a PDF document')")
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "my cat.png")])
    browser.wait_for("document.getElementById('photo-said').textContent === 'my cat.png is chosen'")
    browser.evaluate("document.querySelector('button.main').click()")
    browser.wait_for("document.getElementById('state').textContent === 'Painting'")
    assert (
        browser.evaluate("document.getElementById('title').textContent")
        == "my cat.png in the style of Ink wash"
    )
    browser.evaluate("document.querySelector('button.main').click()")
    browser.wait_for("document.querySelectorAll('#jobs li').length === 2")
    here.go.release()
    browser.wait_for("document.querySelectorAll('#jobs a').length === 1")
    # The second one has begun, so that the first is in the gallery alone.
    browser.wait_for("document.getElementById('download').hidden")
    assert browser.evaluate("document.querySelector('#jobs a').getAttribute('aria-label')").startswith(
        "Download my cat"
    )
    here.go.release()
    browser.wait_for("document.querySelectorAll('#jobs a').length === 2")
    browser.wait_for("document.getElementById('download').offsetHeight > 0")
    assert browser.evaluate("document.getElementById('download').href").endswith("/result?job=2")
    for width in (1440, 1000, 390, 320):
        browser.visit(server.address, width=width)
        browser.wait_for("document.querySelectorAll('#jobs a').length === 2")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # The PDF was refused, which a browser notes on its console.
    assert [each for each in browser.complaints(server.address) if "400" not in each] == []


def test_the_command_paints_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """A real painting in its own process, ordered as the page orders it."""
    script = (
        "import sys; from legacy_style.watch import studio; studio._SIZES = {48: 'Tiny'}; studio._STEPS = {3: 'Short'};"
        "from legacy_style.cli.legacy_style import main;"
        "sys.exit(main(['studio', '--no-browser', '--output-dir', 'kept']))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        _, _, place, token, _ = address.split("/")
        connection = http.client.HTTPConnection(place, timeout=60)
        order = ORDER | {"size": 48, "steps": 3}
        connection.request("POST", f"/{token}/start", body=json.dumps(order))
        assert connection.getresponse().status == 200
        wait(lambda: (tmp_path / "kept" / "pagoda_ink_wash.png").is_file())
        process.send_signal(2)
        assert process.wait(60) == 0
        assert "The studio is closed." in process.stdout.read()
    with Image.open(tmp_path / "kept" / "pagoda_ink_wash.png") as image:
        assert image.size == (48, 32)


def test_the_door_knows_the_studio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "--help"]) == 0
    assert "--output-dir" in capsys.readouterr().out
