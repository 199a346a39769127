"""`legacy-style video`: any video as a painting. `legacy-style flow`: .flo files and masks for artistic_video.lua.

torch, PyAV and OpenCV are imported when a command runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from legacy_style.cli import process
from legacy_style.cli.gpu import GPU_OPTION
from legacy_style.cli.progress import LiveLine, duration
from legacy_style.cli.watching import told_end, watched
from legacy_style.errors import OptionError

if TYPE_CHECKING:
    from legacy_style.programs.video.run import VideoProgress, VideoResult, VideoSettings
    from legacy_style.watch.watcher import Watcher

_FLOW_COMMAND = click.option(
    "--flow-command",
    metavar="COMMAND",
    help="A program for optical flow instead of DIS; {first} {second} {flow} are its files, or are appended.",
)


@click.command("video")
@click.argument("input", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--style", "styles", multiple=True, metavar="IMAGE", help="Style image; several are blended.")
@click.option(
    "--fast",
    metavar="MODEL",
    help="A painter in the box (ink), or a trained network (.t7), instead of --style.",
)
@click.option("--size", default=320, show_default=True, help="Longer side that is worked in, in pixels.")
@click.option(
    "--iterations",
    default="100,30",
    show_default=True,
    metavar="FIRST,LATER",
    help="L-BFGS iterations for the first frame of a shot, and for those that begin at their predecessor.",
)
@click.option("--content-weight", default=10.0, show_default=True)
@click.option("--style-weight", default=100.0, show_default=True)
@click.option(
    "--temporal-weight", default=1000.0, show_default=True, help="How fast a frame is held to the one before."
)
@click.option("--tv-weight", default=1e-3, show_default=True, help="Smoothness.")
@click.option("--style-scale", default=1.0, show_default=True, help="Size of the style's features.")
@click.option("--model", metavar="FILE", help="VGG network; the bundled VGG-16 if not given.")
@GPU_OPTION
@click.option("--alone", is_flag=True, help="Each frame by itself, without optical flow; it will flicker.")
@_FLOW_COMMAND
@click.option(
    "--rate", default=25.0, show_default=True, help="Frames a second, where IN is a folder of images."
)
@click.option("--no-sound", is_flag=True, help="Leave the sound out.")
@click.option("--keep-size", is_flag=True, help="OUT in the size that was worked in, not in the source's.")
@click.option("--exif-rotate", is_flag=True, help="Turn images upright, as EXIF says; videos always are.")
@click.option("--preview", is_flag=True, help="The first ten frames only; the whole goes on from them.")
@click.option("--measure", is_flag=True, help="Print how steady the result is.")
@click.option("--work", metavar="FOLDER", help="Where finished frames are kept; OUT.work if not given.")
@click.option("--fresh", is_flag=True, help="Begin anew, whatever the work folder holds.")
@click.option("--no-progress", is_flag=True, help="No live line on stderr, even if it is a terminal.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=0,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help="Show the frames on a page for a browser on this machine, at this port or any.",
)
def video(
    input: str,
    output: str,
    styles: tuple[str, ...],
    fast: str | None,
    size: int,
    iterations: str,
    content_weight: float,
    style_weight: float,
    temporal_weight: float,
    tv_weight: float,
    style_scale: float,
    model: str | None,
    gpu: int | None,
    alone: bool,
    flow_command: str | None,
    rate: float,
    no_sound: bool,
    keep_size: bool,
    exif_rotate: bool,
    preview: bool,
    measure: bool,
    work: str | None,
    fresh: bool,
    no_progress: bool,
    watch: int | None,
) -> int:
    """Paint the video IN, and write it to OUT with its frame rate and sound.

    IN is a video, a GIF or a folder of images. OUT ends in .mp4, .mov, .mkv, .webm, .avi or .gif, or in / for a folder
    of images. A run that was killed goes on where it was when the same command is given again.

    \b
    Examples:
      legacy-style video in.mp4 out.mp4 --style painting.jpg --preview
      legacy-style video in.mp4 out.mp4 --style painting.jpg
      legacy-style video in.mp4 out.mp4 --fast ink
    """
    from legacy_style.engine import machine
    from legacy_style.programs.video import run

    machine.keep_freed_memory()
    live = VideoLine(sys.stderr, shown=not no_progress and sys.stderr.isatty())

    def notice(line: str) -> None:
        live.clear()
        process.say("legacy-style video", line)

    settings = run.VideoSettings(
        input=input,
        output=output,
        styles=styles,
        fast=fast,
        size=size,
        iterations=_pair(iterations),
        content_weight=content_weight,
        style_weight=style_weight,
        temporal_weight=temporal_weight,
        tv_weight=tv_weight,
        style_scale=style_scale,
        model=model,
        gpu=gpu,
        alone=alone,
        flow_command=flow_command,
        rate=rate,
        sound=not no_sound,
        enlarge=not keep_size,
        exif_rotate=exif_rotate,
        preview=preview,
        measure=measure,
        work=work,
        fresh=fresh,
    )
    try:
        with watched(watch, notice) as watcher:
            if watcher is None:
                result = run.run(settings, notice=notice, on_progress=live.update)
            else:
                result = _watched(settings, watcher, live, notice)
    finally:
        live.clear()
    cuts = f", cuts before {', '.join(map(str, result.cuts))}" if result.cuts else ""
    so_far = "; stopped, and the same command goes on" if result.stopped else ""
    process.echo(f"{output}: {result.frames} frame{'s' * (result.frames > 1)}{cuts}{so_far}")
    if measure:
        print(f"mean squared difference to the warped frame before: {result.steadiness:.3g} (colours 0 to 1)")
    return 0


def _watched(
    settings: VideoSettings, watcher: Watcher, live: VideoLine, notice: Callable[[str], None]
) -> VideoResult:
    """The run, with each finished frame on the page, and the loss that it ended with."""
    from legacy_style.programs.video import run, sink

    watcher.begin(f"{Path(settings.input).name}, painted")
    loss = None

    def on_progress(progress: VideoProgress) -> bool:
        nonlocal loss
        live.update(progress)
        if progress.picture is None:
            loss = progress.loss
            watcher.stage(f"Frame {progress.frame}: iteration {progress.iteration} of {progress.iterations}")
            watcher.worked(progress.work)
            return False
        losses = {} if loss is None else {"loss of the frame": loss}
        frames = progress.frames or math.inf
        picture = progress.picture

        def keep() -> str:
            path = f"{Path(settings.output).with_suffix('')}-{progress.frame}.png"
            sink.save_picture(path, picture())
            return path

        return watcher.update(progress.frame, frames, losses, picture, keep, progress.work)

    with told_end(watcher):
        result = run.run(settings, notice=notice, on_progress=on_progress)
    if result.stopped:
        watcher.end("stopped", f"The video so far is {settings.output}; the same command goes on with it")
    else:
        watcher.end("done", f"The video is {settings.output}")
    return result


@click.command("flow")
@click.argument("pattern", metavar="PATTERN")
@click.argument("folder", metavar="FOLDER")
@click.argument("start", default=1, required=False)
@click.argument("step", default=1, required=False)
@_FLOW_COMMAND
@click.option(
    "--exif-rotate", is_flag=True, help="Turn frames upright, as artistic_video's --exif-rotate does."
)
def flow(
    pattern: str, folder: str, start: int, step: int, flow_command: str | None, exif_rotate: bool
) -> int:
    """Make optical flow and masks between all frames of PATTERN, as the original's makeOptFlow.sh did.

    Frames i and i + STEP, from START on while there are files, give forward_i_j.flo, backward_j_i.flo,
    reliable_i_j.pgm and reliable_j_i.pgm in FOLDER. Flow files that are there already are left as they are.

    \b
    Example:
      legacy-style flow frames/frame_%04d.ppm flow
    """
    from legacy_style.programs.video import flow_files

    notice = partial(process.say, "legacy-style flow")
    count = 0
    for name in flow_files.make(
        pattern, folder, start, step, flow_command, exif_rotate=exif_rotate, notice=notice
    ):
        print(name, flush=True)
        count += 1
    process.echo(f"{folder}: {count} file{'s' * (count != 1)}")
    return 0


@click.command("consistency")
@click.argument("flow")
@click.argument("opposite")
@click.argument("output")
def consistency(flow: str, opposite: str, output: str) -> int:
    """Write the mask OUTPUT (.pgm) of where FLOW can be trusted, judged by the OPPOSITE flow.

    It is what the original's consistencyChecker writes, to the byte.
    """
    from legacy_style.programs.artistic_video import consistency as checker
    from legacy_style.programs.artistic_video import flo

    checker.write(output, checker.certainty(flo.read(flow), flo.read(opposite)))
    return 0


class VideoLine(LiveLine):
    """The live line on stderr: frame, loss, seconds a frame, time left."""

    def update(self, progress: VideoProgress) -> None:
        self.show(lambda: describe(progress))


def describe(progress: VideoProgress) -> list[str]:
    """The parts of the live line, what matters most first."""
    frames = f" / {progress.frames}" if progress.frames else ""
    parts = [f"Frame {progress.frame}{frames}"]
    if progress.loss is not None:
        parts += [f"iteration {progress.iteration} / {progress.iterations}", f"loss {progress.loss:.4g}"]
    if not math.isnan(progress.seconds):
        parts.append(f"{progress.seconds:.3g} s/frame")
        if progress.frames:
            left = (progress.frames - progress.frame + (progress.loss is not None)) * progress.seconds
            parts.append(f"{duration(max(left, 0))} left")
    return parts


def _pair(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) in (1, 2) and all(part.strip().isdigit() for part in parts):
        return int(parts[0]), int(parts[-1])
    raise OptionError(f"--iterations {text!r}: give one or two whole numbers, for example 100,30")
