"""Style and content losses that look at regions of the picture: guided Gram matrices.

From Gatys, Ecker, Bethge, Hertzmann, Shechtman: Controlling Perceptual Factors in Neural Style Transfer (2017),
section 4. A guidance map T_r of a layer says, between 0 and 1, how far a position belongs to the region r. The Gram
matrix of a region is that of T_r F, divided by C times the sum of T_r^2, so that it does not depend on how large the
region is, and is the plain one where T_r is 1. The matrices of the picture's regions are held to those of the same
regions in the style images.

Notes: what a region counts is its share of the picture, the mean of T_r^2, where the paper leaves the weight open: a
region is then pulled at as strongly as the whole picture would be if it had that style, and one region that covers
everything gives neural_style.lua's loss. Guidance maps are set with `guide`, before the image that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from legacy_style.engine.losses import ContentLoss, StyleLoss, gram_matrix
from legacy_style.engine.tiles import Rectangle

_BLOCK = 2**22
"""Elements of feature maps that are multiplied by a guidance map at a time."""


class RegionContentLoss(ContentLoss):
    """strength * mean(w (x - target)^2), w being a weight for each position, and its gradient."""

    def __init__(self, name: str, strength: float, normalize: bool = False, source: str = "content") -> None:
        super().__init__(name, strength, normalize, source)
        self.weights = torch.empty(0)  # (h, w), float32

    def guide(self, weights: Tensor) -> None:
        """Set the weight of each position of the layer's maps, (h, w)."""
        self.weights = weights

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        difference = x - self.target[where]
        weights = self._weights(difference, where)
        if self._measuring:
            norm = difference.mul_(weights).abs().sum(dtype=torch.float64)
            self._add(norm * 2.0 / self._count)
            return
        self._add(difference.square_().mul_(weights).sum(dtype=torch.float64))

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        if self._scale is not None:
            difference = x - self.target[where]
            grad.add_(difference.mul_(self._weights(difference, where)).mul_(self._scale))

    def _weights(self, like: Tensor, where: Rectangle) -> Tensor:
        if self.weights.device != like.device:
            self.weights = self.weights.to(like.device)
        return self.weights[slice(*where[0]), slice(*where[1])].to(like.dtype)


class RegionStyleLoss(StyleLoss):
    """strength * sum over the regions r of share_r * mean((G_r - target_r)^2), and its gradient.

    A target is the mean of that region's Gram matrices in the style images that have it, weighted by `blend_weight`.
    A region that no style image has gets no style.
    """

    def __init__(self, name: str, strength: float, normalize: bool = False, source: str = "style") -> None:
        super().__init__(name, strength, normalize, source)
        self.maps = torch.empty(0)  # (regions, h, w), float32
        self._boxes: list[Rectangle] = []  # what of the layer's maps a region touches
        self._areas: list[float] = []  # sums of T_r^2
        self._targets: dict[int, tuple[float, Tensor]] = {}  # region -> blend weights, weighted Gram matrices
        self._pulls: dict[int, Tensor] = {}  # region -> what times T_r^2 F is the gradient, (C, C)
        self._regions: Tensor | None = (
            None  # (regions, C, C): (T_r F) (T_r F)^T of the rectangles seen so far
        )

    def guide(self, maps: Tensor) -> None:
        """Set the guidance maps of the image to come, (regions, h, w); those of a region that it has not are 0."""
        self.maps = maps
        self._boxes = [_box(each) for each in maps]
        self._areas = [each.square().sum(dtype=torch.float64).item() for each in maps]

    def begin(self) -> None:
        super().begin()
        self._regions = None

    def capture(self, x: Tensor, where: Rectangle) -> None:
        self._capturing = True
        self._add_up(x, where)

    def accumulate(self, x: Tensor, where: Rectangle) -> None:
        if not self._measuring:
            self._add_up(x, where)
            return
        own = torch.zeros_like(x, dtype=_at_least_float32(x))
        self._pull(x, own, where, 1.0)
        norm = own.abs().sum(dtype=torch.float64)
        self._norm = norm if self._norm is None else self._norm.add_(norm)

    def _add_up(self, x: Tensor, where: Rectangle) -> None:
        channels = x.shape[1]
        if self._regions is None:
            shape = (len(self.maps), channels, channels)
            self._regions = torch.zeros(shape, dtype=torch.float64, device=x.device)
        for region in range(len(self.maps)):
            for part, guide in self._parts(x, region, where):
                guided = part.to(_at_least_float32(x)) * guide
                self._regions[region] += gram_matrix(guided)

    def _parts(self, x: Tensor, region: int, where: Rectangle) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of `x`, which covers `where`, that the region touches, each with its guidance, (rows, columns)."""
        box = self._boxes[region]
        (top, bottom), (left, right) = (
            (max(a, low), min(b, high)) for (a, b), (low, high) in zip(box, where, strict=True)
        )
        if top >= bottom or left >= right:
            return
        if self.maps.device != x.device:
            self.maps = self.maps.to(x.device)
        rows = max(_BLOCK // (x.shape[1] * (right - left)), 1)
        columns = slice(left - where[1][0], right - where[1][0])
        for first in range(top, bottom, rows):
            last = min(first + rows, bottom)
            part = x[:, :, first - where[0][0] : last - where[0][0], columns]
            yield part, self.maps[region, first:last, left:right].to(_at_least_float32(x))

    def sums(self) -> list[Tensor]:
        """(T_r F) (T_r F)^T of all regions, (regions, C, C); or the L1 norm of the gradient, ()."""
        if self._measuring:
            assert self._norm is not None
            return [self._norm]
        assert self._regions is not None, "a loss without maps"
        return [self._regions]

    def finish(self, sums: list[Tensor]) -> bool:
        if self._measuring:
            return super().finish(sums)
        products, self._regions = sums[0], None
        channels = products.shape[1]
        grams = {r: products[r] / (channels * area) for r, area in enumerate(self._areas) if area > 0}
        if self._capturing:
            self._capturing = False
            for region, gram in grams.items():
                weight, total = self._targets.get(region, (0.0, torch.zeros_like(gram)))
                self._targets[region] = weight + self.blend_weight, total + self.blend_weight * gram
            return False
        positions = self.maps[0].numel()
        self._scale, self._pulls = self.weight(channels), {}
        value = products.new_zeros(())
        for region in grams.keys() & self._targets.keys():
            weight, total = self._targets[region]
            difference = grams[region] - total / weight
            share = self._areas[region] / positions
            value += self._scale * share * difference.square().mean()
            # The gradient of the mean is 4 (G - target) T_r^2 F / C^2 / (C area), and share / area is 1 / positions.
            self._pulls[region] = difference.add_(difference.T.contiguous()).mul_(
                2.0 / channels**3 / positions
            )
        self.value = value
        self._measuring = self.normalize
        return self._measuring

    def backward(self, x: Tensor, grad: Tensor, where: Rectangle) -> None:
        self._pull(x, grad, where, self._scale)

    def _pull(self, x: Tensor, grad: Tensor, where: Rectangle, scale: float | Tensor) -> None:
        """Add `scale` times the gradient of all regions, strength left out, to `grad`."""
        for region, pull in self._pulls.items():
            both = zip(self._parts(x, region, where), self._parts(grad, region, where), strict=True)
            for (part, guide), (target, _) in both:
                guided = part.to(guide.dtype) * guide.square()
                own = torch.einsum("nchw,cd->ndhw", guided, (pull * scale).to(guided.dtype))
                target.add_(own)

    def forget(self) -> None:
        self._targets = {}


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _box(map: Tensor) -> Rectangle:
    """The smallest rectangle outside of which `map` (h, w) is 0; an empty one where it is 0 everywhere."""
    some = map > 0
    edges = []
    for axis in (1, 0):
        positions = some.any(axis).nonzero()
        edges.append((int(positions[0]), int(positions[-1]) + 1) if len(positions) else (0, 0))
    return edges[0], edges[1]
