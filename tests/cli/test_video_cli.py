"""The commands around videos: th artistic_video.lua, legacy-style video, flow and consistency, and their live lines."""

import io
import re
import signal
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import video_clips
import video_recordings
from recorded_runs import one_thread, working_in

from legacy_style.cli import artistic_video, artistic_video_multi_pass, legacy_style, th
from legacy_style.cli.artistic_video import FrameLine
from legacy_style.cli.video import VideoLine, describe
from legacy_style.programs.artistic_video.painter import FrameEvaluation
from legacy_style.programs.artistic_video.single import frame_progress
from legacy_style.programs.progress import WorkDone
from legacy_style.programs.video.run import VideoProgress

CHECKOUT = Path(__file__).parents[2]
STYLE = str(CHECKOUT / "examples" / "mosaic.jpg")
THIN = ["--style", STYLE, "--model", video_clips.MODEL, "--size", "64", "--iterations", "2,1"]


def call(*words):
    with one_thread():
        return legacy_style.main(list(words))


@pytest.fixture
def clip(tmp_path):
    return str(video_clips.write(tmp_path / "clip.mp4", [video_clips.frame(i) for i in range(3)]))


def test_th_serves_both_scripts(capsys, monkeypatch):
    for script, module in (
        ("artistic_video.lua", artistic_video),
        ("artistic_video_multiPass.lua", artistic_video_multi_pass),
    ):
        monkeypatch.setattr(sys, "argv", ["th", f"some/where/{script}", "--version"])
        assert th.SCRIPTS[script] == module.__name__.rpartition(".")[2]
        assert th.main() == 0
        assert capsys.readouterr().out.startswith(f"{script.removesuffix('.lua')} ")


def test_an_interrupted_video_says_which_frame_is_there_and_goes_on(tmp_path):
    """As a process of its own, with a signal: frames stay, and -continue_with makes the rest."""
    run = video_recordings.recorded(video_recordings.SHIPPED)["v_start2"]
    video_recordings.lend(run.root, tmp_path)
    words = [
        "-gpu",
        "-1",
        "-seed",
        "1",
        "-content_pattern",
        "frames/f_%02d.ppm",
        "-style_image",
        "inputs/square80.png",
    ]
    words += [
        "-flow_pattern",
        "flow/backward_[%d]_{%d}.flo",
        "-flowWeight_pattern",
        "flow/reliable_[%d]_{%d}.pgm",
    ]
    words += ["-num_images", "2", "-num_iterations", "1,1000000", "-tol_loss_relative", "-1"]
    program = (
        "import sys; from legacy_style.cli import artistic_video; sys.exit(artistic_video.main(sys.argv[1:]))"
    )
    more = ["-print_iter", "1", "-optimizer", "adam"]
    with forked.start("-c", program, *words, *more, cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Iteration 2 / 1000000"):
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT or process.returncode == 130
    assert "artistic_video: interrupted; the last image that was saved is out-1.png" in said
    with working_in(tmp_path), one_thread():
        assert artistic_video.main([*words[:-4], "-num_iterations", "2", "-continue_with", "2"]) == 0
    assert (tmp_path / "out-2.png").is_file()


def test_a_video_is_painted_by_the_command(clip, tmp_path, capsys):
    assert call("video", clip, str(tmp_path / "out.mp4"), *THIN, "--measure") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'out.mp4'}: 3 frames"
    assert re.fullmatch(
        r"mean squared difference to the warped frame before: \S+ \(colours 0 to 1\)", lines[1]
    )
    assert len(video_clips.read(tmp_path / "out.mp4")[0]) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nope.mp4", "out.mp4", "--style", STYLE], "nope.mp4: no such file"),
        (["IN", "out.mp4"], "give --style with an image, or --fast"),
        (["IN", "out.mp4", "--style", STYLE, "--iterations", "many"], "--iterations 'many'"),
        (["IN", "out.txt", "--style", STYLE], "no kind of video ends in .txt"),
        (["IN", "out.mp4", "--fast", STYLE], "mosaic.jpg"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_status_1(words, says, clip, tmp_path, capsys):
    with working_in(tmp_path):
        assert call("video", *(clip if word == "IN" else word for word in words)) == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and "Traceback" not in said
    assert not list(tmp_path.glob("out.*.mp4"))


def test_a_killed_process_loses_one_frame_at_most(tmp_path):
    """SIGKILL, which nothing can be done about, at moments of all kinds."""
    clip = str(video_clips.write(tmp_path / "clip.mp4", [video_clips.frame(i) for i in range(4)]))
    assert call("video", clip, str(tmp_path / "whole.mp4"), *THIN) == 0
    words = ["-m", "legacy_style.cli.legacy_style", "video", clip, str(tmp_path / "out.mp4"), *THIN]
    work = tmp_path / "out.mp4.work"
    for wanted in (1, 3):
        with forked.start(*words, stdout=forked.DEVNULL, stderr=forked.DEVNULL) as process:
            while process.poll() is None and len(list(work.glob("frame_*.png"))) < wanted:
                time.sleep(0.005)
            process.kill()
        assert (tmp_path / "out.mp4").exists() or len(list(work.glob("frame_*.png"))) >= wanted
    assert call("video", clip, str(tmp_path / "out.mp4"), *THIN) == 0
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_flow_and_consistency_write_their_files(tmp_path, capsys):
    from PIL import Image

    for number in (1, 2):
        Image.fromarray(video_clips.frame(number)).save(tmp_path / f"f{number}.png")
    flow = tmp_path / "flow"
    assert call("flow", str(tmp_path / "f%d.png"), str(flow)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{flow}: 4 files"
    pair = [str(flow / "backward_2_1.flo"), str(flow / "forward_1_2.flo")]
    assert call("consistency", *pair, str(tmp_path / "mask.pgm")) == 0
    assert (tmp_path / "mask.pgm").read_bytes() == (flow / "reliable_2_1.pgm").read_bytes()
    assert call("consistency", *pair, str(tmp_path / "nodir" / "mask.pgm")) == 1


WORK = WorkDone((1,), 1, 2)


def test_the_live_line_of_a_video():
    assert describe(VideoProgress(3, 10, 20, 60, 1234.5, 2.0, WORK)) == [
        "Frame 3 / 10",
        "iteration 20 / 60",
        "loss 1234",
        "2 s/frame",
        "16 s left",
    ]
    assert describe(VideoProgress(3, None, 0, 0, None, float("nan"), WORK)) == ["Frame 3"]
    stream = io.StringIO()
    live = VideoLine(stream, shown=True)
    live.update(VideoProgress(1, 2, 1, 2, 5.0, float("nan"), WORK))
    live.update(VideoProgress(1, 2, 2, 2, 4.0, float("nan"), WORK))  # too soon after the other
    live.clear()
    text = "Frame 1 / 2  iteration 1 / 2  loss 5"
    assert stream.getvalue() == f"\r{text}\r{' ' * len(text)}\r"
    hidden = VideoLine(io.StringIO(), shown=False)
    hidden.update(VideoProgress(1, 2, 1, 2, 5.0, 1.0, WORK))
    assert hidden._stream.getvalue() == ""


def test_the_live_line_of_artistic_video(monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 5.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    live = FrameLine(stream, shown=True)
    losses = FrameEvaluation(7, (1.0,), (2.0,), (3.0,))
    frame = np.zeros((3, 2, 2))
    for number in (1, 2):
        live.update(
            frame_progress(losses, torch.zeros(1, 3, 2, 2), 100.0, WORK, number, 4, "a frame", frame, "f.png")
        )
    live.clear()
    assert stream.getvalue().split("\r")[1:3] == [
        "Frame 1 / 4  iteration 7 / 100  loss 6",
        "Frame 2 / 4  iteration 7 / 100  loss 6  10 s/frame  30 s left",
    ]
