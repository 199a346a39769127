"""Frames by a trained network of fast-neural-style, blended with their warped predecessor so that they flicker less.

The network alone gives every frame a texture of its own. Where the flow can be trusted, most of the frame before is
kept; the rest is the network's, so that what is warped again and again does not blur.
"""

from __future__ import annotations

import numpy as np
import torch

from legacy_style.engine import machine
from legacy_style.errors import OptionError
from legacy_style.formats import t7
from legacy_style.programs.artistic_video.warp import Array, warp
from legacy_style.programs.fast_neural_style import network
from legacy_style.programs.fast_neural_style.forward import Forward
from legacy_style.programs.video.motion import Motion
from legacy_style.torch7 import image as torch_image

KEPT = 0.8
"""The share of the warped predecessor where the flow is certain."""


class Fast:
    """Makes one frame after the other with the network in a .t7 checkpoint."""

    def __init__(self, path: str) -> None:
        try:
            checkpoint = network.from_checkpoint(t7.read(path), path)
        except OSError as error:
            raise OptionError(f"{path}: {error.strerror}; give --fast a trained model, a .t7 file") from error
        machine.set_up_cpu()
        self._preprocessing = checkpoint.preprocessing
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self._forward = Forward(checkpoint.network, device)

    def __call__(self, content: Array, before: Array | None, moved: Motion | None) -> Array:
        """The frame, RGB (3, H, W) in [0,1]; see `run.Maker`."""
        x = np.ascontiguousarray(self._preprocessing.preprocess(content), np.float32)
        y = self._preprocessing.deprocess(self._forward(torch.from_numpy(x)[None])[0].numpy())
        painted = np.clip(y.astype(np.float64), 0, 1)
        if painted.shape != content.shape:  # strides round the size
            painted = torch_image.scale_to(painted, content.shape[2], content.shape[1])
        if before is None or moved is None:
            return painted
        kept = KEPT * (moved.mask / 255)
        blended: Array = kept * warp(before, moved.flow, "border") + (1 - kept) * painted
        return blended
