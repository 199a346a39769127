"""A network applied to an image of any size, a strip of rows at a time, with the result of the whole.

An instance norm needs the mean and deviation of a whole map before its first value can be normalised. So the image
goes through the network in several passes: each norm's statistics are added up over strips of its input, and only
then its output can be had. A map that is small beside the image is kept when its norm has been measured; a larger one
is computed again from the last that was kept. Maps that together are larger than `IN_MEMORY` lie in temporary files.

Rows are pulled: the rows a..b of a module's output ask for the rows of its input that they depend on. Nothing is
approximated: padding happens at the image's own borders alone, and statistics are added up in float64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legacy_style.errors import UnsupportedError
from legacy_style.programs.fast_neural_style import layers, shapes

IN_MEMORY = 2**30
"""Bytes of kept maps beyond which further ones lie in temporary files."""

_KEPT_PER_PIXEL = 32
"""A map is kept if it has at most so many bytes for each pixel of the image; else it is computed again."""

_POINTWISE = (nn.Tanh, nn.Identity, layers.MulConstant, layers.TotalVariation, nn.BatchNorm2d, nn.Sigmoid)


Shape = tuple[int, int, int]
"""(C, H, W)"""

Pair = tuple[int, int]
"""(vertical, horizontal)"""


@torch.no_grad()
def run(model: nn.Module, image: Tensor, rows: int, in_memory: int = IN_MEMORY) -> Tensor:
    """What a network in evaluation mode gives for an image (1, C, H, W), worked on `rows` rows at a time.

    Raises UnsupportedError for modules that cannot be computed so, and for an image too small for the network.
    """
    strips = Strips(rows, image.shape[2], image.shape[3], in_memory)
    result = strips.through(model, KeptRows(image[0]))
    return strips.keep(result, torch.empty(result.shape)).values[None]


class Map(Protocol):
    """Feature maps (C, H, W) whose rows can be asked for."""

    @property
    def shape(self) -> Shape: ...

    def rows(self, first: int, last: int) -> Tensor:
        """Rows first..last-1 of all maps, (1, C, last - first, W)."""


@dataclass(frozen=True)
class KeptRows:
    """A map that is there, (C, H, W)."""

    values: Tensor

    @property
    def shape(self) -> Shape:
        c, h, w = self.values.shape
        return c, h, w

    def rows(self, first: int, last: int) -> Tensor:
        return self.values[None, :, first:last]


@dataclass(frozen=True)
class Computed:
    """A map that is computed when it is asked for."""

    shape: Shape
    compute: Callable[[int, int], Tensor]

    def rows(self, first: int, last: int) -> Tensor:
        return self.compute(first, last)


class Strips:
    """An image of one size on its way through a network; `rows` of it are worked on at a time."""

    def __init__(self, rows: int, height: int, width: int, in_memory: int = IN_MEMORY) -> None:
        self.strip, self.height, self.pixels, self.in_memory = rows, height, height * width, in_memory

    def through(self, module: nn.Module, x: Map) -> Map:
        if isinstance(module, nn.Sequential):
            return self._chain(list(module), x)
        if isinstance(module, layers.InstanceNormalization):
            return self._normalise(module, x)
        if isinstance(module, nn.ReLU):  # perhaps in place, and x may be kept
            return Computed(x.shape, lambda first, last: x.rows(first, last).relu())
        if isinstance(module, _POINTWISE):
            return Computed(x.shape, lambda first, last: module(x.rows(first, last)))
        if isinstance(module, nn.Conv2d):
            return _convolve(module, x)
        if isinstance(module, nn.ConvTranspose2d):
            return _convolve_transposed(module, x)
        if isinstance(module, nn.ReflectionPad2d | nn.ReplicationPad2d):
            return _pad(module, x)
        if isinstance(module, nn.Upsample):
            return _upsample(module, x)
        if isinstance(module, layers.ShaveImage):
            return _shave(module.size, x)
        raise UnsupportedError(f"{type(module).__name__} cannot be computed in strips; paint a smaller image")

    def _chain(self, modules: list[nn.Module], x: Map) -> Map:
        branches: list[Map] = []
        for module in modules:
            if isinstance(module, layers.ConcatTable):
                x = self._keep_if_small(x)
                branches = [self.through(branch, x) for branch in module]
            elif isinstance(module, layers.CAddTable):
                x = self._keep_if_small(_add(branches))
            else:
                x = self.through(module, x)
        return x

    def _normalise(self, norm: layers.InstanceNormalization, x: Map) -> Map:
        mean, variance = self._statistics(x)
        scale = norm.weight.double() / (variance + norm.eps).sqrt()
        shift = norm.bias.double() - mean * scale
        scale, shift = (each.float().view(1, -1, 1, 1) for each in (scale, shift))
        result = Computed(x.shape, lambda first, last: x.rows(first, last).mul(scale).add_(shift))
        return self._keep_if_small(result)

    def _statistics(self, x: Map) -> tuple[Tensor, Tensor]:
        """Mean and variance (biased) of each map, (C,) float64, merged strip by strip."""
        count, mean, squares = 0, torch.zeros(x.shape[0]).double(), torch.zeros(x.shape[0]).double()
        for first, last in self._cut(x):
            values = x.rows(first, last)[0].flatten(1).double()  # (C, n)
            n = values.shape[1]
            own = values.mean(1)
            apart = own - mean
            squares += (values - own[:, None]).square_().sum(1) + apart.square() * (count * n / (count + n))
            mean += apart * (n / (count + n))
            count += n
        return mean, squares / count

    def _keep_if_small(self, x: Map) -> Map:
        c, h, w = x.shape
        return self.keep(x, self._room(x.shape)) if 4 * c * h * w <= _KEPT_PER_PIXEL * self.pixels else x

    def keep(self, x: Map, values: Tensor) -> KeptRows:
        if isinstance(x, KeptRows):
            return x
        for first, last in self._cut(x):
            values[:, first:last] = x.rows(first, last)[0]
        return KeptRows(values)

    def _room(self, shape: Shape) -> Tensor:
        if 4 * int(np.prod(shape)) <= self.in_memory:
            return torch.empty(shape)
        with tempfile.TemporaryFile() as file:  # its memory map outlives it
            return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))

    def _cut(self, x: Map) -> Iterator[tuple[int, int]]:
        """The rows of a map in as many strips as the image has."""
        height = x.shape[1]
        step = max(1, self.strip * height // self.height)
        for first in range(0, height, step):
            yield first, min(first + step, height)


def _add(maps: list[Map]) -> Map:
    def compute(first: int, last: int) -> Tensor:
        total = maps[0].rows(first, last)
        for other in maps[1:]:
            total = total + other.rows(first, last)
        return total

    return Computed(maps[0].shape, compute)


def _convolve(conv: nn.Conv2d, x: Map) -> Map:
    kernel, stride, pad, height, width = _window(conv, x)
    rows, columns = (
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, pad, strict=True)
    )

    def compute(first: int, last: int) -> Tensor:
        low, high = first * stride[0] - pad[0], (last - 1) * stride[0] - pad[0] + kernel[0]
        inner = x.rows(max(low, 0), min(high, height))
        padded = F.pad(inner, (pad[1], pad[1], max(-low, 0), max(high - height, 0)))
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride)

    return Computed((conv.out_channels, rows, columns), compute)


def _convolve_transposed(conv: nn.ConvTranspose2d, x: Map) -> Map:
    kernel, stride, pad, height, width = _window(conv, x)
    rows, columns = (
        (n - 1) * s - 2 * p + k + more
        for n, k, s, p, more in zip((height, width), kernel, stride, pad, conv.output_padding, strict=True)
    )

    def compute(first: int, last: int) -> Tensor:
        # Input row i reaches output rows i * stride - pad .. + kernel - 1.
        low = max(-((kernel[0] - 1 - first - pad[0]) // stride[0]), 0)
        high = min((last - 1 + pad[0]) // stride[0] + 1, height)
        more = (stride[0] - 1, conv.output_padding[1])
        whole = F.conv_transpose2d(x.rows(low, high), conv.weight, conv.bias, conv.stride, (0, pad[1]), more)
        begin = first + pad[0] - low * stride[0]
        return whole[:, :, begin : begin + last - first]

    return Computed((conv.out_channels, rows, columns), compute)


def _window(conv: nn.Conv2d | nn.ConvTranspose2d, x: Map) -> tuple[Pair, Pair, Pair, int, int]:
    """Kernel, stride and padding, (vertical, horizontal), and the height and width of the input."""
    if conv.groups != 1 or tuple(conv.dilation) != (1, 1) or isinstance(conv.padding, str):
        raise UnsupportedError("a convolution with groups or dilation cannot be computed in strips")
    kernel, stride, pad = ((pair[0], pair[1]) for pair in (conv.kernel_size, conv.stride, conv.padding))
    return kernel, stride, pad, x.shape[1], x.shape[2]


def _pad(module: nn.ReflectionPad2d | nn.ReplicationPad2d, x: Map) -> Map:
    left, right, top, bottom = module.padding
    c, height, width = x.shape
    reflect = isinstance(module, nn.ReflectionPad2d)
    if (reflect and max(left, right) >= width) or max(top, bottom) >= height:
        raise UnsupportedError(
            f"an image of {width}x{height} pixels is too small for the padding of this network"
        )

    def compute(first: int, last: int) -> Tensor:
        source = torch.arange(first - top, last - top)
        if reflect:
            source = source.abs()
            source = torch.minimum(source, 2 * (height - 1) - source)
        source = source.clamp(0, height - 1)
        low, high = int(source.min()), int(source.max()) + 1
        rows = x.rows(low, high).index_select(2, source - low)
        return F.pad(rows, (left, right, 0, 0), "reflect" if reflect else "replicate")

    return Computed((c, height + top + bottom, width + left + right), compute)


def _upsample(module: nn.Upsample, x: Map) -> Map:
    scale = shapes.upsampling(module)
    c, height, width = x.shape

    def compute(first: int, last: int) -> Tensor:
        low = first // scale
        whole = F.interpolate(x.rows(low, -(-last // scale)), scale_factor=scale)
        return whole[:, :, first - low * scale : last - low * scale]

    return Computed((c, height * scale, width * scale), compute)


def _shave(size: int, x: Map) -> Map:
    c, height, width = x.shape

    def compute(first: int, last: int) -> Tensor:
        return x.rows(first + size, last + size)[..., size : width - size]

    return Computed((c, height - 2 * size, width - 2 * size), compute)
