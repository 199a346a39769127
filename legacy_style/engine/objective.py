"""The function that is minimised: all losses and the image's gradient, of the image as a whole or in tiles.

Ports the `feval` of neural_style.lua 07c4b82 as far as it computes. In one piece, losses are taken on the way forward
and their gradients on the way back. In tiles, a first sweep adds up Gram matrices and losses over all tiles, and a
second one computes each tile again and sends the gradient back, which is exactly the gradient of the whole image;
a loss that must see all maps once more (-normalize_gradients) takes a sweep more. Memory is bounded by the largest
tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from legacy_style.engine.losses import Loss
from legacy_style.engine.machine import in_float32
from legacy_style.engine.network import Hook, Kept, Network
from legacy_style.engine.tiles import Rectangle, Tile

Reduce = Callable[[list[Tensor]], list[Tensor]]
"""Adds each tensor up over all processes that share the image; the identity where there is one process."""


def alone(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over all processes, where there is but one."""
    return tensors


def _tensor(value: float | Tensor, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)


class Objective:
    """`network`'s losses and their gradient at images of one size; `tiles` is None for the image in one piece.

    Where processes share an image, each has some of its tiles, and `reduce` adds up over all processes. The image that
    is evaluated is then the rectangle `held` of the whole, and this process's image losses are those of `own`.
    """

    def __init__(
        self,
        network: Network,
        tiles: Sequence[Tile] | None = None,
        *,
        reduce: Reduce = alone,
        own: Rectangle | None = None,
        held: Rectangle | None = None,
    ) -> None:
        self.network = network
        self.autotune = network.autotune
        self.tiles: list[Tile | None] = [None] if tiles is None else list(tiles)
        self.reduce, self.own, self.held = reduce, own, held

    @property
    def is_shared(self) -> bool:
        """Whether other processes have parts of the image."""
        return self.held is not None

    @in_float32
    def capture(self, image: Tensor, losses: Sequence[Loss]) -> None:
        """Let `losses` take their targets from `image` (1, 3, H, W)."""
        network = self.network
        for loss in losses:
            loss.begin()
        self._sweep(
            image,
            losses,
            lambda loss, x, where: loss.capture(x, where),
            lambda tile, hook: network.forward(self._part(image, tile), tile, hook=hook, keep=False),
        )
        self._finish(losses)

    def __call__(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """The values of the losses that have one, by name, and the gradient at `image`, (1, 3, H, W), of its type."""
        values, grad = self.launch(image)
        return self.named(values.tolist()), grad

    def named(self, values: Sequence[float]) -> dict[str, float]:
        """The `values` that were launched last, once they are read, by the names of their losses."""
        losses = [loss for loss in self._losses if loss.value is not None]
        for loss, value in zip(losses, values, strict=True):
            loss.value = value
        return {loss.name: value for loss, value in zip(losses, values, strict=True)}

    @property
    def _losses(self) -> list[Loss]:
        return [*self.network.losses, *self.network.image_losses]

    @in_float32
    def launch(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As a call, but the values stay on the image's device, (losses,) float64: nothing waits for it."""
        network, single = self.network, len(self.tiles) == 1

        def forward(tile: Tile | None, hook: Hook | None = None, *, keep: bool = True) -> Kept:
            return network.forward(self._part(image, tile), tile, hook=hook, keep=keep)

        def take(loss: Loss, x: Tensor, where: Rectangle) -> None:
            loss.accumulate(x, where)

        losses = self._losses
        for loss in losses:
            loss.begin()
        # Of a single tile, the first pass is kept for the way back; of several, each is computed again.
        kept = self._sweep(image, losses, take, lambda tile, hook: forward(tile, hook, keep=single))

        def again(tile: Tile | None, hook: Hook) -> Kept:
            passed = kept if single else forward(tile)
            network.replay(passed, tile, hook)
            return passed

        unfinished = self._finish(losses)
        while unfinished:
            self._sweep(image, unfinished, take, again)
            unfinished = self._finish(unfinished)
        grad = torch.zeros_like(image) if not single or self.tiles[0] is not None else None
        for tile in self.tiles:
            part = network.backward(kept if single else forward(tile), tile)
            if tile is None or grad is None:
                grad = part.to(image.device, image.dtype).contiguous()
            else:
                (top, bottom), (left, right) = tile.vertical.held, tile.horizontal.held
                grad[:, :, top:bottom, left:right] += part
        assert grad is not None
        for loss in network.image_losses:
            x, where = self._around_own(image, loss)
            loss.backward(x, self._around_own(grad, loss)[0], where)
        values = [_tensor(loss.value, image.device) for loss in losses if loss.value is not None]
        return torch.stack(values) if values else grad.new_empty(0, dtype=torch.float64), grad

    def gather(self, image: Tensor) -> Tensor:
        """The whole image, of which this process may have but a part."""
        return image

    def _part(self, image: Tensor, tile: Tile | None) -> Tensor:
        if tile is not None:
            (top, bottom), (left, right) = tile.vertical.held, tile.horizontal.held
            image = image[:, :, top:bottom, left:right]
        return self.network.prepare(image)

    def _around_own(self, image: Tensor, loss: Loss) -> tuple[Tensor, Rectangle]:
        """What an image loss looks at of an image or a gradient: a view, and where its own part lies in the whole."""
        if self.own is None or self.held is None:
            return image, ((0, image.shape[2]), (0, image.shape[3]))
        rows, columns = (
            slice(max(own[0] - loss.reach, held[0]) - held[0], min(own[1] + loss.reach, held[1]) - held[0])
            for own, held in zip(self.own, self.held, strict=True)
        )
        return image[:, :, rows, columns], self.own

    def _sweep(
        self, image: Tensor, losses: Sequence[Loss], take: Hook, run: Callable[[Tile | None, Hook], Kept]
    ) -> Kept:
        """`run` all tiles, and let `losses` take in what is theirs; returns what the last tile left."""
        left, kept = set(losses), Kept()

        def hook(loss: Loss, x: Tensor, where: Rectangle) -> None:
            if loss in losses:
                left.discard(loss)
                take(loss, x, where)

        for tile in self.tiles:
            kept = run(tile, hook)
        for loss in self.network.image_losses:
            hook(loss, *self._around_own(image, loss))
        self.network.without_maps(left, take)
        return kept

    def _finish(self, losses: Sequence[Loss]) -> list[Loss]:
        """Add up over all processes, all losses in one go; returns those that must see everything once more."""
        sums = [loss.sums() for loss in losses]
        totals = iter(self.reduce([tensor for tensors in sums for tensor in tensors]))
        done = [
            loss.finish([next(totals) for _ in tensors]) for loss, tensors in zip(losses, sums, strict=True)
        ]
        return [loss for loss, more in zip(losses, done, strict=True) if more]
