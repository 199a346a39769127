"""The images of neural_style.lua, loaded and scaled in its order, as the network sees them.

Ports neural_style.lua 07c4b82, main() (images). Note: -init_image is loaded even where -init random ignores it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import colors
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import OptionError
from legacy_style.programs import examples
from legacy_style.programs.neural_style import pixels, region_maps, regions
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.region_maps import Color, RegionMap
from legacy_style.programs.neural_style.regions import Guidance
from legacy_style.programs.neural_style.settings import Settings
from legacy_style.torch7 import image as torch_image

Array = NDArray[np.float64]
Log = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


@dataclass
class Images:
    """The loaded images. `content`, `styles`, `init`: in Caffe units, (1, 3, H, W) float32; `colors`: the scaled
    content in RGB, kept where the result takes something from it. `mask`: (H, W), 0 where the content stays.
    `guidance`: that of the losses where they look at regions.
    """

    content: Tensor
    styles: list[Tensor]
    init: Tensor | None
    colors: Array | None
    mask: Array | None = None
    guidance: Guidance | None = None


def check(settings: Settings) -> None:
    """Raise, as `load_images` would, where an image cannot be read; none is decoded."""
    instead = "-content_image {china} -style_image {ink_wash}"
    maps = [name for name in settings.style_regions if isinstance(name, str)]
    for option, path, default in (
        ("-content_image", settings.content_image, Options.content_image),
        *(("-style_image", path, Options.style_image) for path in settings.style_images),
        *([("-init_image", settings.init_image, "")] if settings.init_image else []),
        *([("--content-regions", settings.content_regions, "")] if settings.content_regions else []),
        *(("--style-regions", path, "") for path in maps),
        *([("--mask", settings.mask, "")] if settings.mask else []),
    ):
        examples.check(option, path, default, instead)


def load_images(settings: Settings, notice: Log = _ignore, before: Array | None = None) -> Images:
    """Load and scale the content image, the style images and the init image, in the original's order.

    `before`: the result of an earlier stage, RGB (3, H, W), in place of the init image's file.
    """
    load, load_scaled = (
        partial(each, max_pixels=settings.max_pixels, exif_rotate=settings.exif_rotate, notice=notice)
        for each in (torch_image.load, torch_image.load_scaled)
    )
    mode = settings.color_transfer

    def gray(image: Array) -> Array:
        return colors.before(mode, image, [])[0] if mode else image

    if mode:  # it looks at all of the pixels
        picture = load(settings.content_image)
        content = torch_image.scale(picture, settings.image_size)
        styles = [
            torch_image.scale(colors.before(mode, picture, [load(path)])[1][0], settings.style_size)
            for path in settings.style_images
        ]
    else:
        content = load_scaled(settings.content_image, settings.image_size)
        styles = [load_scaled(path, settings.style_size) for path in settings.style_images]
    init = None
    if settings.init_image != "" or before is not None:
        loaded = load(settings.init_image) if before is None else before
        if settings.init == "image":
            init = _caffe_units(gray(torch_image.scale_to(loaded, content.shape[2], content.shape[1])))
    return Images(
        _caffe_units(gray(content)),
        [_caffe_units(style) for style in styles],
        init,
        content if settings.keeps_content else None,
    )


def share_images(
    settings: Settings, ranks: Ranks, notice: Log = _ignore, before: Array | None = None
) -> Images:
    """The images in the first process; in the others tensors that have but their sizes (device "meta")."""
    images = load_images(settings, notice, before) if ranks.rank == 0 else None
    known = [] if images is None else [images.content, *images.styles, images.init]
    sizes = ranks.broadcast([n for image in known if image is not None for n in image.shape[2:]])
    if images is None:
        images = _sizes_alone(sizes, len(settings.style_images))
    if settings.is_guided:
        images.mask, images.guidance = _load_regions(settings, images, notice)
    return images


def _sizes_alone(sizes: Sequence[float], styles: int) -> Images:
    content, *more = (
        torch.empty((1, 3, int(height), int(width)), device="meta")
        for height, width in zip(sizes[::2], sizes[1::2], strict=True)
    )
    return Images(content, more[:styles], more[styles] if len(more) > styles else None, None)


def _load_regions(settings: Settings, images: Images, notice: Log) -> tuple[Array | None, Guidance]:
    """The mask and the guidance maps; each process reads them."""
    load_map = partial(
        region_maps.load, max_pixels=settings.max_pixels, exif_rotate=settings.exif_rotate, notice=notice
    )
    height, width = images.content.shape[2:]
    mask = None
    if settings.mask:
        gray = torch_image.load(
            settings.mask, max_pixels=settings.max_pixels, exif_rotate=settings.exif_rotate, notice=notice
        )
        regions.check_proportions("--mask", (gray.shape[1], gray.shape[2]), (height, width))
        mask = regions.feathered(torch_image.scale_to(gray, width, height).mean(0), settings.feather)
        if not mask.any():
            raise OptionError(
                f"--mask {settings.mask}: all of it is black; paint white what is to take the style"
            )
    content = load_map(settings.content_regions) if settings.content_regions else None
    styles: list[RegionMap | Color | None] = []
    for given in settings.style_regions:
        style = load_map(given) if isinstance(given, str) else given
        if isinstance(style, RegionMap) and content is not None:
            for color in regions.unused(content, style):
                notice(
                    f"{given}: --content-regions has no {region_maps.describe(color)}, so that this part of the style"
                    " image is not used"
                )
        styles.append(style)
    sizes = [(style.shape[2], style.shape[3]) for style in images.styles]
    return mask, regions.guidance(content, styles, settings.region_weights, mask, (height, width), sizes)


def finish(settings: Settings, content: Array | None, mask: Array | None, result: Array) -> Array:
    """A result (3, H, W) as it is saved: with what it takes from the content image, of that size.

    `content` is None where an option asks for nothing from it.
    """
    if content is None:
        return result
    if settings.original_colors:
        result = pixels.original_colors(content, result)
    result = colors.after(settings.color_transfer, content, result)
    return result if mask is None else regions.composed(result, content, mask)


def _caffe_units(rgb: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.preprocess(rgb), np.float32)).unsqueeze(0)
