"""The loss modules of neural_style.lua: content, style (through Gram matrices), total variation.

Ports neural_style.lua 07c4b82: nn.ContentLoss, GramMatrix, nn.StyleLoss, nn.TVLoss. Each passes its input on unchanged and
adds its own gradient on the way back. Surprises: with `normalize`, a gradient is divided by its L1 norm *before* the
strength is applied; backward sees what the input tensor holds *then*, which a following in-place ReLU has rectified;
TVLoss has a gradient but no loss value.

Feature maps are (1, C, H, W) float32 in channels-last layout; a fully connected layer's output is (1, N).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["none", "capture", "loss"]

NORM_EPSILON = 1e-8
"""neural_style.lua: added to the L1 norm under -normalize_gradients."""


def gram_matrix(x: Tensor) -> Tensor:
    """F F^T of feature maps x (1, C, H, W), F being (C, H*W): a (C, C) matrix, not normalised.

    Source: Gatys, Ecker, Bethge (2015), eq. 3; neural_style.lua, GramMatrix.
    """
    flat = _pixels_by_channels(x)  # (H*W, C)
    return flat.T @ flat  # (C, C)


def _pixels_by_channels(x: Tensor) -> Tensor:
    """x (1, C, H, W) as (H*W, C): a view when x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _l1_norm(x: Tensor) -> float:
    return x.abs().sum(dtype=torch.float64).item()


class ContentLoss:
    """strength * mean((x - target)^2) and its gradient strength * 2 (x - target) / N."""

    def __init__(self, strength: float, normalize: bool) -> None:
        self.strength = strength
        self.normalize = normalize
        self.mode: Mode = "none"
        self.target: Tensor | None = None
        self.loss = 0.0

    def __str__(self) -> str:
        return "nn.ContentLoss"

    def forward(self, x: Tensor) -> None:
        """x: any shape; `capture` stores a copy as the target, `loss` sets `self.loss`."""
        if self.mode == "capture":
            self.target = x.clone()
        elif self.mode == "loss":
            assert self.target is not None
            # Summed in double: Torch7's sequential float32 sum is off by up to 1% on large layers.
            squares = (x - self.target).square_()
            self.loss = self.strength * squares.sum(dtype=torch.float64).item() / x.numel()

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """Add this loss's gradient at x to `grad`, in place."""
        if self.mode != "loss":
            return grad
        assert self.target is not None
        difference = x - self.target
        scale = 2.0 / x.numel()
        if self.normalize:
            scale /= _l1_norm(difference) * scale + NORM_EPSILON
        return grad.add_(difference, alpha=scale * self.strength)


class StyleLoss:
    """strength * mean((G - target)^2) over the C * C entries of G = F F^T / (C H W), and its gradient.

    While capturing, targets of several style images are blended: target = sum of blend_weight_i * G_i.
    """

    def __init__(self, strength: float, normalize: bool) -> None:
        self.strength = strength
        self.normalize = normalize
        self.blend_weight = 1.0
        self.mode: Mode = "none"
        self.target: Tensor | None = None
        self.gram: Tensor | None = None
        self.loss = 0.0

    def __str__(self) -> str:
        return "nn.StyleLoss"

    def forward(self, x: Tensor) -> None:
        """x: feature maps (1, C, H, W); `capture` adds to the target, `loss` sets `self.loss`."""
        if self.mode == "none":
            return
        self.gram = gram_matrix(x).div_(x.numel())
        if self.mode == "capture":
            weighted = self.gram * self.blend_weight
            self.target = weighted if self.target is None else self.target.add_(weighted)
        else:
            assert self.target is not None
            squares = (self.gram - self.target).square_()
            self.loss = self.strength * squares.sum(dtype=torch.float64).item() / squares.numel()

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """Add this loss's gradient at x to `grad`, in place.

        dG = 2 (G - T) / C^2 / (C H W) with G from the forward pass; the gradient is (dG + dG^T) F with F as x is *now*.
        """
        if self.mode != "loss":
            return grad
        assert self.gram is not None and self.target is not None
        d_gram = (self.gram - self.target).mul_(2.0 / self.gram.numel() / x.numel())
        both = d_gram + d_gram.T  # (C, C)
        flat, flat_grad = _pixels_by_channels(x), _pixels_by_channels(grad)  # (H*W, C)
        if self.normalize:
            own = flat @ both
            flat_grad.add_(own, alpha=self.strength / (_l1_norm(own) + NORM_EPSILON))
        else:
            flat_grad.addmm_(flat, both, alpha=self.strength)
        return grad


class TVLoss:
    """Gradient of strength / 2 * (squared differences to the right and lower neighbour); no loss value.

    Only the upper left (H-1) x (W-1) block has both neighbours and counts: the last row has no horizontal term, the last
    column no vertical one. Johnson et al. (2016) describe it; the halves are neural_style.lua's.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __str__(self) -> str:
        return "nn.TVLoss"

    def forward(self, x: Tensor) -> None:
        """Nothing to do."""

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """Add the gradient at the image x (1, 3, H, W) to `grad`, in place; H and W at least 2."""
        inner = x[:, :, :-1, :-1]
        across = inner - x[:, :, :-1, 1:]
        down = inner - x[:, :, 1:, :-1]
        own = torch.zeros_like(x)
        own[:, :, :-1, :-1].add_(across).add_(down)
        own[:, :, :-1, 1:].sub_(across)
        own[:, :, 1:, :-1].sub_(down)
        return grad.add_(own, alpha=self.strength)
