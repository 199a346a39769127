"""The losses of neural_style.lua: content, style (through Gram matrices), total variation; and what every loss is.

Ports neural_style.lua 07c4b82: nn.ContentLoss, GramMatrix, nn.StyleLoss, nn.TVLoss. Notes: with `normalize`, a gradient
is divided by its L1 norm *before* the strength is applied; `backward` gets what the input tensor holds *then*, which a
following in-place ReLU has rectified; TVLoss has a gradient but no value.

Feature maps are (1, C, H, W) or (1, N), of any floating type; products are float32 (float64 where feature
maps are), sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from legacy_style.engine.kernels import grams
from legacy_style.engine.tiles import Rectangle

NORM_EPSILON = 1e-8
"""neural_style.lua: added to the L1 norm under -normalize_gradients."""


class Loss:
    """What a program hands to `network.build`: a loss on the feature maps of a layer, or on the image itself.

    A loss sees its maps in rectangles (tiles, the parts of several processes) or in one piece. Each call gets `x`, the
    maps (1, C, h, w), and `where`, the rows and columns of the whole map that x covers, so that masks and targets can
    be cut to fit. One evaluation is: `begin`; `accumulate` for each rectangle; `finish` with the `sums` of all
    rectangles of all processes; `backward` for each rectangle. Targets are taken in the same way, with `capture` for
    `accumulate` and without `backward`; several images may be captured one after the other. A process that has no
    rectangle gets maps without pixels. The maps belong to the network: copy what is kept of them.

    `name` is unique within a network. `source` names the image that targets are taken from ("content", "style"), ''
    for none; `blend_weight` is what the image that is captured counts. `value` is the loss at the last evaluation, None
    where it has none; `finish` may leave it in a tensor without dimensions, which the objective reads with all others.
    A loss that never waits for its device can be part of a CUDA graph. `tf32` is set where the products of a gradient
    may be rounded to that. `keeps_maps` tells the memory plan that the
    target is as large as the maps. `reach` matters for image losses alone: x then covers so many more pixels on every
    side of `where`, as far as there are any; `pixels_around` tells them apart.
    """

    keeps_maps = False
    reach = 0
    tf32 = False

    def __init__(self, name: str, source: str = "") -> None:
        self.name, self.source = name, source
        self.blend_weight = 1.0
        self.value: float | Tensor | None = None

    def begin(self) -> None:
        """Drop what was accumulated or captured, but not finished: new maps come."""

    def capture(self, x: Tensor, where: Rectangle) -> None:
        """Take in a rectangle of the maps of an image that targets are taken from."""

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        """Take in a rectangle of the maps that are evaluated."""

    def sums(self) -> list[Tensor]:
        """What was taken in since `begin` or the last `finish`: tensors that may be added up over processes."""
        return []

    def finish(self, sums: list[Tensor]) -> bool:
        """Set the target or `value` from the sums over all rectangles.

        Returns whether all maps must be accumulated once more before `backward`, as they are after the forward pass.
        """
        return False

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        """Add this loss's gradient at x to `grad`, in place."""

    def forget(self) -> None:
        """Forget the targets."""


def pixels_around(where: Rectangle, reach: int) -> tuple[int, int]:
    """How many rows and columns of an image loss's x lie above and to the left of `where`."""
    return min(reach, where[0][0]), min(reach, where[1][0])


def gram_matrix(x: Tensor) -> Tensor:
    """F F^T of feature maps x (1, C, H, W), F being (C, H*W): a (C, C) float64 matrix, not normalised."""
    return grams.products(_pixels_by_channels(x))


def _pixels_by_channels(x: Tensor) -> Tensor:
    """x (1, C, H, W) as (H*W, C): a view when x is whole and channels-last; (1, N) as itself, one pixel."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _precise(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _add_scaled(grad: Tensor, own: Tensor, scale: float | Tensor) -> None:
    """grad += scale * own, in one pass where `scale` is a number; `own` may be overwritten."""
    if isinstance(scale, Tensor):
        grad.add_(own.mul_(scale))
    else:
        grad.add_(own.to(grad.dtype), alpha=scale)


def _l1_norm(x: Tensor) -> Tensor:
    return x.abs().sum(dtype=torch.float64)


class ContentLoss(Loss):
    """strength * mean((x - target)^2) and its gradient strength * 2 (x - target) / N."""

    keeps_maps = True

    def __init__(self, name: str, strength: float, normalize: bool = False, source: str = "content") -> None:
        super().__init__(name, source)
        self.strength, self.normalize = strength, normalize
        self.target: dict[Rectangle, Tensor] = {}  # rectangle -> feature maps of the content
        self._capturing = self._measuring = False  # the target, the gradient's norm
        self._total: Tensor | None = None  # of squares, or of the gradient's absolute values
        self._values = 0  # captured so far
        self._count = 0.0  # of the values of all rectangles
        self._scale: float | Tensor | None = None  # of the gradient

    def __str__(self) -> str:
        return "nn.ContentLoss"

    def begin(self) -> None:
        self._total, self._values = None, 0
        self._capturing = self._measuring = False

    def capture(self, x: Tensor, where: Rectangle) -> None:
        self._capturing = True
        self._values += x.numel()
        self.target[where] = _precise(x).clone()

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        difference = x - self._target(where)
        if self._measuring:
            self._add(_l1_norm(difference) * 2.0 / self._count)
            return
        # Summed in double: Torch7's sequential float32 sum is off by up to 1% on large layers.
        self._add(difference.square_().sum(dtype=torch.float64))

    def _target(self, where: Rectangle) -> Tensor:
        """The target of a rectangle, put together where it was captured in others."""
        if where in self.target:
            return self.target[where]
        some = next(iter(self.target.values()))
        (top, bottom), (left, right) = where
        whole = some.new_empty((1, some.shape[1], bottom - top, right - left))
        for (rows, columns), maps in self.target.items():
            above, below = max(rows[0], top), min(rows[1], bottom)
            first, last = max(columns[0], left), min(columns[1], right)
            if above < below and first < last:
                part = maps[:, :, above - rows[0] : below - rows[0], first - columns[0] : last - columns[0]]
                whole[:, :, above - top : below - top, first - left : last - left] = part
        return whole

    def _add(self, total: Tensor) -> None:
        self._total = total if self._total is None else self._total.add_(total)

    def sums(self) -> list[Tensor]:
        """Of a target, the number of values; else the sum of squares, or of the gradient's absolute values."""
        if self._capturing:
            some = next(iter(self.target.values()))
            return [some.new_full((), self._values, dtype=torch.float64)]
        assert self._total is not None, "a loss without maps"
        return [self._total]

    def finish(self, sums: list[Tensor]) -> bool:
        if self._capturing:
            self._capturing = False
            self._count = sums[0].item()  # once and for all: an evaluation waits for no device
            return False
        total, self._total = sums[0], None
        if self._measuring:
            assert self._scale is not None
            self._measuring = False
            self._scale = self._scale / (total + NORM_EPSILON)
            return False
        weight = self.weight(self._count)
        self.value = weight * total / self._count
        self._scale = 2.0 / self._count * weight
        self._measuring = self.normalize
        return self._measuring

    def weight(self, count: float) -> float:
        """What the mean of `count` squares is multiplied by."""
        return self.strength

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        if self._scale is not None:
            _add_scaled(grad, x - self._target(where), self._scale)

    def forget(self) -> None:
        self.target = {}


class StyleLoss(Loss):
    """strength * mean((G - target)^2) over the C * C entries of G = F F^T / (C H W), and its gradient.

    Targets of several style images are blended: target = sum of blend_weight_i * G_i, with `blend_weight` as it is
    while an image is captured.
    """

    def __init__(self, name: str, strength: float, normalize: bool = False, source: str = "style") -> None:
        super().__init__(name, source)
        self.strength, self.normalize = strength, normalize
        self.target: Tensor | None = None  # (C, C), float64, as is gram
        self.gram: Tensor | None = None
        self._capturing = self._measuring = False  # the target, the gradient's norm
        self._products: Tensor | None = None  # F F^T of the rectangles seen so far
        self._count = 0
        self._norm: Tensor | None = None
        self._both: Tensor | None = None  # dG + dG^T, (C, C): times F, the gradient
        self._scale: float | Tensor = 0.0  # of that

    def __str__(self) -> str:
        return "nn.StyleLoss"

    def begin(self) -> None:
        self._products, self._count, self._norm = None, 0, None
        self._capturing = self._measuring = False

    def capture(self, x: Tensor, where: Rectangle) -> None:
        self._capturing = True
        self._take(x)

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        if not self._measuring:
            self._take(x)
            return
        assert self._both is not None
        norm = _l1_norm(grams.product(_pixels_by_channels(x), self._both, tf32=self.tf32))
        self._norm = norm if self._norm is None else self._norm.add_(norm)

    def _take(self, x: Tensor) -> None:
        self._count += x.numel()
        products = gram_matrix(x)
        self._products = products if self._products is None else self._products.add_(products)

    def sums(self) -> list[Tensor]:
        """The number of values, (), and F F^T, (C, C); or the L1 norm of the gradient, ()."""
        if self._measuring:
            assert self._norm is not None
            return [self._norm]
        assert self._products is not None, "a loss without maps"
        return [self._products.new_full((), self._count), self._products]

    def finish(self, sums: list[Tensor]) -> bool:
        if self._measuring:
            self._measuring = False
            self._scale = self._scale / (sums[0] + NORM_EPSILON)
            return False
        count, products = sums
        gram = products.div_(count)
        self._products, self._count = None, 0
        if self._capturing:
            self._capturing = False
            self.keep(gram)
            return False
        self.gram = gram
        squares, difference = self.compare(gram)
        entries = difference.numel()
        self._scale = self.weight(len(gram))
        self.value = squares * (self._scale / entries)
        # dG = 2 (G - T) / C^2 / (C H W), and the gradient is (dG + dG^T) F.
        d_gram = difference.mul_(2.0 / entries / count)
        self._both = d_gram.add_(d_gram.T.contiguous())  # (C, C)
        self._measuring = self.normalize
        return self._measuring

    def keep(self, gram: Tensor) -> None:
        """Take in the Gram matrix of one style image."""
        weighted = gram * self.blend_weight
        self.target = weighted if self.target is None else self.target.add_(weighted)

    def compare(self, gram: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the squared differences to the target, (), and half its derivative by `gram`, (C, C)."""
        assert self.target is not None, "no style was captured"
        difference = gram - self.target
        return difference.square().sum(), difference

    def weight(self, channels: int) -> float:
        """What the mean over the entries of a Gram matrix of `channels` is multiplied by."""
        return self.strength

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        """With G from the forward pass, and F as x is *now*."""
        if self._both is None:
            return
        flat = _pixels_by_channels(x)  # (H*W, C)
        both, scale = self._both, self._scale
        if isinstance(scale, Tensor):
            both, scale = both * scale, 1.0
        # The same memory, unless the feature maps are a part of larger ones or not channels-last.
        if grad.dim() == 2 or grad.is_contiguous(memory_format=torch.channels_last):
            grams.add_product(_pixels_by_channels(grad), flat, both, scale, tf32=self.tf32)
        else:
            own = grams.product(flat, both, tf32=self.tf32)
            own = own.view(grad.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            _add_scaled(grad, own, scale)

    def forget(self) -> None:
        self.target = None


class TVLoss(Loss):
    """Gradient of strength / 2 * (squared differences to the right and lower neighbour); an image loss without value.

    Only the upper left (H-1) x (W-1) block has both neighbours and counts: the last row has no horizontal term, the
    last column no vertical one. Johnson et al. (2016) describe it; the halves are neural_style.lua's.
    """

    reach = 1
    ROWS = 256  # worked on at a time, so that a large image needs no second one

    def __init__(self, name: str, strength: float) -> None:
        super().__init__(name)
        self.strength = strength

    def __str__(self) -> str:
        return "nn.TVLoss"

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        above, left = pixels_around(where, self.reach)
        x, grad = x[:, :, above:, left:], grad[:, :, above:, left:]
        last = x.shape[2] - 1
        for top in range(0, last, self.ROWS):
            bottom = min(top + self.ROWS, last)
            inner = x[:, :, top:bottom, :-1]
            across = inner - x[:, :, top:bottom, 1:]
            down = inner - x[:, :, top + 1 : bottom + 1, :-1]
            grad[:, :, top:bottom, :-1].add_(across + down, alpha=self.strength)
            grad[:, :, top:bottom, 1:].sub_(across, alpha=self.strength)
            grad[:, :, top + 1 : bottom + 1, :-1].sub_(down, alpha=self.strength)
