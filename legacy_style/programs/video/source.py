"""Frames of a video, a GIF or a folder of images, one after the other, with their times.

Frames are upright (a rotation flag is obeyed), RGB bytes (H, W, 3), scaled to the size that is worked in. Variable
frame rates need no care here: every frame keeps its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.video import packages
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.image_files import Notice

Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""

_SLACK = 2
"""So many frames may be missing from a good file: some are never shown."""

IMAGES = {".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Frame:
    """`number` counts from 1; `time`: seconds from the beginning of the file; `name`: that of an image in a folder."""

    number: int
    time: Fraction
    picture: Picture
    name: str = ""


@dataclass(frozen=True)
class FrameSource:
    """What is known of a source before it is read. `width`, `height`: upright, in its own pixels; `count`: about."""

    path: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    count: int | None
    has_sound: bool
    images: tuple[Path, ...] = ()
    exif_rotate: bool = False


class Broken(FormatError):
    """A source cannot be read on; the frames before were good."""


def open_source(
    path: str,
    rate: Fraction = Fraction(25),
    *,
    exif_rotate: bool = False,
    notice: Notice | None = None,
) -> FrameSource:
    """Look at a source; `rate` is how many images a second a folder has.

    `exif_rotate` turns the images of a folder upright; `notice` is told what is remarkable about the first one.

    Raises OptionError where there is nothing to read, FormatError where it is no video.
    """
    if Path(path).is_dir():
        return _open_folder(path, rate, exif_rotate, notice)
    if not Path(path).is_file():
        raise OptionError(f"{path}: no such file; give a video, a GIF, or a folder of images")
    av = packages.load("av")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise FormatError(f"{path}: there is no video in this file; give one that has frames")
            stream = container.streams.video[0]
            first = next(container.decode(stream), None)
            if first is None:
                raise FormatError(f"{path}: the video has no frame that can be decoded; get it again")
            height, width = _upright(first).shape[:2]
            return FrameSource(
                path=path,
                width=width,
                height=height,
                rate=stream.average_rate or stream.guessed_rate or rate,
                time_base=stream.time_base or Fraction(1, 90000),
                count=stream.frames or _estimate(container, stream),
                has_sound=bool(container.streams.audio),
            )
    except (av.error.FFmpegError, ValueError) as error:
        raise FormatError(
            f"{path}: not a video that can be read ({error}); convert it, or give a folder of images"
        ) from error


def read(source: FrameSource, width: int, height: int) -> Iterator[Frame]:
    """All frames, scaled to width x height; raises Broken where they cannot be read on."""
    frames = _read_folder(source) if source.images else _read_video(source)
    for number, (time, picture, name) in enumerate(frames, 1):
        yield Frame(number, time, scaled(picture, width, height), name)


def working_size(source: FrameSource, longest: int) -> tuple[int, int]:
    """Width and height with the longer side `longest`, or the source's own where that is shorter; both even."""
    factor = min(1.0, longest / max(source.width, source.height))
    return even(round(source.width * factor)), even(round(source.height * factor))


def even(number: int) -> int:
    """The even number at or below, at least 2: most video formats store colours for pairs of pixels."""
    return max(number // 2 * 2, 2)


def scaled(picture: Picture, width: int, height: int) -> Picture:
    """`picture` in another size; unchanged where it has that size, cut where one pixel is too many."""
    if picture.shape[0] - height in (0, 1) and picture.shape[1] - width in (0, 1):
        return np.ascontiguousarray(picture[:height, :width])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _open_folder(path: str, rate: Fraction, exif_rotate: bool, notice: Notice | None) -> FrameSource:
    images = sorted(
        (each for each in Path(path).iterdir() if each.suffix.lower() in IMAGES and each.is_file()),
        key=lambda each: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", each.name)],
    )
    if not images:
        raise OptionError(f"{path}: there are no images in this folder; give one with frames, as PNG or JPEG")
    height, width = load_picture(images[0], exif_rotate, notice).shape[:2]
    return FrameSource(path, width, height, rate, 1 / rate, len(images), False, tuple(images), exif_rotate)


def _read_folder(source: FrameSource) -> Iterator[tuple[Fraction, Picture, str]]:
    for index, path in enumerate(source.images):
        try:
            picture = load_picture(path, source.exif_rotate)
        except (FormatError, OptionError) as error:
            raise Broken(str(error)) from error
        if picture.shape[:2] != (source.height, source.width):
            raise Broken(
                f"{path}: it is {picture.shape[1]}x{picture.shape[0]} pixels, the first image"
                f" {source.width}x{source.height}; give all frames one size"
            )
        yield index / source.rate, picture, path.name


def load_picture(path: str | Path, exif_rotate: bool, notice: Notice | None = None) -> Picture:
    """The picture in an image file, its numbers rounded to bytes."""
    pixels = torch_image.load(path, exif_rotate=exif_rotate, notice=notice)
    return np.ascontiguousarray((pixels * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _read_video(source: FrameSource) -> Iterator[tuple[Fraction, Picture, str]]:
    av = packages.load("av")
    time: Fraction | None = None
    count = 0
    with av.open(source.path) as container:
        stream = container.streams.video[0]
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except av.error.FFmpegError as error:
                where = "at the beginning" if time is None else f"after {float(time):.2f} s"
                raise Broken(f"{source.path}: cannot be decoded {where} ({error})") from error
            if frame is None:
                break
            count += 1
            stamp = None if frame.pts is None else frame.pts * frame.time_base
            if stamp is None or (time is not None and stamp <= time):
                stamp = Fraction(0) if time is None else time + 1 / source.rate
            time = stamp
            yield stamp, _upright(frame), ""
        # Decoders pass over what they cannot read without a word.
        if count < stream.frames - _SLACK:
            last = 0.0 if time is None else float(time)
            raise Broken(
                f"{source.path}: only {count} of {stream.frames} frames can be decoded, the last at {last:.2f} s"
            )


def _upright(frame: Any) -> Picture:
    picture: Picture = frame.to_ndarray(format="rgb24")
    # The flag says how far the picture is to be turned against the clock to stand upright.
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


def _estimate(container: Any, stream: Any) -> int | None:
    if container.duration is None or not stream.average_rate:
        return None
    frames = container.duration / 1_000_000 * stream.average_rate
    return max(round(float(frames)), 1)
