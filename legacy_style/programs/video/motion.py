"""How a frame moved: optical flow between two frames, where it can be trusted, and whether there is a cut between
them.

The flow is OpenCV's DIS (Kroeger, Timofte, Dai and Van Gool 2016), or that of any program that writes .flo files.
The masks are those of the original's consistencyChecker. Note: DIS cuts the image into as many stripes as there are
threads, and its result depends on them, so OpenCV is set to one thread.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legacy_style.errors import OptionError
from legacy_style.programs.artistic_video import consistency, flo
from legacy_style.programs.artistic_video.flo import Flow
from legacy_style.programs.video import packages
from legacy_style.programs.video.source import Picture

FlowBetween = Callable[[Picture, Picture], Flow]
"""The flow from the first frame to the second, (2, H, W)."""

_LEAST_SIDE = 64
"""DIS needs a pyramid of some height; smaller frames are continued beyond their border."""


@dataclass(frozen=True)
class Motion:
    """From a frame back to the one before: the flow, (2, H, W), its certainty, (H, W), 0..255, and whether a cut is
    between them, so that neither means anything.
    """

    flow: Flow
    mask: consistency.Mask
    is_cut: bool


class Dis:
    """DIS optical flow at the frames' full resolution."""

    def __init__(self) -> None:
        self._cv2 = packages.load("cv2")
        self._cv2.setNumThreads(1)
        self._dis = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0)

    def __call__(self, first: Picture, second: Picture) -> Flow:
        height, width = first.shape[:2]
        grays = [self._gray(picture) for picture in (first, second)]
        flow = self._dis.calc(*grays, None)[:height, :width]
        return np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32)

    def _gray(self, picture: Picture) -> NDArray[np.uint8]:
        gray: NDArray[np.uint8] = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY)
        below, beside = (max(_LEAST_SIDE - side, 0) for side in gray.shape)
        return np.pad(gray, ((0, below), (0, beside)), mode="edge") if below or beside else gray


class Command:
    """Any program that is given two images and a name, and writes the flow from the first to the second there.

    `words` is a command line in which {first}, {second} and {flow} stand for the three; without them they are
    appended, as the original called its run-deepflow.sh.
    """

    def __init__(self, words: str) -> None:
        try:
            self._words = shlex.split(words)
        except ValueError as error:
            raise OptionError(f"--flow-command {words!r}: {error}; close every quote") from error
        if not self._words:
            raise OptionError("--flow-command is empty; give for example 'bash run-deepflow.sh'")
        if not any(place in words for place in ("{first}", "{second}", "{flow}")):
            self._words += ["{first}", "{second}", "{flow}"]

    def __call__(self, first: Picture, second: Picture) -> Flow:
        with tempfile.TemporaryDirectory() as folder:
            names = {key: str(Path(folder) / name) for key, name in _FILES.items()}
            Image.fromarray(first).save(names["first"])
            Image.fromarray(second).save(names["second"])
            self.run(names["first"], names["second"], names["flow"])
            flow = flo.read(names["flow"])
        if flow.shape[1:] != first.shape[:2]:
            raise OptionError(
                f"--flow-command gave a flow of {flow.shape[2]}x{flow.shape[1]} pixels for frames of"
                f" {first.shape[1]}x{first.shape[0]}; it must keep their size"
            )
        return flow

    def run(self, first: str, second: str, flow: str) -> None:
        """Have the flow between two files written; raises OptionError where it is not there afterwards."""
        words = [
            word.replace("{first}", first).replace("{second}", second).replace("{flow}", flow)
            for word in self._words
        ]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise OptionError(
                f"--flow-command: {words[0]} cannot be started ({error.strerror}); give its full path"
            ) from error
        if done.returncode != 0 or not Path(flow).is_file():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise OptionError(
                f"--flow-command: {shlex.join(words)} ended with status {done.returncode}"
                f"{' and wrote no flow' if not Path(flow).is_file() else ''}{': ' + said[-1] if said else ''}"
            )


_FILES = {"first": "first.png", "second": "second.png", "flow": "flow.flo"}


def estimator(command: str | None) -> FlowBetween:
    """DIS, or the program of --flow-command."""
    return Dis() if command is None else Command(command)


def motion(flow: FlowBetween, before: Picture, now: Picture) -> Motion:
    """How `now` came from the frame before."""
    back, forth = flow(now, before), flow(before, now)
    mask = consistency.certainty(back, forth)
    return Motion(back, mask, is_cut(before, now, mask))


_CUT_RELIABLE, _CUT_COLORS = 0.35, 0.4


def is_cut(before: Picture, now: Picture, mask: consistency.Mask) -> bool:
    """Whether two frames are of different shots: hardly any flow can be trusted, and the colours are others.

    Either alone is not enough: quick motion has no reliable flow, and a light that goes on changes all colours.
    """
    return mask.mean() / 255 < _CUT_RELIABLE and color_distance(before, now) > _CUT_COLORS


def color_distance(one: Picture, other: Picture) -> float:
    """How much of the pixels' colours, in 4x4x4 bins, would have to change, 0..1."""
    return 0.5 * float(np.abs(_histogram(one) - _histogram(other)).sum())


def _histogram(picture: Picture) -> NDArray[np.float64]:
    bins = (picture.reshape(-1, 3) // 64).astype(np.int64)
    counts = np.bincount(bins @ np.array([16, 4, 1]), minlength=64)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
