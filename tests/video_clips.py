"""Small synthetic clips with known motion, and a thin network, for the tests of videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from recordings import SHIPPED

MODEL = str(SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel")
"""VGG-19's layers with 8 to 24 channels of random weights."""


def texture(size: int = 256, seed: int = 0) -> np.ndarray:
    """A smooth pattern in three colours, (size, size, 3), 0..255, that optical flow can follow."""
    random = np.random.RandomState(seed)
    total = np.zeros((size, size, 3))
    for scale in (8, 16, 32, 64):
        small = random.rand(scale, scale, 3).astype(np.float32)
        layers = [
            np.asarray(Image.fromarray(small[..., c]).resize((size, size), Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        total += np.stack(layers, 2) * 8 / scale**0.5
    total -= total.min()
    return 255 * total / total.max()


def frame(
    number: int, width: int = 64, height: int = 48, seed: int = 0, step: tuple[int, int] = (1, 2)
) -> np.ndarray:
    """Frame `number` of a camera that moves over the texture, `step` pixels down and to the right each time."""
    top, left = 10 + step[0] * number, 10 + step[1] * number
    return texture(seed=seed)[top : top + height, left : left + width].astype(np.uint8)


def write(
    path: Path,
    frames: list[np.ndarray],
    *,
    rate: int = 25,
    times: list[int] | None = None,
    sound: bool = False,
    codec: str = "libx264",
) -> Path:
    """A video file; `times` are those of the frames in hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "10"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        even = stream.height % 2 == 0 and stream.width % 2 == 0
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        tone = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number, picture in enumerate(frames):
            ready = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                ready.pts, ready.time_base = times[number], Fraction(1, 100)
            container.mux(stream.encode(ready))
        container.mux(stream.encode())
        if tone is not None:
            for block in range(len(frames) * 16000 // rate // 1024):
                phase = np.arange(block * 1024, block * 1024 + 1024) * 2 * np.pi * 440 / 16000
                samples = av.AudioFrame.from_ndarray(
                    np.sin(phase).astype(np.float32)[None], format="fltp", layout="mono"
                )
                samples.sample_rate, samples.pts = 16000, block * 1024
                container.mux(tone.encode(samples))
            container.mux(tone.encode())
    return path


def read(path: Path | str) -> tuple[list[np.ndarray], list[float]]:
    """All frames of a video as RGB, and their times in seconds."""
    with av.open(str(path)) as container:
        frames = [(each.to_ndarray(format="rgb24"), float(each.time)) for each in container.decode(video=0)]
    return [each for each, _ in frames], [time for _, time in frames]
