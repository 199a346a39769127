"""`legacy-style compare` as its users call it: two pictures, a manifest, results blessed for later."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from compare_cases import write_network, write_picture
from door import legacy_style
from PIL import Image
from recordings import SHARED, needs_shared

import legacy_style.programs.neural_style.story as stylize
from legacy_style.compare import making, manifest
from legacy_style.compare.manifest import File, Row, Tolerances
from legacy_style.errors import FormatError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import record, settings
from legacy_style.programs.neural_style.options import Options, parse

CHECKOUT = Path(__file__).parents[2]
Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    """Call the tool in this process."""
    return functools.partial(legacy_style, "compare")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small network, inputs, and a manifest of one row that expects another picture."""
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "small.caffemodel")
    write_picture(tmp_path / "content.png", 48, 36, 1)
    write_picture(tmp_path / "style.png", 48, 36, 2)
    write_picture(tmp_path / "expected.png", 32, 24, 3)
    words = (
        "-content_image content.png -style_image style.png -image_size 32 -num_iterations 3 -optimizer adam"
    )
    words += " -seed 1 -content_layers relu2_1 -style_layers relu1_1,relu2_1 -gpu -1"
    row = Row("one", tuple(words.split()), expected="expected.png")
    manifest.write(manifest.Manifest(tmp_path / "first.json", "first", (row,)), tmp_path / "first.json")
    return tmp_path


RUN = ("--model-file", "small.caffemodel", "--offline")


def test_yesterday_s_results_are_blessed_and_compared_with(call: Call, folder: Path) -> None:
    result = call("run", "first.json", *RUN, "--work", "first", "--junit", "first/junit.xml")
    assert result.exit_code == 1
    assert "different       one: " in result.stdout
    assert "0 identical, 0 equivalent, 0 not comparable, 1 different" in result.stdout
    suite = ElementTree.parse("first/junit.xml").getroot()
    assert suite.get("failures") == "1"
    assert Path("first/report.html").exists() and Path("first/report.json").exists()

    result = call("record", "first/pictures", "--tolerance", "max_difference=0")
    assert result.exit_code == 0, result.output
    assert "1 rows" in result.stdout
    blessed = manifest.read(Path("first/pictures/manifest.json"))
    (row,) = blessed.rows
    assert row.tolerances == Tolerances(first_losses=1e-4, max_difference=0)
    assert [each.iteration for each in row.printed] == [1, 2, 3]
    assert row.model == "small.caffemodel" and row.expected == "one.png"
    assert set(blessed.files) == {"../../content.png", "../../style.png", "one.png"}

    result = call("run", "first/pictures/manifest.json", *RUN, "--work", "second")
    assert result.exit_code == 0, result.output
    assert "1 identical" in result.stdout


def test_a_change_since_yesterday_is_found(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", "first.json", *RUN, "--work", "first")
    call("record", "first/pictures")
    right = settings.blend_weights
    monkeypatch.setattr(settings, "blend_weights", lambda *words: tuple(1.1 * each for each in right(*words)))
    result = call("run", "first/pictures/manifest.json", *RUN, "--work", "second")
    assert result.exit_code == 1
    assert "different       one: printed first losses: apart by" in result.stdout


def test_not_comparable_fails_only_if_strict(call: Call, folder: Path) -> None:
    Path("expected.png").unlink()
    result = call("run", "first.json", *RUN, "--work", "work")
    assert result.exit_code == 0
    assert "not comparable  one: expected.png: not found" in result.stdout
    assert call("run", "first.json", *RUN, "--work", "work", "--strict").exit_code == 1


def test_rows_are_chosen_and_unknown_ones_refused(call: Call, folder: Path) -> None:
    result = call("run", "first.json", *RUN, "--only", "two")
    assert result.exit_code == 1
    assert "there is no row 'two'" in result.stderr
    assert "Traceback" not in result.output


def test_two_pictures_as_text_and_as_json(call: Call, folder: Path) -> None:
    result = call("images", "content.png", "style.png")
    assert result.exit_code == 0
    assert "largest difference" in result.stdout
    words = ("--content", "content.png", "--style", "style.png", "--model-file", "small.caffemodel")
    layers = ("--options", "-content_layers relu2_1 -style_layers relu1_1 -content_weight 0")
    result = call("images", "content.png", "style.png", *words, *layers, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["objectives"][0]["content"] == [0.0]
    assert found["objectives"][1]["style"] == [0.0]
    assert found["sizes"] == ["48x36", "48x36"]


def test_original_colors_decide_the_exit_status(call: Call, folder: Path) -> None:
    colors = ("--content", "content.png", "--original-colors")
    assert call("images", "content.png", "content.png", *colors).exit_code == 0
    assert call("images", "content.png", "style.png", *colors).exit_code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images", "content.png", "style.png", "--style", "style.png"), "--content"),
        (("images", "content.png", "style.png", "--options", "-nonsense"), "invalid argument: -nonsense"),
        (("images", "content.png", "style.png", "--options", "-help"), "asks for help"),
        (("run", "content.png"), "cannot be read as a manifest"),
        (("run", "none.json"), "cannot be read as a manifest"),
        (("record", "."), "no picture in it has a record"),
        (("record", ".", "--tolerance", "x=1"), "unknown tolerance"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    call: Call, folder: Path, words: tuple[str, ...], message: str
) -> None:
    result = call(*words)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_folder_of_plain_pictures_with_records_in_their_chunks(folder: Path) -> None:
    options = Options(content_image="content.png", style_image="style.png", image_size=32.0, seed=4.0)
    losses = [stylize.Losses((1.0,), (2.0,), 3.0)]
    made = record.describe(
        options, command=["th"], model="small.caffemodel", losses=losses, inputs=["content.png", "style.png"]
    )
    Path("results").mkdir()
    for name in ("a.png", "a.jpg", "plain.png"):
        Image.new("RGB", (32, 24)).save(f"results/{name}")
    record.attach("results/a.png", made).unlink()
    record.attach("results/a.jpg", made)
    found = making.manifest_of(Path("results"), Path("results/manifest.json"), {})
    assert [row.name for row in found.rows] == ["a", "a.png"]
    assert found.rows[0].options[:4] == ("-style_image", "../style.png", "-content_image", "../content.png")


def test_what_the_program_made_with_metadata_is_blessed(call: Call, folder: Path) -> None:
    row = manifest.read(Path("first.json")).rows[0]
    Path("results").mkdir()
    more = ["--metadata", "-model_file", "small.caffemodel", "-output_image", "results/one.png"]
    parsed = parse([*row.options, *more])
    assert parsed is not None
    stylize.stylize(parsed.options)
    assert call("record", "results").exit_code == 0
    result = call("run", "results/manifest.json", *RUN, "--work", "second")
    assert result.exit_code == 0
    assert "1 identical" in result.stdout
    assert "--metadata" not in Path("results/manifest.json").read_text()


@pytest.mark.parametrize("lost", ["options", "inputs", "model", "losses"])
def test_a_record_that_lacks_something_is_refused(folder: Path, lost: str) -> None:
    made = record.describe(Options(seed=1.0), command=["th"], model="small.caffemodel", losses=[])
    made.pop(lost)
    Path("results").mkdir()
    Image.new("RGB", (32, 24)).save("results/a.png")
    record.attach("results/a.png", made)
    with pytest.raises(FormatError, match="make the picture again"):
        making.manifest_of(Path("results"), Path("results/manifest.json"), {})


def test_results_of_two_networks_under_one_name_are_refused(folder: Path) -> None:
    Path("results").mkdir()
    for name, seed in (("a.png", 1), ("b.png", 2)):
        write_network(Path("small.caffemodel"), seed=seed)
        made = record.describe(Options(seed=1.0), command=["th"], model="small.caffemodel", losses=[])
        Image.new("RGB", (32, 24)).save(f"results/{name}")
        record.attach(f"results/{name}", made)
    with pytest.raises(FormatError, match=r"another small\.caffemodel"):
        making.manifest_of(Path("results"), Path("results/manifest.json"), {})


def test_from_random_noise_first_losses_may_differ_more(folder: Path) -> None:
    made = record.describe(Options(), command=["th"], model="small.caffemodel", losses=[])
    Path("results").mkdir()
    Image.new("RGB", (32, 24)).save("results/a.png")
    record.attach("results/a.png", made)
    (row,) = making.manifest_of(Path("results"), Path("results/manifest.json"), {}).rows
    assert row.tolerances.first_losses == 1e-3
    with pytest.raises(OptionError):
        making.manifest_of(folder, folder / "manifest.json", {})


def test_the_script_runs_by_itself(folder: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "legacy_style.cli.legacy_style",
        "compare",
        "images",
        "content.png",
        "content.png",
    ]
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PSNR                 ∞ dB" in done.stdout


def test_an_interrupt_of_the_first_process_alone_ends_the_others_soon(folder: Path) -> None:
    made = manifest.read(Path("first.json"))
    (row,) = made.rows
    long = dataclasses.replace(row, options=(*row.options, "-num_iterations", "1000000"))
    rows = (dataclasses.replace(long, name="one"), dataclasses.replace(long, name="two"))
    manifest.write(dataclasses.replace(made, rows=rows), Path("long.json"))
    words = [sys.executable, "-m", "legacy_style.cli.legacy_style", "compare", "run", "long.json", *RUN]
    words += ["--jobs", "2", "--work", "work"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as running:
        unfinished = Path("work/pictures/unfinished")
        while len(list(unfinished.glob("*"))) < 2:
            assert running.poll() is None
            time.sleep(0.05)
        workers = workers_of(running.pid)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130
    assert "Stopped. The same command goes on from what is in work." in said
    assert "Traceback" not in said
    assert len(workers) == 2
    assert [each for each in workers if each.exists()] == []


def workers_of(process: int) -> list[Path]:
    """The children of a process that multiprocessing started for work, in /proc (Linux)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = [Path("/proc", each) for each in children]
    return [each for each in found if b"spawn_main" in (each / "cmdline").read_bytes()]


def test_what_is_missing_is_fetched_by_url_and_checked(call: Call, folder: Path) -> None:
    made = manifest.read(Path("first.json"))
    Path("served").mkdir()
    for name in ("content.png", "expected.png"):
        Path(name).rename(Path("served") / name)
    wrong = "0" * 64
    for digest, word in ((sha256("served/content.png"), "different"), (wrong, "not comparable")):
        with serving(folder / "served") as address:
            urls = {
                "content.png": File(digest, f"{address}/content.png"),
                "expected.png": File(sha256("served/expected.png"), f"{address}/expected.png"),
            }
            manifest.write(dataclasses.replace(made, files=urls), Path("first.json"))
            words = ("run", "first.json", "--model-file", "small.caffemodel", "--work", f"work-{digest[:4]}")
            offline = call(*words, "--offline")
            assert "content.png: not found" in offline.stdout and "nothing may be fetched" in offline.stdout
            assert f"{word:15} one: " in call(*words).stdout


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """A web server on this machine; gives its address."""
    handler = functools.partial(QuietHandler, directory=str(root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@needs_shared
def test_the_vgg_16_recording_begins_as_the_original_did(call: Call, tmp_path: Path) -> None:
    """avg_lbfgs, as the shipped manifest has it, but three iterations alone; all of it takes a minute."""
    published = manifest.read(manifest.PUBLISHED)
    (row,) = [row for row in published.rows if row.name == "vgg16_avg_lbfgs"]
    row = dataclasses.replace(
        row, options=(*row.options, "-num_iterations", "3"), expected="", printed=row.printed[:3]
    )
    short = dataclasses.replace(published, rows=(row,))
    manifest.write(short, tmp_path / "short.json")
    network: Any = SHARED / "models/VGG_ILSVRC_16_layers_conv.caffemodel"
    found = ("--from", SHARED / "published", "--model-file", network, "--offline", "--work", tmp_path)
    result = call("run", tmp_path / "short.json", *found)
    assert result.exit_code == 0, result.output
    assert "1 equivalent" in result.stdout
