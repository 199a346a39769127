"""Finished frames as a video, a GIF or a folder of images; sound comes along from the source.

A file appears whole or not at all. Frames are read one at a time, so a long video needs no more memory than a short
one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from legacy_style.errors import OptionError
from legacy_style.files import reason, replacing
from legacy_style.programs.video import packages
from legacy_style.programs.video.source import Frame, FrameSource, Picture
from legacy_style.torch7 import image as torch_image

Notice = Callable[[str], None]

_CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".m4v": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mpeg4",
}

# FFmpeg's names for the kinds of file: the writer gets an open file, and no name to tell them from.
_FORMATS = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".m4v": "ipod",
    ".webm": "webm",
    ".avi": "avi",
}

_QUALITY = {
    "libx264": {"crf": "18", "preset": "medium"},
    "libvpx-vp9": {"crf": "24", "b": "0"},
    "mpeg4": {"q": "3"},
}

_SOUND = {".webm": "libopus"}  # AAC elsewhere


def is_folder(path: str) -> bool:
    """Whether frames go to `path` as images: it ends with a slash, or is a folder."""
    return path.endswith(("/", os.sep)) or Path(path).is_dir()


def check(path: str) -> None:
    """Raise OptionError where `write` could not write `path`."""
    suffix = Path(path).suffix.lower()
    if not is_folder(path) and suffix != ".gif" and suffix not in _CODECS:
        raise OptionError(
            f"{path}: no kind of video ends in {suffix or 'nothing'}; end it in one of"
            f" {' '.join(['.gif', *_CODECS])}, or in / for a folder of images"
        )
    target = Path(os.path.realpath(path))
    parent = target.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OptionError(f"{path}: the folder {parent} is missing or not writable; choose another")


def write(
    path: str, frames: Iterable[Frame], source: FrameSource, *, notice: Notice, until: Fraction | None
) -> None:
    """Write all frames, which have one size, to `path`, with the sound of `source` up to the time `until`.

    Raises OptionError where that fails.
    """
    if is_folder(path):
        _write_folder(path, frames)
        return
    av = packages.load("av")
    suffix = Path(path).suffix.lower()
    try:
        with replacing(path) as file:
            if suffix == ".gif":
                _write_gif(file, frames, source)
            else:
                _write_video(file, suffix, frames, source, notice=notice, until=until)
    except (av.error.FFmpegError, OSError) as error:
        raise OptionError(
            f"{path}: the video could not be written: {reason(error, 'choose another name or kind')}"
        ) from error


def _write_folder(path: str, frames: Iterable[Frame]) -> None:
    Path(path).mkdir(exist_ok=True)
    for frame in frames:
        name = f"{Path(frame.name).stem}.png" if frame.name else f"frame_{frame.number:04d}.png"
        save_picture(Path(path) / name, frame.picture)


def save_picture(path: str | Path, picture: Picture) -> None:
    """Write one picture as it is; raises OptionError where that cannot be done."""
    torch_image.save(path, (picture.transpose(2, 0, 1) + 0.5) / 255)  # image.save truncates


def _write_gif(file: BinaryIO, frames: Iterable[Frame], source: FrameSource) -> None:
    """One palette for all frames, taken from the first one: colours that changed with it would flicker."""
    av = packages.load("av")
    with av.open(file, "w", format="gif") as container:
        stream = container.add_stream("gif", rate=source.rate)
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = Fraction(1, 100)
        palette: Image.Image | None = None
        last = -1
        for frame in frames:
            image = Image.fromarray(frame.picture)
            if palette is None:
                palette = image.quantize(255, dither=Image.Dither.NONE)
                colors = np.zeros((256, 4), np.uint8)
                own = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
                colors[: len(own), :3], colors[:, 3] = own, 255
                stream.height, stream.width = frame.picture.shape[:2]
            indexed = np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
            ready = av.VideoFrame.from_ndarray((indexed, colors), format="pal8")
            last = max(round(frame.time * 100), last + 1)
            ready.pts, ready.time_base = last, Fraction(1, 100)
            container.mux(stream.encode(ready))
        container.mux(stream.encode())


def _write_video(
    file: BinaryIO,
    suffix: str,
    frames: Iterable[Frame],
    source: FrameSource,
    *,
    notice: Notice,
    until: Fraction | None,
) -> None:
    av = packages.load("av")
    codec = _CODECS[suffix]
    with av.open(file, "w", format=_FORMATS[suffix]) as container:
        stream = container.add_stream(codec, rate=source.rate, options=_QUALITY[codec])
        stream.pix_fmt = "yuv420p"
        time_base = _time_base(codec, source)
        stream.codec_context.time_base = time_base
        sound = Sound(container, source, suffix, notice, until) if source.has_sound else None
        started, last = False, None
        for frame in frames:
            if not started:
                stream.height, stream.width = frame.picture.shape[:2]
                started = True
            ready = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
            stamp = round(frame.time / time_base)
            last = stamp if last is None else max(stamp, last + 1)
            ready.pts, ready.time_base = last, time_base
            container.mux(stream.encode(ready))
            if sound is not None:
                sound.write(frame.time)
        container.mux(stream.encode())
        if sound is not None:
            sound.write(None)


def _time_base(codec: str, source: FrameSource) -> Fraction:
    """The source's clock, so that times stay exact; MPEG-4 stores at most 16 bits of it."""
    if codec == "mpeg4" and source.time_base.denominator > 65535:
        return 1 / source.rate if source.rate.numerator <= 65535 else Fraction(1, 25)
    return source.time_base


class Sound:
    """The sound of a source on its way into another file: copied, or encoded anew where the file cannot hold it."""

    def __init__(
        self, container: Any, source: FrameSource, suffix: str, notice: Notice, until: Fraction | None
    ) -> None:
        av = packages.load("av")
        self._container, self._until = container, until
        self._input = av.open(source.path)
        self._stream = self._input.streams.audio[0]
        name = self._stream.codec_context.name
        self._copies = name in ("aac", "mp3") if suffix in (".mp4", ".mov", ".m4v") else suffix == ".mkv"
        self._copies = self._copies or (suffix == ".webm" and name in ("opus", "vorbis"))
        if self._copies:
            self._output = container.add_stream_from_template(self._stream)
        else:
            self._output = container.add_stream(
                _SOUND.get(suffix, "aac"), rate=48000 if suffix == ".webm" else self._stream.rate
            )
            notice(f"the sound ({name}) is encoded anew, for a {suffix} cannot hold it as it is")
        self._packets = self._read()
        self._waiting: tuple[Fraction, Any] | None = None

    def write(self, time: Fraction | None) -> None:
        """Write what is heard up to `time`; all that is left, and close, for None."""
        while (item := self._waiting or next(self._packets, None)) is not None:
            self._waiting = item
            if time is not None and item[0] > time:
                return
            self._container.mux(item[1])
            self._waiting = None
        if time is None:
            self._input.close()

    def _read(self) -> Iterator[tuple[Fraction, Any]]:
        """Packets for the output with their times, up to the end or to `until`."""
        av = packages.load("av")
        try:
            if self._copies:
                for packet in self._input.demux(self._stream):
                    if packet.dts is None:
                        continue
                    time = packet.dts * packet.time_base
                    if self._until is not None and time >= self._until:
                        return
                    packet.stream = self._output
                    yield time, packet
                return
            for frame in self._input.decode(self._stream):
                time = Fraction(0) if frame.pts is None else frame.pts * frame.time_base
                if self._until is not None and time >= self._until:
                    break
                for packet in self._output.encode(frame):
                    yield time, packet
            for packet in self._output.encode(None):
                yield Fraction(0), packet
        except av.error.FFmpegError:
            return  # a broken end of the sound: the frames are what matters
