"""Frames by a trained network, blended with their warped predecessor so that they flicker less.

The network alone gives every frame a texture of its own. Where the flow can be trusted, most of the frame before is
kept; the rest is the network's, so that what is warped again and again does not blur.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from legacy_style.errors import OptionError
from legacy_style.formats.model_files import bundled
from legacy_style.programs.artistic_video.warp import Array, warp
from legacy_style.programs.fast_neural_style import painter
from legacy_style.programs.video.motion import Motion

KEPT = 0.8
"""The share of the warped predecessor where the flow is certain."""


class Fast:
    """Makes one frame after the other with a painter in the box, or with the network in a .t7 checkpoint."""

    def __init__(self, model: str, device: torch.device) -> None:
        self._painter = painter.load(model, device)

    def __call__(self, content: Array, before: Array | None, moved: Motion | None) -> Array:
        """The frame, RGB (3, H, W) in [0,1]; see `run.Maker`."""
        painted = np.clip(self._painter.paint(content).astype(np.float64), 0, 1)
        if before is None or moved is None:
            return painted
        kept = KEPT * (moved.mask / 255)
        blended: Array = kept * warp(before, moved.flow, "border") + (1 - kept) * painted
        return blended


def find(model: str) -> Path:
    """The file of a painter in the box or of a checkpoint; raises OptionError where there is none."""
    path = bundled().with_name(painter.STYLES[model]) if model in painter.STYLES else Path(model)
    if not path.is_file():
        raise OptionError(
            f"--fast {model}: no such style in the box and no such file; give {' or '.join(painter.STYLES)}, or a"
            " checkpoint (.t7) of fast-neural-style"
        )
    return path
