"""3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3), in float32.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016): an output tile of 4x4 is A^T [(G g G^T) * (B^T
d B)] A, where d is 6x6 of the input and the product in the middle, over all channels, is 36 matrix products. With their
points 0, +-1, +-2 the error is two to three times as large as with 0, +-2/3, +-3/2; with these it is 0.7e-6 to 1.2e-6
for 64 to 512 channels (relative, root mean square), a direct convolution's 0.4e-6 to 1.2e-6. On nearly constant maps,
as those of a noise start, where all products of a direct convolution round alike, this is the more exact way.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 4
"""Outputs per tile along each axis."""

_A, _B = 2 / 3, 3 / 2
_POINTS = (0.0, _A, -_A, _B, -_B)  # and infinity
_RECIPROCALS = [5, 3, 4, 1, 2, 0]  # where in that list 1 / point is
_SIDE = len(_POINTS) + 1  # inputs per tile along each axis

LEAST_CHANNELS = 128
"""So many inputs or outputs, and half as many of the other, make this way faster; below that, moving the tiles costs
more than is saved.
"""

_FEWEST_PIXELS = 128
"""Maps of so many pixels, or fewer, are faster the direct way: measured with 128 and 256 channels, 1.7 to 5 times up to
12x9, 1.4 times and 0.7 times at 16x12.
"""

_BLOCK = 256
"""Tiles worked on at a time: many enough for the matrix products, few enough for the cache."""


def _matrices() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """G (6, 3) and A^T (4, 6) of the Toom-Cook algorithm for _POINTS and infinity; A^T for turned kernels.

    Row p of B^T has the coefficients of the product of all (x - q), q being the other points: see `_evaluate`.
    """

    def powers(degree: int) -> NDArray[np.float64]:
        rows = [[point**power for power in range(degree)] for point in _POINTS]
        return np.array([*rows, [0.0] * (degree - 1) + [1.0]])

    scale = np.array([*(np.prod([p - q for q in _POINTS if q != p]) for p in _POINTS), 1.0])
    # A polynomial with its coefficients in reverse is, at p, p^2 times the polynomial at 1 / p.
    turning = np.array([*(point**2 or 1.0 for point in _POINTS), 1.0]) * scale[_RECIPROCALS] / scale
    a_t = powers(TILE).T
    return powers(3) / scale[:, None], a_t, (a_t * turning)[:, _RECIPROCALS]


def _evaluate(d: Sequence[Tensor], out: Sequence[Tensor], spare: Tensor) -> None:
    """B^T d of six arrays d, into the six arrays `out`, with `spare` as room for one more; a * b = 1 saves factors."""
    for i, first in ((0, 0), (5, 1)):
        torch.add(d[first], d[first + 4], out=out[i]).add_(d[first + 2], alpha=-(_A**2) - _B**2)
    for plus, minus, point, other in ((1, 2, _A, _B), (3, 4, _B, _A)):
        odd = torch.add(d[3], d[1], alpha=-(other**2), out=spare)
        even = torch.add(d[4], d[2], alpha=-(other**2), out=out[plus])
        torch.add(even, odd, alpha=-point, out=out[minus])
        even.add_(odd, alpha=point)


_G, _A_T, _A_T_TURNED = _matrices()
_KERNEL = torch.from_numpy(np.kron(_G, _G))  # (36, 9)
_OUTPUT = torch.from_numpy(np.kron(_A_T, _A_T)).float()  # (16, 36)
_OUTPUT_TURNED = torch.from_numpy(np.kron(_A_T_TURNED, _A_T_TURNED)).float()


def transform_kernels(weight: Tensor) -> Tensor:
    """Kernels (K, C, 3, 3) as 36 matrices, (36, C, K) float32, columns before rows, as `convolve` has its tiles."""
    k, c = weight.shape[:2]
    flat = weight.double().permute(3, 2, 1, 0).reshape(9, c * k)
    kernels = _large_pages(_SIDE**2 * c * k).view(_SIDE**2, c * k)
    # Six rows at a time: all in float64 would be twice the result.
    for rows, some in zip(torch.split(_KERNEL, _SIDE), torch.split(kernels, _SIDE), strict=True):
        some.copy_(rows @ flat)
    return kernels.view(_SIDE**2, c, k)


def fits(device: torch.device, dtype: torch.dtype, shape: Sequence[int], pad: tuple[int, int]) -> bool:
    """Whether `convolve` can do the convolution of stride 1, without groups, by kernels of `shape` (K, C, kH, kW), and
    faster than the direct way.
    """
    wide = min(shape[:2]) >= LEAST_CHANNELS // 2 and max(shape[:2]) >= LEAST_CHANNELS
    plain = tuple(shape[2:]) == (3, 3) and pad == (1, 1)
    return wide and plain and device.type == "cpu" and dtype == torch.float32


def pays(height: int, width: int) -> bool:
    """Whether maps of that size are large enough."""
    return height * width > _FEWEST_PIXELS


def suits(weight: Tensor, pad: tuple[int, int]) -> bool:
    """`fits` for kernels that are there."""
    return fits(weight.device, weight.dtype, weight.shape, pad)


def _large_pages(count: int) -> Tensor:
    """So many float32 of any content, in the large pages of systems that have them: strided reads miss fewer."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count)
    memory = mmap.mmap(-1, 4 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system that was built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32)


class Scratch(threading.local):
    """Room for the intermediate arrays, kept from call to call: fresh pages cost more than the arithmetic on them.

    Each thread has its own.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An array of that shape with any content, float32; the same memory for the same name."""
        count = int(np.prod(shape))
        array = self._arrays.get(name)
        if array is None or array.numel() < count:
            with torch.inference_mode(False):  # what is made in that mode could not be written to outside it
                array = self._arrays[name] = _large_pages(count)
        return array[:count].view(shape)


_scratch = Scratch()


def scratch_sizes(inputs: int, outputs: int, height: int, width: int) -> dict[str, int]:
    """How many float32 `convolve` takes, by name, for feature maps of that size, with so many channels in and out."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    wide = columns * TILE + 2
    step = min(max(_BLOCK // columns, 1), rows)
    exact = height == rows * TILE and width == columns * TILE
    return {
        "padded": (rows * TILE + 2) * wide * inputs,
        "image": 0 if exact else rows * columns * TILE**2 * outputs,
        "u": (_SIDE + 1) * step * wide * inputs,
        "v": (_SIDE + 1) * _SIDE * step * columns * inputs,
        "m": _SIDE**2 * step * columns * outputs,
        "y": TILE**2 * step * columns * outputs,
    }


def convolve(
    kernels: Tensor,
    bias: Tensor | None,
    x: Tensor,
    positive: Tensor | None = None,
    *,
    turned: bool = False,
    border: str = "zero",
) -> Tensor:
    """x (1, C, H, W) convolved with stride 1 and padding 1 by `transform_kernels(weight)`: (1, K, H, W), channels-last.

    Everything is float32 on the CPU; bias: (K,) or None. With `positive`, of the shape of x, x counts as 0 where that
    is not above 0. With `turned`, the kernels are turned by 180 degrees and transposed in their channels, as for the
    gradient: x is (1, K, H, W), and the result (1, C, H, W). `border`: what the padding is, "zero", "replicate" or
    "reflect"; with "none" there is none, and the result is smaller by two.
    """
    output, points = _OUTPUT, list(range(_SIDE))
    if turned:
        kernels, output, points = kernels.transpose(1, 2), _OUTPUT_TURNED, _RECIPROCALS
    scratch = _scratch
    pad = 0 if border == "none" else 1
    _, c, h, w = x.shape
    k = kernels.shape[2]
    padded, inner = _place(x, pad)
    if positive is None:
        inner.copy_(x)
    else:
        torch.ops.aten.threshold_backward.grad_input(x, positive, 0, grad_input=inner)
    if border in ("replicate", "reflect"):
        _continue(padded, h, w, 0 if border == "replicate" else 1)
    h, w = h + 2 * pad - 2, w + 2 * pad - 2
    rows, columns = -(-h // TILE), -(-w // TILE)
    wide = columns * TILE + 2
    result = x.new_empty((1, h, w, k)).permute(0, 3, 1, 2)  # channels-last
    exact = h == rows * TILE and w == columns * TILE
    image = result[0].permute(1, 2, 0) if exact else scratch.take("image", rows * TILE, columns * TILE, k)
    down = wide * c
    step = max(_BLOCK // columns, 1)
    for first in range(0, rows, step):
        r = min(step, rows - first)
        tiles = r * columns
        # B^T d B, one axis at a time.
        u = scratch.take("u", _SIDE + 1, r, down)
        bands = padded[first * TILE :].as_strided((_SIDE, r, down), (down, TILE * down, 1))
        _evaluate(bands.unbind(), [u[i] for i in points], u[_SIDE])
        v = scratch.take("v", _SIDE + 1, _SIDE, r, columns, c)
        overlapping = u.as_strided((_SIDE, _SIDE, r, columns, c), (c, r * down, down, TILE * c, 1))
        _evaluate(overlapping.unbind(), [v[i] for i in points], v[_SIDE])
        v = v[:_SIDE].view(_SIDE**2, tiles, c)
        m = torch.bmm(v, kernels, out=scratch.take("m", _SIDE**2, tiles, k)).view(_SIDE**2, tiles * k)
        y = torch.mm(output, m, out=scratch.take("y", TILE**2, tiles * k)).view(TILE, TILE, r, columns, k)
        block = image[first * TILE : (first + r) * TILE].view(r, TILE, columns, TILE, k)
        block.copy_(y.permute(2, 1, 3, 0, 4))
    if not exact:
        result[0].permute(1, 2, 0).copy_(image[:h, :w])
    return result if bias is None else result.add_(bias.view(1, -1, 1, 1))


def _place(x: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Room for x (1, C, H, W) padded to whole tiles, (rows, columns, C), zeros around, and the part that x goes to."""
    _, c, h, w = x.shape
    rows, columns = -(-(h + 2 * pad - 2) // TILE), -(-(w + 2 * pad - 2) // TILE)
    padded = _scratch.take("padded", rows * TILE + 2, columns * TILE + 2, c)
    padded[:pad].zero_(), padded[h + pad :].zero_(), padded[:, :pad].zero_(), padded[:, w + pad :].zero_()
    return padded, padded[pad : h + pad, pad : w + pad].permute(2, 0, 1)[None]


def _continue(padded: Tensor, h: int, w: int, step: int) -> None:
    """Fill the one pixel around an image of h x w with the pixels `step` inside of its border."""
    padded[0, 1 : w + 1], padded[h + 1, 1 : w + 1] = padded[1 + step, 1 : w + 1], padded[h - step, 1 : w + 1]
    padded[: h + 2, 0], padded[: h + 2, w + 1] = padded[: h + 2, 1 + step], padded[: h + 2, w - step]
