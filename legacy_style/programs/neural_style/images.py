"""The images of neural_style.lua, loaded and scaled in its order, as the network sees them.

Ports neural_style.lua 07c4b82, main() (images). Note: -init_image is loaded even where -init random ignores it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine.processes.group import Ranks
from legacy_style.programs import examples
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import Settings
from legacy_style.torch7 import image as torch_image

Array = NDArray[np.float64]
Log = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


@dataclass
class Images:
    """The loaded images. `content`, `styles`, `init`: in Caffe units, (1, 3, H, W) float32; `colors`: the scaled
    content in RGB, kept where -original_colors needs it.
    """

    content: Tensor
    styles: list[Tensor]
    init: Tensor | None
    colors: Array | None


def check(settings: Settings) -> None:
    """Raise, as `load_images` would, where an image cannot be read; none is decoded."""
    instead = "-content_image {china} -style_image {ink_wash}"
    for option, path, default in (
        ("-content_image", settings.content_image, Options.content_image),
        *(("-style_image", path, Options.style_image) for path in settings.style_images),
        *([("-init_image", settings.init_image, "")] if settings.init_image else []),
    ):
        examples.check(option, path, default, instead)


def load_images(settings: Settings, notice: Log = _ignore) -> Images:
    """Load and scale the content image, the style images and the init image, in the original's order."""

    def load(path: str) -> Array:
        return torch_image.load(
            path, max_pixels=settings.max_pixels, exif_rotate=settings.exif_rotate, notice=notice
        )

    content = torch_image.scale(load(settings.content_image), settings.image_size)
    styles = [
        _caffe_units(torch_image.scale(load(path), settings.style_size)) for path in settings.style_images
    ]
    init = None
    if settings.init_image != "":
        loaded = load(settings.init_image)
        if settings.init == "image":
            init = _caffe_units(torch_image.scale_to(loaded, content.shape[2], content.shape[1]))
    return Images(_caffe_units(content), styles, init, content if settings.original_colors else None)


def share_images(settings: Settings, ranks: Ranks, notice: Log = _ignore) -> Images:
    """The images in the first process; in the others tensors that have but their sizes (device "meta")."""
    images = load_images(settings, notice) if ranks.rank == 0 else None
    known = [] if images is None else [images.content, *images.styles, images.init]
    sizes = ranks.broadcast([n for image in known if image is not None for n in image.shape[2:]])
    if images is not None:
        return images
    content, *more = (
        torch.empty((1, 3, int(height), int(width)), device="meta")
        for height, width in zip(sizes[::2], sizes[1::2], strict=True)
    )
    count = len(settings.style_images)
    return Images(content, more[:count], more[count] if len(more) > count else None, None)


def _caffe_units(rgb: Array) -> Tensor:
    return torch.from_numpy(pixels.preprocess(rgb).astype(np.float32)).unsqueeze(0)
