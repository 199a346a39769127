"""The function that is minimised: total loss and image gradient, of the image as a whole or in tiles.

Ports the `feval` of neural_style.lua 07c4b82 as far as it computes. In one piece, losses are taken on the way forward
and their gradients on the way back. In tiles, a first sweep adds up Gram matrices and losses over all tiles, and a
second one computes each tile again and sends the gradient back, which is exactly the gradient of the whole image;
-normalize_gradients takes a sweep more, for the norms. Memory is bounded by the largest tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from legacy_style.engine.losses import Loss, Mode, Reduce
from legacy_style.engine.network import Kept, Network
from legacy_style.engine.tiling import Tile


def alone(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over all processes, where there is but one."""
    return tensors


class Objective:
    """`network`'s losses and their gradient at images of one size; `tiles` is None for the image in one piece.

    Where processes share an image, each has some of its tiles, `reduce` adds up over all processes, and `smoothed` are
    the rows and columns whose total variation this one sees to.
    """

    def __init__(
        self,
        network: Network,
        tiles: Sequence[Tile] | None = None,
        *,
        reduce: Reduce = alone,
        smoothed: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        self.network = network
        self.tiles: list[Tile | None] = [None] if tiles is None else list(tiles)
        self.reduce, self.smoothed = reduce, smoothed

    def capture(self, image: Tensor, *, content: bool, blend_weight: float = 1.0) -> None:
        """Take the targets from `image` (1, 3, H, W): content's feature maps, or style's Gram matrices, blended in."""
        modes: tuple[Mode, Mode] = ("capture", "none") if content else ("none", "capture")
        for loss in self.network.content_losses:
            loss.mode = modes[0]
        for style_loss in self.network.style_losses:
            style_loss.mode = modes[1]
            style_loss.blend_weight = blend_weight
        self._sweep(image, keep=False)

    def __call__(self, image: Tensor) -> tuple[list[float], list[float], Tensor]:
        """Content losses, style losses, and the gradient (1, 3, H, W) at `image`, of its type, contiguous."""
        for loss in self.network.losses:
            loss.mode = "loss"
        # Of a single tile, the first pass is kept for the way back; of several, each is computed again.
        network, whole = self.network, len(self.tiles) == 1
        kept = self._sweep(image, keep=whole)
        if any(loss.normalize for loss in network.losses):
            for tile in self.tiles:
                again = kept if whole else network.forward(self._part(image, tile), tile, keep=True)
                index = 0 if tile is None else tile.index
                network.visit(again, tile, _norms(index))
            norms = torch.tensor([loss.norm for loss in network.losses], dtype=torch.float64)
            for loss, norm in zip(network.losses, self.reduce([norms])[0].tolist(), strict=True):
                loss.norm = norm
        grad = torch.zeros_like(image) if not whole or self.tiles[0] is not None else None
        for tile in self.tiles:
            again = kept if whole else network.forward(self._part(image, tile), tile, keep=True)
            part = network.backward(again, tile)
            if tile is None or grad is None:
                grad = part.to(image.device, image.dtype).contiguous()
            else:
                (top, bottom), (left, right) = tile.vertical.held, tile.horizontal.held
                grad[:, :, top:bottom, left:right] += part
        assert grad is not None
        if network.tv is not None:
            rows, columns = self.smoothed
            network.tv.backward(image[:, :, rows, columns], grad[:, :, rows, columns])
        return (
            [loss.loss for loss in network.content_losses],
            [loss.loss for loss in network.style_losses],
            grad,
        )

    def gather(self, image: Tensor) -> Tensor:
        """The whole image, of which this process may have but a part."""
        return image

    def _part(self, image: Tensor, tile: Tile | None) -> Tensor:
        if tile is not None:
            (top, bottom), (left, right) = tile.vertical.held, tile.horizontal.held
            image = image[:, :, top:bottom, left:right]
        return self.network.prepare(image)

    def _sweep(self, image: Tensor, *, keep: bool) -> Kept:
        for loss in self.network.losses:
            loss.restart()
        kept = Kept()
        for tile in self.tiles:
            index = 0 if tile is None else tile.index
            kept = self.network.forward(self._part(image, tile), tile, look=_taking_in(index), keep=keep)
        self.network.show_nothing()
        self._finish()
        return kept

    def _finish(self) -> None:
        """Add up over all processes, all losses in one go, and let each loss draw its conclusions."""
        sums = [loss.sums() for loss in self.network.losses]
        totals = iter(self.reduce([tensor for tensors in sums for tensor in tensors]))
        for loss, tensors in zip(self.network.losses, sums, strict=True):
            loss.finish([next(totals) for _ in tensors])


def _taking_in(index: int) -> Callable[[Loss, Tensor], None]:
    return lambda loss, x: loss.accumulate(x, index)


def _norms(index: int) -> Callable[[Loss, Tensor], None]:
    return lambda loss, x: loss.accumulate_norm(x, index)
