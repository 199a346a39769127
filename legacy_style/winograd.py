"""3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3), in float32.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016): an output tile of 4x4 is A^T [(G g G^T) * (B^T
d B)] A, where d is 6x6 of the input and the product in the middle, over all channels, is 36 matrix products. Their
points 0, +-1, +-2 lose two digits; with 0, +-2/3, +-3/2 the result is about 1e-6 from the exact one (relative, root
mean square), a direct convolution's 4e-7 to 8e-7; on nearly constant maps, as those of a noise start, where all
products of a direct convolution round alike, this is the more exact way. Pays off from 128 channels on; below that,
moving the tiles costs more than is saved.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 4
"""Outputs per tile along each axis."""

_POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
_RECIPROCALS = [5, 3, 4, 1, 2, 0]  # where in that list 1 / point is
_SIDE = len(_POINTS) + 1  # inputs per tile along each axis

LEAST_CHANNELS = 128
"""For Winograd's way to be no slower, inputs or outputs must be as many, and the others half as many."""

_BLOCK = 256
"""Tiles worked on at a time: many enough for the matrix products, few enough for the cache."""


class _Transforms(NamedTuple):
    """What happens to tiles, float32, before and after the products."""

    input: Tensor  # (6, 6), for one axis at a time
    output: Tensor  # (16, 36), for both


def _matrices() -> tuple[NDArray[np.float64], _Transforms, _Transforms]:
    """G (6, 3) of the Toom-Cook algorithm for _POINTS and infinity; A^T and B^T for kernels as they are, and turned."""

    def evaluate(degree: int) -> NDArray[np.float64]:
        rows = [[point**power for power in range(degree)] for point in _POINTS]
        return np.array([*rows, [0.0] * (degree - 1) + [1.0]])

    def transforms(b_t: NDArray[np.float64], a_t: NDArray[np.float64]) -> _Transforms:
        return _Transforms(torch.from_numpy(b_t).float(), torch.from_numpy(np.kron(a_t, a_t)).float())

    a_t, g, b_t = evaluate(TILE).T, evaluate(3), np.linalg.inv(evaluate(_SIDE)).T
    # Moving factors between B and G changes nothing but the size of the intermediate numbers; powers of two are exact.
    factor = 2.0 ** np.round(np.log2(np.abs(b_t).max(1, keepdims=True)))
    # A polynomial with its coefficients in reverse is, at p, p^2 times the polynomial at 1 / p.
    turning = np.array([*(point**2 or 1.0 for point in _POINTS), 1.0])[:, None] / factor[_RECIPROCALS]
    turned = transforms((b_t * turning)[_RECIPROCALS], a_t[:, _RECIPROCALS])
    return g * factor, transforms(b_t / factor, a_t), turned


_G, _STRAIGHT, _TURNED = _matrices()
_KERNEL = torch.from_numpy(np.kron(_G, _G))  # (36, 9)


def transform_kernels(weight: Tensor) -> Tensor:
    """Kernels (K, C, 3, 3) as 36 matrices, (36, C, K) float32, columns before rows, as `convolve` has its tiles."""
    k, c = weight.shape[:2]
    flat = weight.double().permute(3, 2, 1, 0).reshape(9, c * k)
    kernels = _large_pages(_SIDE**2 * c * k).view(_SIDE**2, c * k)
    for rows, some in zip(
        torch.split(_KERNEL, _SIDE), torch.split(kernels, _SIDE), strict=True
    ):  # for less memory
        some.copy_(rows @ flat)
    return kernels.view(_SIDE**2, c, k)


def suits(weight: Tensor, pad: tuple[int, int]) -> bool:
    """Whether `convolve` can do this convolution of stride 1 without groups, and faster than the direct way."""
    wide = min(weight.shape[:2]) >= LEAST_CHANNELS // 2 and max(weight.shape[:2]) >= LEAST_CHANNELS
    plain = tuple(weight.shape[2:]) == (3, 3) and pad == (1, 1)
    return wide and plain and weight.device.type == "cpu" and weight.dtype == torch.float32


def _large_pages(count: int) -> Tensor:
    """So many float32 of any content, in the large pages of systems that have them: strided reads miss fewer."""
    memory = mmap.mmap(-1, 4 * count)
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32)


class Scratch:
    """Room for the intermediate arrays, kept from call to call: fresh pages cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An array of that shape with any content, float32; the same memory for the same name."""
        count = int(np.prod(shape))
        array = self._arrays.get(name)
        if array is None or array.numel() < count:
            array = self._arrays[name] = _large_pages(count)
        return array[:count].view(shape)


_scratch = Scratch()


def scratch_bytes(channels: int, height: int, width: int) -> int:
    """How large the scratch memory grows for feature maps of that size, with so many channels in and out."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    step = min(max(_BLOCK // columns, 1), rows)
    wide = columns * TILE + 2
    padded = (rows * TILE + 2) * wide
    image = 0 if height == rows * TILE and width == columns * TILE else rows * columns * TILE**2
    return 4 * channels * (padded + image + step * (_SIDE * wide + columns * (3 * _SIDE**2 + TILE**2)))


def convolve(
    kernels: Tensor, bias: Tensor | None, x: Tensor, positive: Tensor | None = None, *, turned: bool = False
) -> Tensor:
    """x (1, C, H, W) convolved with stride 1 and padding 1 by `transform_kernels(weight)`: (1, K, H, W), channels-last.

    Everything is float32 on the CPU; bias: (K,) or None. With `positive`, of the shape of x, x counts as 0 where that
    is not above 0. With `turned`, the kernels are turned by 180 degrees and transposed in their channels, as for the
    gradient: x is (1, K, H, W), and the result (1, C, H, W). Not for several threads at once.
    """
    transforms = _TURNED if turned else _STRAIGHT
    if turned:
        kernels = kernels.transpose(1, 2)
    scratch = _scratch
    _, c, h, w = x.shape
    k = kernels.shape[2]
    rows, columns = -(-h // TILE), -(-w // TILE)
    wide = columns * TILE + 2
    padded = scratch.take("padded", rows * TILE + 2, wide, c)
    padded[0].zero_(), padded[h + 1 :].zero_(), padded[:, 0].zero_(), padded[:, w + 1 :].zero_()
    inner = padded[1 : h + 1, 1 : w + 1].permute(2, 0, 1)[None]
    if positive is None:
        inner.copy_(x)
    else:
        torch.ops.aten.threshold_backward.grad_input(x, positive, 0, grad_input=inner)
    result = x.new_empty((1, h, w, k)).permute(0, 3, 1, 2)  # channels-last
    exact = h == rows * TILE and w == columns * TILE
    image = result[0].permute(1, 2, 0) if exact else scratch.take("image", rows * TILE, columns * TILE, k)
    down = wide * c
    step = max(_BLOCK // columns, 1)
    for first in range(0, rows, step):
        r = min(step, rows - first)
        tiles = r * columns
        # B^T d B, one axis at a time: rows of the image are rows of a matrix as they stand, columns are gathered.
        bands = padded[first * TILE :].as_strided((r, _SIDE, down), (TILE * down, down, 1))
        u = torch.bmm(transforms.input.expand(r, -1, -1), bands, out=scratch.take("u", r, _SIDE, down))
        overlapping = u.as_strided((_SIDE, _SIDE, r, columns, c), (c, down, _SIDE * down, TILE * c, 1))
        d = scratch.take("d", _SIDE, _SIDE, r, columns, c).copy_(overlapping).view(_SIDE, _SIDE * tiles * c)
        v = torch.mm(transforms.input, d, out=scratch.take("v", _SIDE, _SIDE * tiles * c)).view(
            _SIDE**2, tiles, c
        )
        m = torch.bmm(v, kernels, out=scratch.take("m", _SIDE**2, tiles, k)).view(_SIDE**2, tiles * k)
        y = torch.mm(transforms.output, m, out=scratch.take("y", TILE**2, tiles * k)).view(
            TILE, TILE, r, columns, k
        )
        block = image[first * TILE : (first + r) * TILE].view(r, TILE, columns, TILE, k)
        block.copy_(y.permute(2, 1, 3, 0, 4))
    if not exact:
        result[0].permute(1, 2, 0).copy_(image[:h, :w])
    return result if bias is None else result.add_(bias.view(1, -1, 1, 1))
