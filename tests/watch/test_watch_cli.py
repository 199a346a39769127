"""`--watch` on a real run, from its own process: what the page asks for happens, and the picture is the same."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import forked
import numpy as np
import pytest
import thin_networks
import video_clips
import watched_runs
from PIL import Image
from watched_runs import Page, begin

from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    watched_runs.draw(tmp_path)
    return tmp_path


def start(folder: Path, *words: str, **how: bool) -> forked.Running:
    command = ["-m", "legacy_style", "-content_image", "photo.png", "-style_image", "style.png"]
    command += ["-model_file", thin_networks.path("vgg19"), "-image_size", "32", "-gpu", "-1", "-seed", "1"]
    command += ["-optimizer", "adam", "-save_iter", "0", *words]
    return begin(folder, *command, **how)


def test_the_buttons_of_a_real_run(folder: Path) -> None:
    with start(folder, "-num_iterations", "1000000", "--watch", anew=True) as run:
        page = Page(run)
        events = page.events()
        next(event for event in events if event["iteration"] > 3 and event["picture"])
        assert page.ask("GET", "picture").startswith(b"\xff\xd8")
        assert page.ask("GET", "before").startswith(b"\xff\xd8")
        page.ask("POST", "save")
        saved = next(event for event in events if event["saved"])["saved"][0]
        assert re.fullmatch(r"\./out_\d+\.png", saved)
        assert (folder / saved).is_file()
        page.ask("POST", "stop")
        last = list(events)[-1]
        assert (last["state"], last["message"]) == ("stopped", "The picture is out.png")
        assert last["last"].startswith("data:image/jpeg;base64,")
        assert last["memory"] > 2**20
        assert run.wait(60) == 0
    with Image.open(folder / "out.png") as image:
        assert image.size == (32, 24)


def test_the_losses_of_an_interrupted_run_are_drawn(folder: Path) -> None:
    with start(folder, "-num_iterations", "1000000", "--plot", "losses.svg", "--watch") as run:
        page = Page(run)
        next(event for event in page.events() if event["iteration"] > 3)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 128 + 2
    assert ">content relu4_2</text>" in (folder / "losses.svg").read_text()


def test_a_run_that_is_watched_paints_the_same_picture(folder: Path) -> None:
    with start(folder, "-num_iterations", "30", "-output_image", "plain.png") as run:
        assert run.wait(120) == 0
    with start(folder, "-num_iterations", "30", "-output_image", "watched.png", "--watch") as run:
        last = list(Page(run).events())[-1]
        assert run.wait(120) == 0
    assert last["state"] == "done"
    assert [point[0] for point in last["points"]][-1:] in ([], [30])
    assert (folder / "plain.png").read_bytes() == (folder / "watched.png").read_bytes()


def test_an_error_is_told_on_the_page_too(folder: Path) -> None:
    (folder / "photo.png").write_bytes(b"no image")
    with start(folder, "-num_iterations", "30", "--watch") as run:
        page = Page(run)
        try:
            events = list(page.events())
        except ConnectionError:  # the run was faster
            events = []
        assert run.wait(120) == 1
    assert all(event["state"] in ("waiting", "running", "failed") for event in events)


def test_a_batch_is_watched_picture_by_picture(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    words = ["--batch", "*.png", "--output-dir", "out", "-num_iterations", "20", "--watch"]
    with start(folder, *words) as run:
        events = list(Page(run).events())
        assert run.wait(120) == 1
    assert events[-1]["title"] == "style.png in the style of style.png"
    assert events[-1]["state"] == "done"
    assert events[-1]["run"] == 3
    assert events[-1]["stage"].startswith("Picture 3 of 3: ")
    assert events[-1]["share"] == 1
    shares = [event["share"] for event in events]
    assert shares == sorted(shares)


def test_stages_are_watched_as_one_run(folder: Path) -> None:
    command = ["-content_image", "photo.png", "-style_image", "style.png", "-gpu", "-1", "-optimizer", "adam"]
    command += ["-model_file", thin_networks.path("vgg19"), "--watch", "--stages", "16:30,32:30"]
    with begin(folder, "-m", "legacy_style", *command) as run:
        events = list(Page(run).events())
        assert run.wait(120) == 0
    last = events[-1]
    assert (last["state"], last["iteration"], last["iterations"], last["run"]) == ("done", 60, 60, 1)
    for event in events:
        t = event["iteration"]
        done = t * 16**2 if t <= 30 else 30 * 16**2 + (t - 30) * 32**2
        assert event["share"] == pytest.approx(done / (30 * 16**2 + 30 * 32**2))


def test_a_video_is_watched_frame_by_frame(folder: Path) -> None:
    frames = [video_clips.frame(number) for number in range(4)]
    video_clips.write(folder / "clip.mp4", frames)
    words = ["clip.mp4", "out.gif", "--style", "style.png", "--model", video_clips.MODEL, "--size", "48"]
    with begin(
        folder, "-m", "legacy_style.cli.legacy_style", "video", *words, "--iterations", "6,6", "--watch"
    ) as run:
        events = list(Page(run).events())
        assert run.wait(120) == 0
    last = events[-1]
    assert (last["state"], last["message"]) == ("done", "The video is out.gif")
    assert (last["iteration"], last["iterations"], last["share"]) == (4, 4, 1)
    assert last["stage"].startswith("Frame 4: iteration ")
    assert last["names"] == ["loss of the frame"]
    assert last["last"].startswith("data:image/jpeg;base64,") or not any(event["picture"] for event in events)


def test_the_port_may_follow_the_option_or_not() -> None:
    for words, port, size in (
        (["--watch"], 0, 512),
        (["--watch", "8000"], 8000, 512),
        (["--watch", "-image_size", "64"], 0, 64),
        (["-image_size", "64"], None, 64),
        (["--watch", "--no-progress"], 0, 512),
    ):
        command = options.parse(words)
        assert command is not None
        assert (command.watch, command.options.image_size) == (port, size)
    with pytest.raises(OptionError, match="--watch takes a whole number"):
        options.parse(["--watch", "80.5"])


def test_the_buttons_of_a_video(folder: Path) -> None:
    video_clips.write(folder / "clip.mp4", [video_clips.frame(number) for number in range(40)])
    words = ["clip.mp4", "out.gif", "--style", "style.png", "--model", video_clips.MODEL, "--size", "48"]
    command = ["-m", "legacy_style.cli.legacy_style", "video", *words, "--iterations", "9,9"]
    with begin(folder, *command, "--watch") as run:
        page = Page(run)
        events = page.events()
        next(event for event in events if event["iteration"] >= 1)
        page.ask("POST", "save")
        saved = next(event for event in events if event["saved"])["saved"][0]
        page.ask("POST", "stop")
        last = list(events)[-1]
        assert run.wait(120) == 0
    made = last["iteration"]
    assert last["state"] == "stopped"
    assert last["message"] == "The video so far is out.gif; the same command goes on with it"
    assert made < 40
    number = int(re.fullmatch(r"out-(\d+)\.png", saved)[1])
    frames = folder / "out.gif.work"
    with Image.open(folder / saved) as mine, Image.open(frames / f"frame_{number:06d}.png") as frame:
        assert np.array_equal(np.asarray(mine), np.asarray(frame))
    with Image.open(folder / "out.gif") as image:
        assert image.n_frames == made
