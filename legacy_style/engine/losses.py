"""The loss modules of neural_style.lua: content, style (through Gram matrices), total variation.

Ports neural_style.lua 07c4b82: nn.ContentLoss, GramMatrix, nn.StyleLoss, nn.TVLoss. Each passes its input on
unchanged and adds its own gradient on the way back. A loss sees its feature maps in one piece or in tiles, so it works
in two stages: `accumulate` over all tiles, then `finish` with the sums, which may be those of several processes.
Surprises: with `normalize`, a gradient is divided by its L1 norm *before* the strength is applied; `backward` gets what
the input tensor holds *then*, which a following in-place ReLU has rectified; TVLoss has a gradient but no loss value.
SeparateStyleLoss and MeanTVLoss are those of anishathalye/neural-style d0a1148 (stylize.py), whose content loss is the
same as here.

Feature maps are (1, C, H, W) or (1, N), of any floating type; products are float32 (float64 where feature
maps are), sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["none", "capture", "loss"]

Reduce = Callable[[list[Tensor]], list[Tensor]]
"""Adds each tensor up over all processes that share the image; the identity where there is one process."""

NORM_EPSILON = 1e-8
"""neural_style.lua: added to the L1 norm under -normalize_gradients."""


_GRAM_BLOCK = 256
"""Pixels whose products are summed in float32, no more than the BLAS of the original took at a time. MKL adds up
thousands in a row, and then G - T near the optimum, and with it the gradient, is ten times less exact than the
original's.
"""

_GRAM_BATCH = 2**18
"""Elements of the blocks' products that are held at a time; they fit into the cache."""

_GRAM_BLOCK_ON_GPU = 8192
"""GPUs split the sum themselves, and would wait for small blocks."""


def gram_matrix(x: Tensor) -> Tensor:
    """F F^T of feature maps x (1, C, H, W), F being (C, H*W): a (C, C) matrix, not normalised.

    Products are float32, and are summed in float64 over blocks of pixels: one float32 sum over a large image loses
    digits that the difference of two Gram matrices needs. Source: Gatys, Ecker, Bethge (2015), eq. 3; neural_style.lua,
    GramMatrix.
    """
    flat = _pixels_by_channels(_precise(x))  # (H*W, C)
    pixels, channels = flat.shape
    total = flat.new_zeros((channels, channels), dtype=torch.float64)
    block = _GRAM_BLOCK if x.device.type == "cpu" else _GRAM_BLOCK_ON_GPU
    count = pixels // block
    blocks = flat[: count * block].view(count, block, channels)
    # Of the symmetric matrix, the lower left quarter need not be computed; small matrices are not worth it.
    half = channels // 2 if channels >= 64 else channels
    for some in torch.split(blocks, max(_GRAM_BATCH // channels**2, 1)):
        first, second = some[:, :, :half], some[:, :, half:]
        total[:half] += torch.bmm(first.transpose(1, 2), some).sum(0, dtype=torch.float64)
        total[half:, half:] += torch.bmm(second.transpose(1, 2), second).sum(0, dtype=torch.float64)
    total[half:, :half] = total[:half, half:].T
    rest = flat[count * block :]
    return total.add_(rest.T @ rest)


def _pixels_by_channels(x: Tensor) -> Tensor:
    """x (1, C, H, W) as (H*W, C): a view when x is whole and channels-last; (1, N) as itself, one pixel."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _precise(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _l1_norm(x: Tensor) -> float:
    return x.abs().sum(dtype=torch.float64).item()


class ContentLoss:
    """strength * mean((x - target)^2) and its gradient strength * 2 (x - target) / N."""

    def __init__(self, strength: float, normalize: bool) -> None:
        self.strength = strength
        self.normalize = normalize
        self.mode: Mode = "none"
        self.target: dict[int, Tensor] = {}  # tile -> feature maps of the content
        self.loss = 0.0
        self.norm = 0.0  # L1 norm of the gradient, with `normalize`
        self._squares, self._count = 0.0, 0.0

    def __str__(self) -> str:
        return "nn.ContentLoss"

    def accumulate(self, x: Tensor, tile: int = 0) -> None:
        """Take in one tile of the feature maps; `capture` keeps a copy of it as the target."""
        self._count += x.numel()
        if self.mode == "capture":
            self.target[tile] = _precise(x).clone()
        elif self.mode == "loss":
            # Summed in double: Torch7's sequential float32 sum is off by up to 1% on large layers.
            self._squares += (x - self.target[tile]).square_().sum(dtype=torch.float64).item()

    def accumulate_norm(self, x: Tensor, tile: int = 0) -> None:
        """Take in one tile of the gradient's L1 norm; needs the count, so it follows `finish`."""
        self.norm += _l1_norm(x - self.target[tile]) * 2.0 / self._count

    def sums(self) -> list[Tensor]:
        """What was accumulated: squares and their number, (2,), float64."""
        return [torch.tensor([self._squares, self._count], dtype=torch.float64)]

    def finish(self, sums: list[Tensor] | None = None) -> None:
        """Set `loss` from the sums over all tiles; None for those of this process alone."""
        (values,) = self.sums() if sums is None else sums
        squares, self._count = values.tolist()
        if self.mode == "loss":
            self.loss = self.strength * squares / self._count
        self._squares = self.norm = 0.0

    def backward(self, x: Tensor, grad: Tensor, tile: int = 0) -> None:
        """Add this loss's gradient at x to `grad`, in place."""
        if self.mode != "loss":
            return
        scale = 2.0 / self._count
        if self.normalize:
            scale /= self.norm + NORM_EPSILON
        grad.add_((x - self.target[tile]).to(grad.dtype), alpha=scale * self.strength)

    def restart(self) -> None:
        """Forget what was accumulated."""
        self._squares = self._count = self.norm = 0.0


class StyleLoss:
    """strength * mean((G - target)^2) over the C * C entries of G = F F^T / (C H W), and its gradient.

    While capturing, targets of several style images are blended: target = sum of blend_weight_i * G_i.
    """

    def __init__(self, strength: float, normalize: bool) -> None:
        self.strength = strength
        self.normalize = normalize
        self.blend_weight = 1.0
        self.mode: Mode = "none"
        self.target: Tensor | None = None  # (C, C), float64, as is gram
        self.gram: Tensor | None = None
        self.loss = 0.0
        self.norm = 0.0  # L1 norm of the gradient, with `normalize`
        self.products: Tensor | None = None  # F F^T of the tiles seen so far
        self._count = 0.0
        self._both: Tensor | None = None  # dG + dG^T, (C, C): times F, the gradient

    def __str__(self) -> str:
        return "nn.StyleLoss"

    def accumulate(self, x: Tensor, tile: int = 0) -> None:
        """Take in one tile of the feature maps."""
        if self.mode == "none":
            return
        self._count += x.numel()
        gram = gram_matrix(x)
        self.products = gram if self.products is None else self.products.add_(gram)

    def accumulate_norm(self, x: Tensor, tile: int = 0) -> None:
        """Take in one tile of the gradient's L1 norm; needs the whole Gram matrix, so it follows `finish`."""
        assert self._both is not None
        flat = _pixels_by_channels(_precise(x))
        self.norm += _l1_norm(flat @ self._both.to(flat.dtype))

    def sums(self) -> list[Tensor]:
        """What was accumulated, float64: the number of values, (), and F F^T, (C, C); nothing in mode none."""
        if self.mode == "none":
            return []
        assert self.products is not None
        return [torch.tensor(self._count, dtype=torch.float64), self.products]

    def finish(self, sums: list[Tensor] | None = None) -> None:
        """Set `gram`, and `loss` or the blended `target`, from the sums over all tiles; see ContentLoss."""
        if self.mode == "none":
            return
        count, products = self.sums() if sums is None else sums
        self._count = count.item()
        self.gram = products.div_(self._count)
        self.products, self.norm = None, 0.0
        if self.mode == "capture":
            self._keep(self.gram)
            return
        squares, difference = self._compare(self.gram)
        self.loss = self.strength * squares / difference.numel()
        # dG = 2 (G - T) / C^2 / (C H W), and the gradient is (dG + dG^T) F.
        d_gram = difference.mul_(2.0 / difference.numel() / self._count)
        self._both = d_gram.add_(d_gram.T.contiguous())  # (C, C)

    def _keep(self, gram: Tensor) -> None:
        """Take in the Gram matrix of one style image."""
        weighted = gram * self.blend_weight
        self.target = weighted if self.target is None else self.target.add_(weighted)

    def _compare(self, gram: Tensor) -> tuple[float, Tensor]:
        """The sum of the squared differences to the target, and half its derivative by `gram`, (C, C)."""
        assert self.target is not None
        difference = gram - self.target
        return difference.square().sum().item(), difference

    def backward(self, x: Tensor, grad: Tensor, tile: int = 0) -> None:
        """Add this loss's gradient at x to `grad`, in place, with G from the forward pass and F as x is *now*."""
        if self.mode != "loss":
            return
        assert self._both is not None
        strength = self.strength / (self.norm + NORM_EPSILON) if self.normalize else self.strength
        flat = _pixels_by_channels(_precise(x))  # (H*W, C)
        both = self._both.to(flat.dtype)
        flat_grad = _pixels_by_channels(grad)
        # The same memory, unless the feature maps are a part of larger ones or not channels-last.
        if flat_grad.data_ptr() == grad.data_ptr() and grad.dtype == flat.dtype:
            flat_grad.addmm_(flat, both, alpha=strength)
        else:
            own = (flat @ both).view(grad.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            grad.add_(own.to(grad.dtype), alpha=strength)

    def restart(self) -> None:
        """Forget what was accumulated."""
        self.products, self._count, self.norm = None, 0.0, 0.0


class SeparateStyleLoss(StyleLoss):
    """A StyleLoss that adds up blend_weight_i * mean((G - G_i)^2): each style image keeps its own target.

    Where weights add up to 1, the gradient is that of the blended target, and the value larger by what the
    style images differ among themselves.
    """

    def __init__(self, strength: float, normalize: bool) -> None:
        super().__init__(strength, normalize)
        self.targets: list[tuple[float, Tensor]] = []  # blend_weight_i, G_i

    def _keep(self, gram: Tensor) -> None:
        self.targets.append((self.blend_weight, gram))

    def _compare(self, gram: Tensor) -> tuple[float, Tensor]:
        differences = [(weight, gram - target) for weight, target in self.targets]
        squares = sum(weight * difference.square().sum().item() for weight, difference in differences)
        return squares, torch.stack([weight * difference for weight, difference in differences]).sum(0)


Loss = ContentLoss | StyleLoss


class TVLoss:
    """Gradient of strength / 2 * (squared differences to the right and lower neighbour); no loss value.

    Only the upper left (H-1) x (W-1) block has both neighbours and counts: the last row has no horizontal term, the
    last column no vertical one. Johnson et al. (2016) describe it; the halves are neural_style.lua's.
    """

    ROWS = 256  # worked on at a time, so that a large image needs no second one

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __str__(self) -> str:
        return "nn.TVLoss"

    def backward(self, x: Tensor, grad: Tensor) -> None:
        """Add the gradient at the image x (1, 3, H, W) to `grad`, in place."""
        last = x.shape[2] - 1
        for top in range(0, last, self.ROWS):
            bottom = min(top + self.ROWS, last)
            inner = x[:, :, top:bottom, :-1]
            across = inner - x[:, :, top:bottom, 1:]
            down = inner - x[:, :, top + 1 : bottom + 1, :-1]
            grad[:, :, top:bottom, :-1].add_(across + down, alpha=self.strength)
            grad[:, :, top:bottom, 1:].sub_(across, alpha=self.strength)
            grad[:, :, top + 1 : bottom + 1, :-1].sub_(down, alpha=self.strength)


class MeanTVLoss:
    """strength * (mean of squared differences downwards + mean of those to the right), and its gradient.

    Unlike TVLoss, it counts every pair of neighbours, and its strength does not depend on the image's size.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.loss = 0.0

    def backward(self, x: Tensor, grad: Tensor) -> None:
        """Set `loss` at the image x (1, 3, H, W) and add the gradient there to `grad`, in place."""
        self.loss = 0.0
        for axis in (2, 3):
            difference = x.diff(dim=axis)
            n = x.shape[axis] - 1
            count = difference.numel() or math.nan  # an image of one row has no mean
            self.loss += self.strength * difference.square().sum(dtype=torch.float64).item() / count
            difference *= 2 * self.strength / count
            grad.narrow(axis, 1, n).add_(difference)
            grad.narrow(axis, 0, n).sub_(difference)
