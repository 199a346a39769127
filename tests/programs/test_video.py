"""legacy-style video: sources and outputs of every kind, flow, cuts, steadiness, runs that are killed and go on."""

import math
import random
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
import video_clips
from PIL import Image
from recorded_runs import one_thread

from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.artistic_video import flo
from legacy_style.programs.video import flow_files, motion, run, sink, source, steadiness, work

STYLE = Path(__file__).parents[2] / "examples" / "mosaic.jpg"


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


@pytest.fixture
def frames():
    return [video_clips.frame(number) for number in range(6)]


@pytest.fixture
def clip(tmp_path, frames):
    return video_clips.write(tmp_path / "clip.mp4", frames, sound=True)


def settings(clip, output, **changes):
    given = {
        "styles": (str(STYLE),),
        "model": video_clips.MODEL,
        "iterations": (3, 2),
        "size": 64,
        **changes,
    }
    return run.VideoSettings(str(clip), str(output), **given)


def paint(clip, output, **changes):
    said = []
    result = run.run(settings(clip, output, **changes), notice=said.append)
    return result, said


# ---- sources


def all_frames(path, width=64, height=48):
    return list(source.read(source.open_source(str(path)), width, height))


def test_a_video_is_read_frame_by_frame_with_its_times(clip, frames):
    known = source.open_source(str(clip))
    assert (known.width, known.height, known.rate, known.count, known.has_sound) == (64, 48, 25, 6, True)
    read = all_frames(clip)
    assert [each.number for each in read] == [1, 2, 3, 4, 5, 6]
    assert [float(each.time) for each in read] == pytest.approx([i / 25 for i in range(6)])
    assert np.abs(np.int16(read[3].picture) - frames[3]).mean() < 4


def test_a_rotation_flag_is_obeyed():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = source._upright(SimpleNamespace(rotation=90, to_ndarray=lambda format: picture))
    assert turned.shape == (4, 2, 3) and np.array_equal(turned, np.rot90(picture))


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, frames):
    for number in (10, 9, 2):
        Image.fromarray(frames[number % 6]).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("")
    assert [each.name for each in all_frames(tmp_path)] == ["f2.png", "f9.png", "f10.png"]


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((64, 48), 320, (64, 48)),
        ((65, 49), 320, (64, 48)),
        ((1280, 720), 320, (320, 180)),
        ((9, 500), 100, (2, 100)),
    ],
)
def test_the_working_size_is_even_and_no_larger_than_the_source(size, longest, expected):
    known = source.FrameSource("", *size, Fraction(25), Fraction(1, 25), None, False)
    assert source.working_size(known, longest) == expected


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [(None, OptionError, "no such file"), (b"not a video", FormatError, "not a video that can be read")],
)
def test_what_is_no_video_is_told(content, error, says, tmp_path):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(error, match=says):
        source.open_source(str(tmp_path / "a.mp4"))


def test_a_file_with_sound_alone_and_an_empty_folder_are_told(tmp_path):
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        tone = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux([*tone.encode(samples), *tone.encode()])
    with pytest.raises(FormatError, match="there is no video in this file"):
        source.open_source(str(tmp_path / "a.m4a"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="no images in this folder"):
        source.open_source(str(tmp_path / "empty"))


# ---- flow


def zoomed(seed, shift, zoom):
    """A texture, what becomes of it by a shift and a zoom about the middle, and the flow between the two."""
    y, x = np.mgrid[0:96, 0:128].astype(np.float32)
    u, v = shift[0] + zoom * (x - 64), shift[1] + zoom * (y - 48)
    texture = video_clips.texture(seed=seed).astype(np.float32)
    first = cv2.remap(texture, x + 60, y + 60, cv2.INTER_LINEAR)
    # The second frame at p shows what the first shows at q with q + flow(q) = p.
    back_x, back_y = (x - shift[0] - 64) / (1 + zoom) + 64, (y - shift[1] - 48) / (1 + zoom) + 48
    second = cv2.remap(texture, back_x + 60, back_y + 60, cv2.INTER_LINEAR)
    return first.astype(np.uint8), second.astype(np.uint8), np.stack([u, v])


def end_point_error(flow, known):
    inner = np.s_[:, 10:-10, 10:-10]
    return float(np.hypot(*(flow - known)[inner]).mean())


MOTIONS = [(0, (2.5, -1.25), 0.0), (1, (-6.0, 3.0), 0.02), (2, (0.5, 9.0), -0.03), (3, (12.0, 0.0), 0.0)]


@pytest.mark.parametrize(("seed", "shift", "zoom"), MOTIONS)
def test_dis_finds_known_motion_to_a_fraction_of_a_pixel(seed, shift, zoom):
    first, second, known = zoomed(seed, shift, zoom)
    assert end_point_error(motion.Dis()(first, second), known) < 0.25


def test_dis_is_nearer_to_known_motion_than_farneback():
    errors = []
    for each in MOTIONS:
        first, second, known = zoomed(*each)
        grays = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
        other = cv2.calcOpticalFlowFarneback(*grays, None, 0.5, 3, 15, 3, 5, 1.2, 0).transpose(2, 0, 1)
        errors.append((end_point_error(motion.Dis()(first, second), known), end_point_error(other, known)))
    dis, farneback = np.mean(errors, axis=0)
    assert dis < farneback


def test_frames_smaller_than_dis_can_take_have_a_flow():
    flow = motion.Dis()(video_clips.frame(0, 18, 10), video_clips.frame(1, 18, 10))
    assert flow.shape == (2, 10, 18) and np.isfinite(flow).all()


def test_the_flow_goes_back_to_the_frame_before(frames):
    moved = motion.motion(motion.Dis(), frames[0], frames[1])
    inner = np.s_[8:-8, 8:-8]
    # The camera moves down 1 and right 2, so what is at (y, x) now was at (y + 1, x + 2).
    assert np.abs(moved.flow[0][inner] - 2).mean() < 0.1 and np.abs(moved.flow[1][inner] - 1).mean() < 0.1
    assert moved.mask[inner].mean() > 200 and not moved.is_cut


def test_a_cut_is_found_and_other_changes_are_none():
    def cut(before, now):
        return motion.motion(motion.Dis(), before, now).is_cut

    shot = video_clips.frame(0, 96, 64)
    other = (
        (255 - video_clips.frame(30, 96, 64, seed=9).astype(np.float64) * 0.6).clip(0, 255).astype(np.uint8)
    )
    assert cut(shot, other)
    assert not cut(shot, video_clips.frame(3, 96, 64))
    assert not cut(shot, (shot * 0.6).astype(np.uint8))  # a light goes off
    assert not cut(shot, video_clips.frame(16, 96, 64))  # a quick pan


WRITES_FLOW = """
import struct, sys
from PIL import Image
first, second, name = sys.argv[-3:]
width, height = Image.open(first).size
open(name, "wb").write(struct.pack("<fii", 202021.25, width, height) + struct.pack("<ff", 1.5, -2) * (width * height))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "flow.py").write_text(WRITES_FLOW)
    return f"{sys.executable} {tmp_path / 'flow.py'}"


def test_any_program_can_make_the_flow(program, frames):
    for command in (program, f"{program} {{first}} {{second}} {{flow}}"):
        flow = motion.Command(command)(frames[0], frames[1])
        assert np.all(flow[0] == 1.5) and np.all(flow[1] == -2)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "is empty"),
        ("'open", "close every quote"),
        ("/nowhere/deepflow", "cannot be started"),
        (
            f"{sys.executable} -c 'import sys; sys.exit(\"no weights\")'",
            "status 1 and wrote no flow: no weights",
        ),
        (f"{sys.executable} -c pass", "status 0 and wrote no flow"),
    ],
)
def test_a_flow_program_that_fails_is_told(command, says, frames):
    with pytest.raises(OptionError, match=says):
        motion.Command(command)(frames[0], frames[1])


def test_flow_files_have_the_names_that_artistic_video_reads(tmp_path, frames, program):
    for number in (1, 2, 3):
        Image.fromarray(frames[number]).save(tmp_path / f"f_{number:02d}.png")
    pattern, folder = str(tmp_path / "f_%02d.png"), str(tmp_path / "flow")
    made = [Path(name).name for name in flow_files.make(pattern, folder, 1, 1, None)]
    assert made == [
        *("forward_1_2.flo", "backward_2_1.flo", "reliable_2_1.pgm", "reliable_1_2.pgm"),
        *("forward_2_3.flo", "backward_3_2.flo", "reliable_3_2.pgm", "reliable_2_3.pgm"),
    ]
    kept = flo.read(f"{folder}/backward_2_1.flo")
    assert np.median(kept[0]) == pytest.approx(2, abs=0.2)
    # What is there stays, also with another program.
    again = [Path(name).name for name in flow_files.make(pattern, folder, 1, 1, program)]
    assert "backward_2_1.flo" not in again and np.array_equal(flo.read(f"{folder}/backward_2_1.flo"), kept)
    far = [Path(name).name for name in flow_files.make(pattern, folder, 1, 2, None)]
    assert "forward_1_3.flo" in far and "reliable_3_1.pgm" in far


def test_flow_files_without_frames_or_numbers_are_refused(tmp_path):
    with pytest.raises(OptionError, match="no such file"):
        list(flow_files.make(str(tmp_path / "%d.png"), str(tmp_path / "flow"), 1, 1, None))
    with pytest.raises(OptionError, match="names the same file for every frame"):
        list(flow_files.make(str(tmp_path / "a.png"), str(tmp_path / "flow"), 1, 1, None))


# ---- steadiness


def test_what_moves_with_its_content_is_steady_and_flicker_is_not(frames):
    flow = motion.Dis()
    steady = steadiness.measure(zip(frames, frames, strict=True), flow)
    noise = np.random.RandomState(1)
    flickering = [(f * 0.5 + noise.randint(0, 120, f.shape)).astype(np.uint8) for f in frames]
    assert steady < 1e-3 < 0.01 < steadiness.measure(zip(frames, flickering, strict=True), flow)


def test_the_measure_is_the_mean_square_over_what_can_be_trusted():
    meter = steadiness.SteadinessMeter()
    assert np.isnan(meter.value)
    mask = np.zeros((4, 5), np.uint8)
    mask[:2] = 255
    now = np.zeros((4, 5, 3), np.uint8)
    now[0, ..., 0] = 51  # 0.2 in one of three colours, in half of what counts
    now[3] = 255  # which does not count
    meter.add(np.zeros((4, 5, 3), np.uint8), now, np.zeros((2, 4, 5), np.float32), mask)
    assert meter.value == pytest.approx(0.04 / 3 / 2)
    away = np.full((2, 4, 5), 9, np.float32)
    # From outside comes nothing that counts.
    meter.add(now, np.zeros((4, 5, 3), np.uint8), away, np.full((4, 5), 255, np.uint8))
    assert meter.value == pytest.approx(0.04 / 3 / 2)


# ---- outputs


def test_the_finished_video_has_rate_times_size_and_sound_of_its_source(clip, tmp_path):
    result, said = paint(clip, tmp_path / "out.mp4")
    pictures, times = video_clips.read(tmp_path / "out.mp4")
    assert (result.frames, result.cuts, said) == (6, (), [])
    assert pictures[0].shape == (48, 64, 3)
    assert times == pytest.approx([i / 25 for i in range(6)])
    with av.open(str(clip)) as one, av.open(str(tmp_path / "out.mp4")) as other:
        assert other.streams.video[0].average_rate == 25
        sounds = [[bytes(packet) for packet in each.demux(audio=0) if packet.size] for each in (one, other)]
    assert sounds[0] == sounds[1] and len(sounds[0]) > 2
    assert not (tmp_path / "out.mp4.work").exists()


def test_variable_frame_rates_stay(tmp_path, frames):
    times = [0, 4, 8, 40, 44, 100]
    clip = video_clips.write(tmp_path / "clip.mkv", frames, times=times)
    paint(clip, tmp_path / "out.mp4")
    assert video_clips.read(tmp_path / "out.mp4")[1] == pytest.approx([t / 100 for t in times], abs=2e-3)


def test_the_output_has_the_sources_size_unless_it_is_to_keep_the_working_one(clip, tmp_path):
    paint(clip, tmp_path / "a.mp4", size=32, alone=True, iterations=(1, 1))
    paint(clip, tmp_path / "b.mp4", size=32, alone=True, iterations=(1, 1), enlarge=False)
    assert video_clips.read(tmp_path / "a.mp4")[0][0].shape == (48, 64, 3)
    assert video_clips.read(tmp_path / "b.mp4")[0][0].shape == (24, 32, 3)


def test_odd_sizes_lose_a_pixel_and_one_frame_without_sound_is_a_video(tmp_path):
    clip = video_clips.write(tmp_path / "clip.mp4", [video_clips.frame(0, 65, 49)])
    assert paint(clip, tmp_path / "out.mp4")[0].frames == 1
    assert video_clips.read(tmp_path / "out.mp4")[0][0].shape == (48, 64, 3)


def test_gifs_and_folders_of_frames_go_in_and_out(tmp_path, frames):
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(frames[:3], 1):
        Image.fromarray(picture).save(tmp_path / "in" / f"shot{number}.jpg")
    paint(tmp_path / "in", tmp_path / "out.gif", rate=10.0)
    with Image.open(tmp_path / "out.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (64, 48), 100)
    paint(tmp_path / "out.gif", f"{tmp_path}/out/")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"frame_000{number}.png" for number in (1, 2, 3)
    ]
    paint(tmp_path / "in", f"{tmp_path}/named/")
    assert sorted(path.name for path in (tmp_path / "named").iterdir()) == [
        f"shot{number}.png" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("kind", ["webm", "mkv", "avi", "mov", "m4v"])
def test_other_kinds_hold_frames_and_sound(kind, clip, tmp_path):
    _, said = paint(clip, tmp_path / f"out.{kind}", iterations=(1, 1), alone=True)
    pictures, _ = video_clips.read(tmp_path / f"out.{kind}")
    with av.open(str(tmp_path / f"out.{kind}")) as container:
        assert len(pictures) == 6 and len(container.streams.audio) == 1
    assert bool(said) == (kind in ("webm", "avi"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("out.xyz", "no kind of video ends in .xyz"),
        ("out", "ends in nothing"),
        ("nodir/out.mp4", "missing or not writable"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(name, says, clip, tmp_path):
    with pytest.raises(OptionError, match=says):
        paint(clip, tmp_path / name)
    assert not list(tmp_path.glob("*.work"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"styles": ()}, "give --style with an image, or --fast"),
        ({"styles": ("nope.jpg",)}, "nope.jpg: No such file or directory; give the name"),
        ({"size": 8}, "--size 8"),
        ({"iterations": (5, 0)}, "--iterations must be 1 or more"),
        ({"rate": 0.0}, "--rate 0"),
        ({"style_scale": 0.0}, "--style-scale 0: give a number above 0"),
        ({"style_scale": math.inf}, "--style-scale inf: give a number above 0"),
        ({"style_scale": math.nan}, "--style-scale nan: give a number above 0"),
    ],
)
def test_wrong_options_are_told_before_the_work(changes, says, clip, tmp_path):
    with pytest.raises(OptionError, match=says):
        paint(clip, tmp_path / "out.mp4", **changes)


# ---- runs


def test_a_later_frame_begins_at_its_warped_predecessor_and_costs_fewer_iterations(clip, tmp_path):
    seen = []
    run.run(settings(clip, tmp_path / "out.mp4"), notice=seen.append, on_progress=seen.append)
    counts = [sum(each.frame == number and each.loss is not None for each in seen) for number in range(1, 7)]
    assert counts == [3, 2, 2, 2, 2, 2]
    defaults = run.VideoSettings("", "").iterations
    assert defaults[1] * 2 <= defaults[0]


def test_a_cut_starts_afresh(tmp_path, frames):
    other = [(255 - video_clips.frame(i + 30, seed=9) * 0.6).astype(np.uint8) for i in range(3)]
    clip = video_clips.write(tmp_path / "clip.mp4", frames[:3] + other)
    seen = []
    result = run.run(
        settings(clip, tmp_path / "out.mp4"), notice=seen.append, on_progress=lambda each: seen.append(each)
    )
    assert result.cuts == (4,)
    assert sum(each.frame == 4 and each.loss is not None for each in seen) == 3


def test_a_run_that_is_killed_goes_on_and_gives_the_same_video(clip, tmp_path):
    paint(clip, tmp_path / "whole.mp4")
    choose = random.Random(5)
    kills = 0
    for _ in range(20):
        left = choose.randint(1, 7)

        def kill(progress):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        before = len(list(tmp_path.glob("out.mp4.work/*.png")))
        try:
            run.run(settings(clip, tmp_path / "out.mp4"), notice=lambda line: None, on_progress=kill)
            break
        except KeyboardInterrupt:
            kills += 1
            (tmp_path / "out.mp4.work" / ".frame_000006.png.part").write_bytes(b"half")
            assert len(list(tmp_path.glob("out.mp4.work/*.png"))) >= before
    assert kills >= 2
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not (tmp_path / "out.mp4.work").exists()


def test_a_run_that_is_stopped_has_a_video_so_far_and_goes_on(clip, tmp_path):
    paint(clip, tmp_path / "whole.mp4")

    def stop(progress):
        return progress.picture is not None and progress.frame == 4

    asked = settings(clip, tmp_path / "out.mp4")
    result = run.run(asked, notice=lambda line: None, on_progress=stop)
    assert (result.frames, result.stopped) == (4, True)
    with av.open(tmp_path / "out.mp4") as opened:
        assert len(list(opened.decode(video=0))) == 4
    result = run.run(asked, notice=lambda line: None, on_progress=lambda progress: None)
    assert (result.frames, result.stopped) == (6, False)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not (tmp_path / "out.mp4.work").exists()


def test_a_preview_is_the_beginning_of_the_whole(tmp_path):
    clip = video_clips.write(tmp_path / "clip.mp4", [video_clips.frame(i) for i in range(13)], sound=True)
    result, _ = paint(clip, tmp_path / "out.mp4", preview=True, iterations=(1, 1))
    assert result.frames == len(video_clips.read(tmp_path / "out.mp4")[0]) == run.PREVIEW
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert float(list(container.demux(audio=0))[-2].pts / 16000) < 0.4
    result, said = paint(clip, tmp_path / "out.mp4", iterations=(1, 1))
    assert result.frames == 13 and said[0].startswith("going on after frame 10")


def test_frames_of_another_run_are_not_taken_up(clip, tmp_path):
    paint(clip, tmp_path / "out.mp4", preview=True)
    with pytest.raises(OptionError, match=r"--style-weight was 100.0 and is 50.0.*Give --fresh"):
        paint(clip, tmp_path / "out.mp4", style_weight=50.0)
    result, said = paint(clip, tmp_path / "out.mp4", style_weight=50.0, fresh=True)
    assert result.frames == 6 and not said


def test_a_folder_that_is_none_of_ours_is_left_alone(clip, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "frame_000001.png").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(OptionError, match="no work folder of this program"):
            paint(clip, tmp_path / "out.mp4", work=str(tmp_path / "mine"), fresh=fresh)
    assert (tmp_path / "mine" / "frame_000001.png").read_text() == "precious"


def test_a_named_work_folder_stays(clip, tmp_path):
    paint(clip, tmp_path / "out.mp4", work=str(tmp_path / "kept"))
    assert len(list((tmp_path / "kept").glob("frame_*.png"))) == 6


def test_a_clip_that_is_broken_in_the_middle_keeps_what_was_made(tmp_path, frames):
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(frames, 1):
        Image.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "4.png").write_bytes((tmp_path / "in" / "4.png").read_bytes()[:500])
    with pytest.raises(source.Broken, match=r"4.png.*The 3 frames before that are in"):
        paint(tmp_path / "in", tmp_path / "out.mp4")
    assert len(video_clips.read(tmp_path / "out.mp4")[0]) == 3
    Image.fromarray(frames[3][:20]).save(tmp_path / "in" / "4.png")
    with pytest.raises(source.Broken, match="it is 64x20 pixels, the first image 64x48"):
        paint(tmp_path / "in", tmp_path / "b.mp4")


def test_a_file_that_ends_too_early_keeps_what_was_made(tmp_path):
    clip = video_clips.write(tmp_path / "whole.mp4", [video_clips.frame(i) for i in range(40)])
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(clip.read_bytes())
    for position, size in packets[20:]:
        data[position : position + size] = bytes(size)
    (tmp_path / "clip.mp4").write_bytes(data)
    with pytest.raises(source.Broken, match=r"decoded.*frames before that are in"):
        paint(tmp_path / "clip.mp4", tmp_path / "out.mp4", iterations=(1, 1), alone=True)
    assert 10 < len(video_clips.read(tmp_path / "out.mp4")[0]) < 40


def test_two_frames_at_most_wait_in_memory():
    made = []

    def steps():
        for number in range(50):
            made.append(number)
            yield run.Step(source.Frame(number, Fraction(0), np.zeros((2, 2, 3), np.uint8)), None, False)

    for step in run.ahead(steps()):
        assert len(made) <= step.frame.number + 4
    assert len(made) == 50


def test_the_next_flow_is_computed_while_a_frame_is_painted(clip, tmp_path, monkeypatch):
    computed = [threading.Event() for _ in range(6)]  # of frame 2, 3, ...
    flow, waited = run.motion.motion, []

    def motion(*given):
        found = flow(*given)
        next(event for event in computed if not event.is_set()).set()
        return found

    def make(content, before, moved):
        if before is not None and len(waited) < 3:  # painting frame 2, 3 and 4
            waited.append(computed[len(waited) + 1].wait(60))
        return content

    monkeypatch.setattr(run.motion, "motion", motion)
    monkeypatch.setattr(run.Story, "maker", lambda story: make)
    paint(clip, tmp_path / "out.mp4")
    assert waited == [True] * 3


def test_an_error_of_the_decoding_thread_comes_out():
    def steps():
        raise OptionError("no flow")
        yield

    with pytest.raises(OptionError, match="no flow"):
        list(run.ahead(steps()))


def test_ours_is_steadier_than_frame_by_frame(clip, tmp_path):
    values = {
        alone: paint(clip, tmp_path / f"{alone}.mp4", alone=alone, iterations=(12, 6), measure=True)[
            0
        ].steadiness
        for alone in (True, False)
    }
    assert values[False] < values[True]


NETWORK = str(Path(__file__).parents[1] / "golden" / "t7" / "in_rs.t7")


def test_a_trained_network_paints_the_video_and_keeps_most_of_the_frame_before(clip, tmp_path):
    blended, by_itself = (
        paint(clip, tmp_path / f"{alone}.mp4", styles=(), fast=NETWORK, alone=alone, measure=True)[0]
        for alone in (False, True)
    )
    assert blended.frames == by_itself.frames == 6
    assert blended.steadiness < by_itself.steadiness / 2


@pytest.mark.parametrize(
    ("cards", "gpu", "device"), [(1, None, "cuda:0"), (2, 1, "cuda:1"), (1, -1, "cpu"), (0, None, "cpu")]
)
@pytest.mark.parametrize("fast", [None, NETWORK])
def test_a_gpu_paints_the_video_where_there_is_one(cards, gpu, device, fast, clip, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)

    class Chosen(Exception):
        pass

    def load(model, where):
        chosen.append(str(where))
        raise Chosen

    def slow(model, losses, gpu, **more):
        chosen.append("cpu" if gpu < 0 else f"cuda:{gpu}")
        raise Chosen

    monkeypatch.setattr(run.fast.painter, "load", load)
    monkeypatch.setattr(run, "FramePainter", slow)
    with pytest.raises(Chosen):
        paint(clip, tmp_path / "out.mp4", fast=fast, gpu=gpu)
    assert chosen == [device]


def test_a_painter_that_is_not_there_is_told(clip, tmp_path):
    with pytest.raises(OptionError, match="--fast oil: no such style in the box and no such file; give ink"):
        paint(clip, tmp_path / "out.mp4", fast="oil")


def test_work_names_and_digests(tmp_path):
    kept = work.WorkFolder(str(tmp_path / "w"), {"a": "1"}, fresh=False)
    kept.save(1, np.full((3, 2, 2), 0.5))
    assert kept.load(1).tolist() == [[[127] * 3] * 2] * 2 and kept.done == 1
    assert work.WorkFolder(str(tmp_path / "w"), {"a": "1"}, fresh=False).done == 1
    (tmp_path / "d").mkdir()
    empty = work.digest(str(tmp_path / "d"))
    (tmp_path / "d" / "x").write_text("1")
    assert work.digest(str(tmp_path / "d")) != empty
    kept.remove()
    assert not (tmp_path / "w").exists()


def test_frames_that_are_kept_as_images_are_not_darkened(tmp_path):
    pictures = [source.Frame(1, Fraction(0), np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2))]
    sink._write_folder(f"{tmp_path}/out", pictures)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "frame_0001.png")), pictures[0].picture)


def test_torch_is_left_without_gradients(clip, tmp_path):
    paint(clip, tmp_path / "out.mp4", preview=True, iterations=(1, 1))
    assert torch.is_grad_enabled()
