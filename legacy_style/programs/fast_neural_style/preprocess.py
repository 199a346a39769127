"""Images to what a network takes, and back.

Ports jcjohnson/fast-neural-style 813c834, preprocess.lua. Notes: colours are multiplied by 255 here, by 256 in
neural_style.lua. An image is read and scaled in double and preprocessed in double, and what a network gives is
deprocessed in float32, so both functions work in the type that they are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import UnsupportedError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Preprocessing:
    """The numbers that a network takes: (channels - mean) / deviation; mean and deviation are those of its channels.

    `white` is what 1 becomes before, and `bgr` says whether blue comes first.
    """

    name: str
    bgr: bool
    white: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float] | None = None

    def preprocess(self, image: Array) -> Array:
        """RGB in [0,1], (..., 3, H, W), as the network takes it, of the same type."""
        result: Array = self._order(image).copy()
        if self.white != 1:
            result *= image.dtype.type(self.white)
        result -= self._planes(self.mean, image)
        if self.deviation is not None:
            result /= self._planes(self.deviation, image)
        return result

    def deprocess(self, image: Array) -> Array:
        """What a network gives, (..., 3, H, W), as RGB, not clamped, of the same type."""
        result = image.copy() if self.deviation is None else image * self._planes(self.deviation, image)
        result += self._planes(self.mean, image)
        if self.white != 1:
            result /= image.dtype.type(self.white)
        return self._order(result)

    def _order(self, image: Array) -> Array:
        ordered: Array = image[..., ::-1, :, :] if self.bgr else image
        return ordered

    def _planes(self, numbers: tuple[float, float, float], like: Array) -> Array:
        planes: Array = np.array(numbers, like.dtype)[:, None, None]
        return planes


VGG = Preprocessing("vgg", True, 255, (103.939, 116.779, 123.68))
RESNET = Preprocessing("resnet", False, 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

DEFAULT = "vgg"
"""What a checkpoint means that names none."""


def by_name(name: str) -> Preprocessing:
    """The preprocessing that a checkpoint or `-preprocessing` names; raises UnsupportedError."""
    for each in (VGG, RESNET):
        if each.name == name:
            return each
    raise UnsupportedError(f'invalid -preprocessing "{name}"; must be "vgg" or "resnet"')
