"""A stand-in for another processor: every sum in another order, its roundings made `times` as large.

Two correct processors compute the same sums in different orders: a convolution in blocks of eight or sixteen
channels, a Gram matrix in tiles of another size, with fused multiply-adds or without. All that follows from
that is rounding, but an optimiser may amplify it. Within `OtherProcessor(seed)`, each convolution, matrix
product and sum is computed a second time with its terms in another order, drawn from the seed, and the
difference of the two is added to the result. So equal inputs still give equal outputs, as on a real
processor, and roundings have the size that cancellation gives them.

With `times=8` that difference counts eightfold: what two correct processors may differ by, with a wide margin.
With a negative number it counts in the other direction, which turns every near-tie the other way.
Checked against real instruction sets (SSE4.1 against AVX2; oneDNN against im2col): feature maps, Gram matrices
and gradients differ there by what `times=1` gives, 1e-7 to 7e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

ULP = 2.0**-23
"""The distance of float32 numbers next to each other, relative to them."""


class OtherProcessor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, what this thread computes with PyTorch is what another processor might have computed."""

    def __init__(self, seed: int, times: float = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.times = seed, times
        self._orders: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        again = _AGAIN.get(func.overloadpacket)
        if again is not None:
            first = result[0] if isinstance(result, tuple) else result
            if isinstance(first, Tensor) and first.is_floating_point():
                again(self, func, first, args, kwargs or {})
        return result

    def order(self, count: int) -> Tensor:
        """A permutation of so many terms, always the same one."""
        if count not in self._orders:
            self._orders[count] = torch.from_numpy(
                np.random.RandomState([self.seed, count]).permutation(count)
            )
        return self._orders[count]

    def part(self, result: Tensor, once: Tensor, again: Tensor) -> None:
        """Add the difference of two computations of one value to `result`; infinities and nan stay."""
        difference = again.sub(once).nan_to_num_(0, 0, 0)
        result.add_(difference.view_as(result), alpha=self.times)


def _convolution(mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], _: Any) -> None:
    x, weight, transposed, groups = args[0], args[1], args[6], args[8]
    if groups != 1:
        return
    order = mode.order(x.shape[1])
    turned = weight[order] if transposed else weight[:, order]  # (in, out, ...) or (out, in, ...)
    mode.part(y, y, func(_channels_last(x[:, order]), _channels_last(turned), *args[2:]))


def _convolution_backward(mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], _: Any) -> None:
    """Of the gradient with respect to the input."""
    grad, weight, transposed, groups = args[0], args[2], args[7], args[9]
    if groups != 1:
        return
    order = mode.order(grad.shape[1])
    turned = weight[:, order] if transposed else weight[order]
    again = func(grad[:, order], args[1], turned, *args[3:10], [True, False, False])
    mode.part(y, y, again[0])


def _product(mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], _: Any) -> None:
    """mm, bmm, mv, dot."""
    a, b = args[0], args[1]
    order = mode.order(a.shape[-1])
    kind = getattr(aten, func.overloadpacket.__name__).default
    mode.part(y, y, kind(a[..., order], b.index_select(max(b.dim() - 2, 0), order)))


def _sum_and_product(
    mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """addmm, in place too."""
    a, b = args[1], args[2]
    order, alpha = mode.order(a.shape[-1]), kwargs.get("alpha", 1)
    mode.part(y, aten.mm.default(a, b) * alpha, aten.mm.default(a[:, order], b[order]) * alpha)


def _sum(mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """sum, mean, norms: over all axes, or some."""
    x = args[0]
    if not x.is_floating_point():
        return
    at = 2 if func.overloadpacket in (aten.linalg_vector_norm, aten.norm) else 1
    axes = args[at] if len(args) > at and func._overloadname != "default" else kwargs.get("dim")
    axes = [axes] if isinstance(axes, int) else axes
    for axis in range(x.dim()) if not axes else [each % x.dim() for each in axes]:
        x = x.index_select(axis, mode.order(x.shape[axis]))
    mode.part(y, y, func(x, *args[1:], **{key: kwargs[key] for key in kwargs if key != "out"}))


def _rounding(mode: OtherProcessor, func: Any, y: Tensor, args: tuple[Any, ...], _: Any) -> None:
    """What is one value from few: half a unit in its last place, up or down, as its own bits decide."""
    if y.dtype == torch.float32:
        bits = y.contiguous().view(torch.int32).to(torch.int64)
        random = (bits * 2654435761 + mode.seed * 40503).bitwise_right_shift_(7).bitwise_and_(0xFFFF)
        y.addcmul_(y, random.float().div_(0x8000).sub_(1).view(y.shape), value=ULP / 2 * mode.times)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


_AGAIN: dict[Any, Callable[[OtherProcessor, Any, Tensor, tuple[Any, ...], dict[str, Any]], None]] = {
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv, aten.dot, aten.vdot), _product),
    **dict.fromkeys((aten.addmm, aten.addmm_), _sum_and_product),
    **dict.fromkeys((aten.sum, aten.mean, aten.linalg_vector_norm, aten.norm), _sum),
    **dict.fromkeys(
        (aten.avg_pool2d, aten.avg_pool2d_backward, aten.sigmoid, aten.tanh, aten.exp, aten.pow, aten.rsqrt),
        _rounding,
    ),
}
