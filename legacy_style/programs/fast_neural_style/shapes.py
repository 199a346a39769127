"""The shapes of feature maps in a network, found out without computing, so that what does not fit is refused."""

from __future__ import annotations

import math

import torch
from torch import nn

from legacy_style.errors import UnsupportedError
from legacy_style.programs.fast_neural_style import layers

_MOST = 2**34  # numbers in a map, 64 GiB: no image needs as many, but a padding that is damaged does

Shape = tuple[int, int, int]
"""(C, H, W)"""


def output_shape(module: nn.Module, shape: Shape) -> Shape:
    """The shape of what a network gives for feature maps of `shape`.

    Raises UnsupportedError where they are too small for it, or have another number of channels than it takes.
    """
    shapes = _walk(module, [shape], "")
    if len(shapes) > 1:
        raise UnsupportedError(f"the network gives {len(shapes)} outputs, not one")
    return shapes[0]


def picture_size(module: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Height and width of what a network makes of an image of that size.

    Raises UnsupportedError where the image is too small for it, or where it makes no image in three colours.
    """
    channels, *sides = output_shape(module, (3, height, width))
    if channels != 3:
        raise UnsupportedError(
            f"the network gives {channels} channels, not an image in three colours; give a checkpoint that th train.lua"
            " wrote"
        )
    return sides[0], sides[1]


def upsampling(module: nn.Upsample) -> int:
    """How many times as large nearest upsampling makes a map along each axis."""
    scale = module.scale_factor
    assert isinstance(scale, int | float)
    return int(scale)


def _walk(module: nn.Module, shapes: list[Shape], place: str) -> list[Shape]:
    """The shapes of the outputs of a module for the shapes of its inputs; `place` is Torch7's path to it."""
    if isinstance(module, nn.Sequential):
        for number, each in enumerate(module, 1):
            shapes = _walk(each, shapes, f"{place}-{number}".lstrip("-"))
        return shapes
    if isinstance(module, layers.ConcatTable):
        branches = [
            _walk(each, shapes, f"{place}-{number}".lstrip("-")) for number, each in enumerate(module, 1)
        ]
        return [shape for branch in branches for shape in branch]
    c, h, w = shapes[0]
    what = f"module {place}, {type(module).__name__}"
    expected = _channels(module, c)
    misplaced = (len(shapes) > 1) != isinstance(module, layers.CAddTable)
    if expected != c or misplaced or any(shape != shapes[0] for shape in shapes[1:]):
        found = " and ".join("x".join(map(str, each)) for each in shapes)
        raise UnsupportedError(
            f"the network does not fit together: {what}, takes {expected} channels of one size, and gets {found}"
        )
    result = _shape(module, c, h, w)
    if min(result[1:]) < 1 or not _can_reflect(module, h, w):
        reach = f"(it reflects {max(module.padding)})" if isinstance(module, nn.ReflectionPad2d) else ""
        raise UnsupportedError(
            f"the image is too small for this network: {w}x{h} pixels are left of it before {what} {reach}".rstrip()
            + "; choose a larger size"
        )
    if math.prod(result) > _MOST:
        raise UnsupportedError(
            f"the network makes {result[2]}x{result[1]} pixels of the image's {w}x{h} in {what}: its file is damaged"
        )
    return [result]


def _channels(module: nn.Module, otherwise: int) -> int:
    """How many channels a module takes."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.in_channels
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features
    return module.channels if isinstance(module, layers.InstanceNormalization) else otherwise


def _can_reflect(module: nn.Module, h: int, w: int) -> bool:
    """Whether maps are large enough for a reflection: Torch7 did not look, and read memory beyond them."""
    if not isinstance(module, nn.ReflectionPad2d):
        return True
    left, right, top, bottom = module.padding
    return max(left, right) < w and max(top, bottom) < h


def _shape(module: nn.Module, c: int, h: int, w: int) -> Shape:
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        windows = zip(module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
        rows, columns = (
            (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for n, (kernel, stride, pad, dilation) in zip((h, w), windows, strict=True)
        )
        return module.out_channels, rows, columns
    if isinstance(module, nn.ConvTranspose2d):
        assert not isinstance(module.padding, str)
        windows = zip(module.kernel_size, module.stride, module.padding, module.output_padding, strict=True)
        rows, columns = (
            (n - 1) * stride - 2 * pad + kernel + more
            for n, (kernel, stride, pad, more) in zip((h, w), windows, strict=True)
        )
        return module.out_channels, rows, columns
    if isinstance(module, nn.ReflectionPad2d | nn.ReplicationPad2d | nn.ZeroPad2d):
        left, right, top, bottom = module.padding
        return c, h + top + bottom, w + left + right
    if isinstance(module, layers.ShaveImage):
        return c, h - 2 * module.size, w - 2 * module.size
    if isinstance(module, nn.Upsample):
        return c, h * upsampling(module), w * upsampling(module)
    if isinstance(module, layers.View):
        return c * h * w, 1, 1
    if isinstance(module, nn.Linear):
        return module.out_features, 1, 1
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        try:
            rows, columns = module(torch.empty(1, 1, h, w, device="meta")).shape[2:]
        except RuntimeError:  # torch's word for a map that is smaller than the window
            return c, 0, 0
        return c, rows, columns
    return c, h, w
