"""Regions of the picture: which style each takes, how much its content counts, and a mask that keeps the rest.

Maps (see `region_maps`) become guidance maps of the images' size, and these are reduced to the maps of each layer that
has a loss: a layer's guidance is the mean of what its window covers, step by step, as neural_style_seg.lua had it. A
position near an edge so belongs to a region as far as its receptive field lies in it, the middle more than the rim, and
all regions together make up 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from legacy_style.engine.network import Network
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import region_maps
from legacy_style.programs.neural_style.region_losses import RegionContentLoss, RegionStyleLoss
from legacy_style.programs.neural_style.region_maps import Color, RegionMap
from legacy_style.torch7.image import Array
from legacy_style.torch7.nn import Layer
from legacy_style.torch7.windows import Window

Size = tuple[int, int]
"""Height and width."""

_PROPORTIONS = 0.02
"""How much a map's proportions may differ from its image's; scaling rounds."""

_LOWEST, _HIGHEST = 8 / 255, 247 / 255
"""Grays of a mask that are black and white: a JPEG has no others."""


@dataclass(frozen=True)
class Guidance:
    """Guidance maps at the size of the images: of the content, and of each style image, (regions, H, W).

    `weights`: that of the content loss at each pixel, (H, W).
    """

    content: Tensor
    styles: list[Tensor]
    weights: Tensor


def guidance(
    content: RegionMap | None,
    styles: Sequence[RegionMap | Color | None],
    weights: Mapping[Color, float],
    mask: Array | None,
    content_size: Size,
    style_sizes: Sequence[Size],
) -> Guidance:
    """The guidance of a run.

    `styles`: of each style image its map, the colour of the one region that it is for, or None for all regions; none
    at all are as many None. `weights`: of the content in some regions, 1 in the others. `mask`: (H, W), as `load_mask`
    gives it. Raises OptionError where a region of the content has no style, or a map does not suit its image.
    """
    if content is None:
        whole = torch.ones((1, *content_size))
        masks = [torch.ones((1, *size)) for size in style_sizes]
        weighing = torch.ones(content_size)
    else:
        whole = _scaled(content, range(len(content.colors)), content_size, "--content-regions")
        styles = styles or [None] * len(style_sizes)
        masks = [
            _style_masks(style, content.colors, size) for style, size in zip(styles, style_sizes, strict=True)
        ]
        _check_complete(content, masks)
        weighing = (whole * _content_weights(content.colors, weights)[:, None, None]).sum(0)
    guided = whole if mask is None else whole * torch.from_numpy(mask).to(whole)
    return Guidance(guided, masks, weighing)


def _style_masks(style: RegionMap | Color | None, colors: tuple[Color, ...], size: Size) -> Tensor:
    """The guidance maps of a style image for the content's `colors`, (regions, H, W)."""
    if style is None:
        return torch.ones((len(colors), *size))
    if isinstance(style, RegionMap):
        return _scaled(
            style, [region_maps.find(color, style.colors) for color in colors], size, "--style-regions"
        )
    wanted = region_maps.find(style, colors)
    if wanted is None:
        raise OptionError(
            f"--style-regions: no region of the content is {region_maps.describe(style)}; it has {_listed(colors)}"
        )
    masks = torch.zeros((len(colors), *size))
    masks[wanted] = 1.0
    return masks


def _scaled(map: RegionMap, numbers: Sequence[int | None], size: Size, option: str) -> Tensor:
    """The regions with these numbers as areas of 0 to 1 at an image's size, (regions, H, W); None gives zeros."""
    check_proportions(option, map.labels.shape, size)
    areas = [torch.from_numpy(np.float32(map.labels == number)) for number in numbers]  # none equals None
    return F.interpolate(torch.stack(areas)[None], size, mode="area")[0]


def check_proportions(option: str, map: tuple[int, ...], size: Size) -> None:
    """Raise OptionError where a map (height, width) cannot be one of an image that is scaled to `size`."""
    height, width = map
    if abs(height * size[1] / (width * size[0]) - 1) > _PROPORTIONS + 1 / min(*size, height, width):
        raise OptionError(
            f"{option}: a map of {width}x{height} pixels has other proportions than its image, which is scaled to"
            f" {size[1]}x{size[0]}; draw the map over the image itself, and give the maps in the images' order"
        )


def _check_complete(content: RegionMap, styles: Sequence[Tensor]) -> None:
    """Raise OptionError for a region of the content whose colour no style image has."""
    for number, color in enumerate(content.colors):
        if not any(bool(masks[number].any()) for masks in styles):
            share = 100 * float((content.labels == number).mean())
            raise OptionError(
                f"--style-regions: no style image has the colour {region_maps.describe(color)}, which is {share:.1f}%"
                " of --content-regions; paint the part of a style that this region is to take in that colour"
            )


def unused(content: RegionMap, style: RegionMap) -> list[Color]:
    """The colours of a style image's map that the content's has not."""
    return [color for color in style.colors if region_maps.find(color, content.colors) is None]


def _content_weights(colors: tuple[Color, ...], weights: Mapping[Color, float]) -> Tensor:
    """The weight of the content in each region, (regions,)."""
    result = torch.ones(len(colors))
    for color, weight in weights.items():
        number = region_maps.find(color, colors)
        if number is None:
            raise OptionError(
                f"--content-region-weights: no region of --content-regions is {region_maps.describe(color)}; it has"
                f" {_listed(colors)}"
            )
        result[number] = weight
    return result


def _listed(colors: Sequence[Color]) -> str:
    return ", ".join(map(region_maps.describe, colors))


def guide(net: Network, masks: Tensor, weights: Tensor | None = None) -> None:
    """Set the guidance of all losses of `net` for the image to come, from maps of its size, (regions, H, W).

    `weights` (H, W) are those of the content losses, which stay where they are None. Raises OptionError where a loss
    stands behind a layer that knows no places.
    """
    count = len(masks)
    maps = (masks if weights is None else torch.cat([masks, weights[None]])).double()
    for step in net.steps:
        if isinstance(step, RegionStyleLoss):
            step.guide(maps[:count].float())
        elif isinstance(step, RegionContentLoss) and weights is not None:
            step.guide(maps[count].float())
        elif isinstance(step, Layer):
            if step.windows is None:
                raise OptionError(
                    f"regions and masks need layers that are maps, and {step.name} takes the whole image at once;"
                    f" choose layers before {step.name}"
                )
            for axis, window in enumerate(step.windows):
                maps = _means(maps, window, axis + 1)


def _means(maps: Tensor, window: Window, axis: int) -> Tensor:
    """The means over what a window covers of the image along one axis, padding left out."""
    if window == Window():
        return maps
    n = maps.shape[axis]
    low = torch.arange(window.size(n)) * window.stride - window.pad
    high = (low + window.extent).clamp(1, n)
    low = torch.minimum(low.clamp(min=0), high - 1)
    sums = F.pad(maps.movedim(axis, -1).cumsum(-1), (1, 0))
    return ((sums[..., high] - sums[..., low]) / (high - low)).movedim(-1, axis)


def feathered(gray: Array, feather: float) -> Array:
    """A mask (H, W) of 0 to 1 from a gray picture: 0 where it is black, rising over `feather` pixels inside.

    So what is black stays untouched, and what is white takes its full part of the style `feather` pixels from there.
    """
    mask = np.clip((gray - _LOWEST) / (_HIGHEST - _LOWEST), 0.0, 1.0)
    inside = mask > 0
    if feather <= 0 or inside.all():
        return mask
    depth = ndimage.distance_transform_edt(inside)
    return np.asarray(mask * np.clip(depth / (feather + 1), 0.0, 1.0))


def composed(picture: Array, content: Array, mask: Array) -> Array:
    """`picture` where the mask (H, W) is 1, `content` where it is 0, all (3, H, W)."""
    return np.where(mask > 0, content + mask * (picture - content), content)
