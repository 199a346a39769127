"""A trained network that paints photographs: the ones in the box, and those that train.lua wrote.

    painter = load("ink")                     # or a checkpoint's path, checkpoint.t7
    picture = painter.paint(photograph)       # RGB in [0,1], (3, H, W)

A painter's file is a PyTorch archive of plain values and tensors: the options that describe the network, and its
weights in half precision. Large photographs are painted in strips, with the result of the whole (`strips`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from legacy_style import files
from legacy_style.errors import FormatError, LegacyStyleError, OptionError
from legacy_style.formats import t7
from legacy_style.formats.model_files import bundled
from legacy_style.programs.fast_neural_style import network, preprocess, shapes, strips
from legacy_style.programs.fast_neural_style.architecture import build
from legacy_style.programs.fast_neural_style.forward import Forward
from legacy_style.programs.fast_neural_style.values import Architecture
from legacy_style.torch7 import image

Array = NDArray[np.floating[Any]]

STYLES = {"ink": "ink_wash_painter.pth"}
"""The painters in the box, by the name of their style."""

FORMAT = "legacy-style painter 1"

WHOLE_PIXELS = 2**22
"""Larger pictures are painted in strips, for memory."""

STRIP_ROWS = 256

MARGIN = 32
"""So far a photograph is continued by its mirror image, because networks paint a seam along the edges of an image."""


CPU = torch.device("cpu")


class Painter:
    """A network, and what is done to images before and after it; strips are computed on the CPU in any case."""

    def __init__(
        self, model: torch.nn.Module, preprocessing: preprocess.Preprocessing, device: torch.device = CPU
    ) -> None:
        self.model, self.preprocessing = model.eval(), preprocessing
        self._forward = Forward(self.model, device)

    def paint(self, photograph: Array, rows: int = 0) -> NDArray[np.float32]:
        """A picture of the size of a photograph, both RGB in [0,1], (3, H, W).

        `rows`: paint that many rows at a time; 0: all at once, unless the photograph is large. The result is not
        clamped. Raises UnsupportedError for a photograph that is too small for the network, and where that
        makes no image.
        """
        _, height, width = photograph.shape
        shapes.picture_size(self.model, height, width)  # raises where it is too small
        x = torch.from_numpy(self.preprocessing.preprocess(photograph).astype(np.float32))[None]
        margin = min(MARGIN, (min(height, width) - 1) // 4 * 4)
        x = F.pad(x, (margin,) * 4, "reflect")
        sides = shapes.picture_size(self.model, height + 2 * margin, width + 2 * margin)
        if rows == 0 and height * width > WHOLE_PIXELS:
            rows = STRIP_ROWS
        y = strips.run(self.model, x, rows) if rows else self._forward(x)
        # Strides round a size up at its end; a network without padding gives less than it got, evenly all round.
        top, left = (margin - max(given - got, 0) // 2 for given, got in zip(x.shape[2:], sides, strict=True))
        inside = y[0, :, max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
        picture: NDArray[np.float32] = self.preprocessing.deprocess(np.ascontiguousarray(inside.numpy()))
        return picture


def load(style: str, device: torch.device = CPU) -> Painter:
    """The painter of a style in the box, of a painter's file, or of a .t7 checkpoint that train.lua wrote, on `device`.

    Raises OptionError for a style that is neither, FormatError, UnsupportedError.
    """
    path = bundled().with_name(STYLES[style]) if style in STYLES else Path(style)
    try:
        opened = path.open("rb")
    except OSError as error:
        raise OptionError(
            f"--style {style}: there is no such style and no such file; give {' or '.join(STYLES)}, or a checkpoint"
            " that th train.lua wrote"
        ) from error
    with opened as file:
        if t7.looks_like(file.read(8)):
            checkpoint = network.from_checkpoint(t7.read(path, file), str(path))
            return Painter(checkpoint.network, checkpoint.preprocessing, device)
        file.seek(0)
        return _from_content(_read(path, file), path, device)


def save(path: str, checkpoint: network.TrainedNetwork) -> None:
    """Write the network of a train.lua checkpoint as a painter's file, with weights in half precision."""
    options = checkpoint.options
    content = {
        "format": FORMAT,
        "arch": str(options["arch"]),
        "padding_type": str(options["padding_type"]),
        "use_instance_norm": options["use_instance_norm"] == 1,
        "tanh_constant": float(options["tanh_constant"]),
        "preprocessing": checkpoint.preprocessing.name,
        "weights": {name: each.half() for name, each in checkpoint.network.state_dict().items()},
    }
    with files.replacing(path) as file:
        torch.save(content, file)


def _read(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch's reader raises for a file that is not one of its own
        raise FormatError(
            f"{path}: neither a painter's file nor a .t7 checkpoint; give one that `legacy-style paint` takes"
        ) from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise FormatError(f"{path}: not a painter's file of this version, {FORMAT!r}")
    return dict(content)


def _from_content(content: Mapping[str, Any], path: Path, device: torch.device) -> Painter:
    try:
        architecture = Architecture(
            content["arch"],
            content["padding_type"],
            content["use_instance_norm"],
            content["tanh_constant"],
            tv_strength=0,
        )
        model = build(architecture)
        model.load_state_dict({name: each.float() for name, each in content["weights"].items()})
        preprocessing = preprocess.by_name(content["preprocessing"])
    except (KeyError, TypeError, AttributeError, RuntimeError, LegacyStyleError) as error:
        raise FormatError(f"{path}: a painter's file whose content makes no sense ({error})") from error
    return Painter(model, preprocessing, device)


def load_photograph(path: str, size: float) -> NDArray[np.float64]:
    """A photograph the right way up, RGB in [0,1], (3, H, W), its longer side scaled down to `size` (0: never).

    Raises OptionError, FormatError, UnsupportedError.
    """
    return image.load_scaled(path, size or math.inf, enlarge=False, exif_rotate=True)
