"""How far each pixel of a frame is held to an earlier one: reading and combining certainty masks.

Ports manuelruder/artistic-videos 40e7447: the reading of flowWeights, and processFlowWeights. Masks are (1, H, W) or
(3, H, W), float32, in [0,1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from legacy_style.torch7 import image as torch_image

Weights = NDArray[np.float32]

Method = Literal["closestFirst", "normalize", "none"]


def read(path: str, *, invert: bool = False) -> Weights:
    """A mask file as weights (3, H, W), with `invert` 1 - weights; raises what `torch7.image.load` raises."""
    weights = torch_image.load(path).astype(np.float32)
    return 1 - weights if invert else weights


def combine(weights: Sequence[Weights], method: Method) -> list[Weights]:
    """The weights of several earlier frames, nearest first, so that none counts twice.

    "closestFirst": a pixel is held to the nearest frame that knows it, to the others by what is left. "normalize":
    where the weights' sum is more than 1, all are divided by it. "none" leaves them as they are.
    """
    if method == "closestFirst":
        combined: list[Weights] = []
        for own in weights:
            left = own
            for nearer in reversed(combined):
                left = left - nearer
            combined.append(np.maximum(left, 0) if combined else own)
        return combined
    if method == "normalize":
        total = weights[0].copy()
        for other in weights[1:]:
            total = total + other
        total = np.maximum(total, 1)
        return [each / total for each in weights]
    return list(weights)
