"""`--watch` and `--plot` in every program: events come, both buttons do what they say, and watching changes nothing."""

from __future__ import annotations

import errno
import importlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import forked
import pytest
import torch
import video_clips
import watched_runs
from athalye_recordings import NETWORK
from PIL import Image
from recorded_runs import one_thread
from video_recordings import SHIPPED
from watched_runs import Page

from legacy_style.cli import watching
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import saving


@dataclass(frozen=True)
class Program:
    """How to run one: its module and words, the option that says how long; what it saves and says, as patterns.

    `short`: so many iterations end soon; `result`: what it writes then; `curves`: what its plot names.
    """

    module: str
    words: str
    iterations: str
    losses: list[str]
    saved: str
    end: str
    short: str
    result: str
    curves: list[str]


FRAMES = (
    f"-content_pattern f_%d.png -num_images 3 -style_image style.png -model_file {video_clips.MODEL} -gpu -1 -seed 1"
    " -optimizer adam -output_folder out/"
)
SLOW = (
    "-content_image photo.png -style_image style.png -image_size 32 -style_image_size 32 -loss_network loss.t7"
    " -content_layers 4 -style_layers 2,4 -optimizer adam --seed 3"
)
TRAIN = (
    "-arch c3s1-4,d4,R4,U2,c3s1-3 -padding_type reflect -loss_network loss.t7 -content_layers 4 -style_layers 2,4"
    " -style_image style.png -style_image_size 32 --image-dir photos --crop 24 -batch_size 2 -num_val_batches 1"
    " --seed 1 -gpu -1"
)
KINDS = ["total", "content", "temporal", "style"]
PROGRAMS = {
    "athalye": Program(
        "athalye",
        f"--content photo.png --styles style.png --output out.png --network {NETWORK} --width 32 --seed 1 --overwrite",
        "--iterations",
        ["total", "content", "style", "tv"],
        r"out_\d+\.png",
        r"The picture is out\.png",
        "6",
        "out.png",
        ["total", "content", "style", "tv"],
    ),
    "paper": Program(
        "paper",
        f"reconstruct --content photo.png --content-from conv1_1 conv2_1 --network {NETWORK} --image-size 24 --seed 1",
        "--iterations",
        ["a  conv1_1"],
        r"paper_1_\d+\.png",
        r"The sheet is paper\.png",
        "4",
        "paper.png",
        ["a  conv1_1", "b  conv2_1"],
    ),
    "artistic_video": Program(
        "artistic_video",
        f"{FRAMES} -flow_pattern flow/backward_[%d]_{{%d}}.flo -flowWeight_pattern flow/reliable_[%d]_{{%d}}.pgm",
        "-num_iterations",
        KINDS,
        r"out/out-1_\d+\.png",
        r"The last frame is out/out-1\.png; -continue_with 2 goes on from there",
        "5,4",
        "out/out-3.png",
        KINDS,
    ),
    "artistic_video_multi_pass": Program(
        "artistic_video_multi_pass",
        f"{FRAMES} -num_passes 2 -forwardFlow_pattern flow/forward_[%d]_{{%d}}.flo"
        " -backwardFlow_pattern flow/backward_[%d]_{%d}.flo -forwardFlow_weight_pattern flow/reliable_[%d]_{%d}.pgm"
        " -backwardFlow_weight_pattern flow/reliable_[%d]_{%d}.pgm -use_temporalLoss_after 2",
        "-num_iterations",
        KINDS,
        r"out/out-1_1_\d+\.png",
        r"The last frame is out/out-1_1\.png; -continue_with_pass 1, which makes this pass anew, goes on from there",
        "4",
        "out/out-1_2.png",
        KINDS,
    ),
    "slow_neural_style": Program(
        "slow_neural_style",
        f"{SLOW} -save_every 5",
        "-num_iterations",
        ["total", "content", "style"],
        r"out_\d+\.png",
        r"The picture is out_\d+\.png",
        "10",
        "out_10.png",
        ["total", "content", "style"],
    ),
    "train": Program(
        "train",
        f"{TRAIN} -checkpoint_every 6 --picture photo.png",
        "-num_iterations",
        ["loss"],
        r"checkpoint\.t7",
        r"The network is checkpoint\.t7",
        "6",
        "checkpoint.png",
        ["loss"],
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, three frames with flows between them, and a loss network of 64 random filters."""
    watched_runs.draw(tmp_path)
    shutil.copytree(SHIPPED / "flow", tmp_path / "flow")
    with (tmp_path / "flow" / "backward_2_1.flo").open("rb") as file:
        width, height = torch.frombuffer(bytearray(file.read(12)[4:]), dtype=torch.int32).tolist()
    (tmp_path / "photos").mkdir()
    (tmp_path / "out").mkdir()
    for number in (1, 2, 3):
        frame = Image.fromarray(video_clips.frame(number, width, height))
        frame.save(tmp_path / f"f_{number}.png")
        frame.save(tmp_path / "photos" / f"{number}.png")
    torch.manual_seed(7)
    convolutions = [torch.nn.Conv2d(inputs, 8, 3, padding=1) for inputs in (3, 8)]
    layers = [each for convolution in convolutions for each in (convolution, torch.nn.ReLU(True))]
    t7.write(str(tmp_path / "loss.t7"), saving.to_t7(torch.nn.Sequential(*layers)))
    return tmp_path


def start(folder: Path, program: Program, iterations: str, *more: str) -> forked.Running:
    script = f"import sys; from legacy_style.cli.{program.module} import main; sys.exit(main(sys.argv[1:]))"
    return watched_runs.begin(
        folder, "-c", script, *program.words.split(), program.iterations, iterations, *more
    )


def call(program: Program, iterations: str, *more: str) -> int:
    """The same in this process."""
    main = importlib.import_module(f"legacy_style.cli.{program.module}").main
    status: int = main([*program.words.split(), program.iterations, iterations, *more])
    return status


@pytest.mark.parametrize("name", PROGRAMS)
def test_both_buttons_do_what_they_say(name: str, folder: Path) -> None:
    program = PROGRAMS[name]
    with start(folder, program, "100000", "--watch", "--plot", "losses.svg") as run:
        page = Page(run)
        events = page.events()
        event = next(event for event in events if event["iteration"] > 3 and event["picture"])
        assert event["names"] == program.losses
        assert event["state"] == "running"
        assert 0 < event["share"] < 1
        assert page.ask("GET", "picture").startswith(b"\xff\xd8")
        assert page.ask("GET", "before").startswith(b"\xff\xd8")
        page.ask("POST", "save")
        saved = next(event for event in events if event["saved"])["saved"][0]
        assert re.fullmatch(program.saved, saved)
        assert (folder / saved).is_file()
        page.ask("POST", "stop")
        last = list(events)[-1]
        assert last["state"] == "stopped"
        assert re.fullmatch(program.end, last["message"]), last["message"]
        assert run.wait(60) == 0
    kept = next(word for word in re.split("[ ;]", last["message"]) if "." in word)
    assert (folder / kept).is_file()
    assert program.losses[0] in (folder / "losses.svg").read_text()


@pytest.mark.parametrize("name", PROGRAMS)
def test_watching_changes_nothing(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a browser reads all events, and the picture was taken. Without a page there is a plot all the same."""
    program = PROGRAMS[name]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with one_thread():
        assert call(program, program.short, "--plot", "losses.svg") == 0
    drawn = (folder / "losses.svg").read_text()
    assert [name for name in program.curves if f">{name}</text>" not in drawn] == []
    plain = (folder / program.result).read_bytes()
    (folder / program.result).unlink()
    with start(folder, program, program.short, "--watch", "--plot", "losses.png") as run:
        last = list(Page(run).events())[-1]
        assert run.wait(120) == 0
    assert last["state"] == "done"
    assert (folder / program.result).read_bytes() == plain
    with Image.open(folder / "losses.png") as plot:
        assert plot.size == (960, 600)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(folder: Path) -> None:
    """Its state has the learning rate of the iteration after the one that it was stopped in."""
    program = PROGRAMS["train"]
    always = ["-lr_decay_every", "1", "-lr_decay_factor", "0.9", "-checkpoint_every", "0"]
    with start(folder, program, "100000", *always, "--state", "s", "--watch") as run:
        page = Page(run)
        events = page.events()
        next(event for event in events if event["iteration"] > 2)
        page.ask("POST", "stop")
        done = list(events)[-1]["iteration"]
        assert run.wait(60) == 0
    state = torch.load(folder / "s", weights_only=True)
    assert (state["iteration"], state["learning_rate"]) == (done, pytest.approx(1e-3 * 0.9**done))


def test_what_cannot_be_saved_is_told_and_the_run_goes_on(folder: Path) -> None:
    program = PROGRAMS["train"]
    (folder / "file").write_bytes(b"")
    name = ["-checkpoint_name", "file/name", "-checkpoint_every", "0"]
    with start(folder, program, "100000", *name, "--watch") as run:
        page = Page(run)
        events = page.events()
        next(event for event in events if event["iteration"] > 1)
        page.ask("POST", "save")
        told = next(event for event in events if event["remark"])
        assert "-checkpoint_name file/name: could not be written" in told["remark"]
        assert next(event for event in events if event["iteration"] > told["iteration"])["state"] == "running"
        run.terminate()
        assert run.wait(60) == 128 + 15


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_losses_of_an_interrupted_run_are_drawn(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    watched_runs.interrupt_at(monkeypatch, 7)
    assert call(PROGRAMS[name], "1000", "--plot", "losses.svg") == 128 + 2
    curve = re.findall(r'<polyline points="([^"]+)" fill="none" stroke="#0072b2" stroke-width="2"', drawn())[
        0
    ]
    assert 4 <= len(curve.split()) <= 6
    # Where there is no room for it, the run ends as it would have.
    watched_runs.interrupt_at(monkeypatch, 7)
    monkeypatch.setattr(watching, "write_whole", full_disk)
    capsys.readouterr()
    assert call(PROGRAMS[name], "1000", "--plot", "other.svg") == 128 + 2
    told = capsys.readouterr().err
    assert "other.svg: No space left on device; free some space" in told
    assert "interrupted" in told


def drawn() -> str:
    return Path("losses.svg").read_text()


def full_disk(path: str, content: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def test_the_losses_of_a_run_that_diverged_are_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert call(PROGRAMS["artistic_video"], "9", "-learning_rate", "1e30", "--plot", "losses.svg") == 1
    assert "not finite any more" in capsys.readouterr().err
    assert ">total</text>" in drawn()


def test_a_finished_training_is_drawn_when_it_is_asked_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    program = PROGRAMS["train"]
    assert call(program, "6", "--state", "s", "--plot", "losses.svg") == 0
    whole = drawn()
    capsys.readouterr()
    assert call(program, "6", "--resume", "s", "--plot", "losses.svg") == 0
    assert "going on from iteration 6 (s); there is none left of 6" in capsys.readouterr().err
    assert drawn() == whole


@pytest.mark.parametrize(
    ("name", "iterations", "more"),
    [
        ("artistic_video", "4", ["-continue_with", "4"]),
        ("artistic_video_multi_pass", "4", ["-continue_with_pass", "3"]),
        ("slow_neural_style", "0", []),
        ("train", "0", []),
    ],
)
def test_a_run_with_nothing_left_to_do_draws_nothing_and_says_so(
    name: str,
    iterations: str,
    more: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert call(PROGRAMS[name], iterations, *more, "--plot", "losses.svg") == 0
    assert "there is no loss above 0 to draw, so that losses.svg is not written" in capsys.readouterr().err
    assert not Path("losses.svg").exists()


@pytest.mark.parametrize(
    "more", ["artistic_video -continue_with 4", "artistic_video_multi_pass -continue_with_pass 3"]
)
def test_a_video_without_a_frame_to_make_says_so(
    more: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    name, *words = more.split()
    told: list[str] = []
    monkeypatch.setattr(watching.Show, "end", lambda show, message: told.append(message))
    assert call(PROGRAMS[name], "4", *words) == 0
    assert told == ["No frame was left to make"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_cannot_be_is_refused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for words, told in (
        ("--plot losses.txt", "a plot is an .svg or a .png file"),
        ("--watch 70000", "65535"),
    ):
        try:
            status = call(PROGRAMS[name], "4", *words.split())
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
        assert status in (1, 2)
        assert told in capsys.readouterr().err
