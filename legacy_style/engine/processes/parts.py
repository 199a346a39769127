"""One image that processes share: who owns and who holds what of it, how pixels and gradients travel.

Every process owns a rectangle of the image, where it has the image's values, its gradient and the optimiser's
vectors. For an evaluation it fetches what lies around it from the processes that own that, so that it holds
all that its losses look at, runs its tiles as one process alone would, and sends the gradient of what it does
not own back to the owners. Notes: rectangles are rows in full only where that takes the least halo;
images are read by process 0 alone, in the other processes they are tensors of the device "meta", which have a
shape and no content.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from legacy_style.engine import tiles
from legacy_style.engine.losses import Loss
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.tiles import Interval, Rectangle, Tile
from legacy_style.errors import OptionError
from legacy_style.torch7 import nn
from legacy_style.torch7.random import Generator


@dataclass(frozen=True)
class Layout:
    """What of a height x width image each process owns, and what it holds, halo included: by its number.

    There may be fewer rectangles than processes; the last ones then own nothing.
    """

    height: int
    width: int
    owned: list[Rectangle]
    held: list[Rectangle]


def partition(net: Network, height: int, width: int, count: int) -> Layout:
    """Cut an image into as many rectangles as can be, `count` at most, with the least that is held twice."""
    if not tiles.local(net.steps):
        whole = ((0, height), (0, width))
        return Layout(height, width, [whole], [whole])
    grids = (list(_grids(net, height, width, pieces)) for pieces in range(count, 0, -1))
    rows, columns = min(next(filter(None, grids)), key=_largest)
    pairs = [(row, column) for row in rows for column in columns]
    return Layout(
        height,
        width,
        [(row.own, column.own) for row, column in pairs],
        [(row.held, column.held) for row, column in pairs],
    )


@dataclass(frozen=True)
class _Strip:
    """What a part owns and holds along one axis."""

    own: Interval
    held: Interval


def _grids(net: Network, height: int, width: int, count: int) -> Iterator[tuple[list[_Strip], list[_Strip]]]:
    """All ways to cut an image into count = rows x columns rectangles; more rows first."""
    most = [len(tiles.cut(n, count, net.total_stride(axis))) for axis, n in ((0, height), (1, width))]
    for across in range(1, most[1] + 1):
        if count % across == 0 and count // across <= most[0]:
            yield _strips(net, 0, height, count // across), _strips(net, 1, width, across)


def _strips(net: Network, axis: int, n: int, count: int) -> list[_Strip]:
    windows = net.windows(axis)
    losses = [not isinstance(step, nn.Layer) for step in net.steps]
    strips = []
    for own in tiles.cut(n, count, net.total_stride(axis)):
        low, high = tiles.axis(windows, losses, n, own).held
        first, last = max(own[0] - net.reach, 0), min(own[1] + net.reach, n)
        strips.append(_Strip(own, (min(low, first), max(high, last))))
    return strips


def _largest(grid: tuple[list[_Strip], list[_Strip]]) -> int:
    return math.prod(max(strip.held[1] - strip.held[0] for strip in strips) for strips in grid)


class Part:
    """This process's part of an image: what it owns, what it holds, and how that comes and goes."""

    def __init__(self, ranks: Ranks, layout: Layout) -> None:
        self.ranks, self.layout = ranks, layout
        nothing = ((0, 0), (0, 0))
        has_one = ranks.rank < len(layout.owned)
        self.owned = layout.owned[ranks.rank] if has_one else nothing
        self.held = layout.held[ranks.rank] if has_one else nothing

    def scatter(self, image: Tensor, *, halo: bool) -> Tensor:
        """What this process owns, or with `halo` holds, of an image (1, 3, H, W) on the CPU.

        Only that of process 0 is looked at; the others tell its type.
        """
        parts = self.layout.held if halo else self.layout.owned
        if self.ranks.rank == 0:
            for peer, part in enumerate(parts[1:], 1):
                self.ranks.send(_cut(image, part, within=self._whole), peer)
            return _cut(image, parts[0], within=self._whole).clone(memory_format=torch.contiguous_format)
        mine = self.held if halo else self.owned
        received = torch.empty((1, 3, *_size(mine)), dtype=image.dtype)
        return self.ranks.receive(received, 0) if received.numel() else received

    def gather(self, owned: Tensor) -> Tensor:
        """The whole image on the CPU in process 0; in the others what they own."""
        owned = owned.cpu()
        if self.ranks.size == 1:
            return owned
        if self.ranks.rank > 0:
            if owned.numel():
                self.ranks.send(owned, 0)
            return owned
        whole = owned.new_empty(1, 3, self.layout.height, self.layout.width)
        for peer, part in enumerate(self.layout.owned):
            piece = owned if peer == 0 else self.ranks.receive(owned.new_empty(1, 3, *_size(part)), peer)
            _cut(whole, part, within=self._whole).copy_(piece)
        return whole

    def fetch_halo(self, owned: Tensor) -> Tensor:
        """What this process holds, (1, 3, h, w) on the device of `owned`, from all that own some of it."""
        held = owned.new_empty(1, 3, *_size(self.held))
        _cut(held, self.owned, within=self.held).copy_(owned)
        outgoing = {
            peer: _cut(owned, common, within=self.owned).contiguous() for peer, common in self._lent()
        }
        incoming = {peer: owned.new_empty(1, 3, *_size(common)) for peer, common in self._borrowed()}
        self.ranks.exchange(outgoing, incoming)
        for peer, common in self._borrowed():
            _cut(held, common, within=self.held).copy_(incoming[peer])
        return held

    def reduce_halo(self, grad: Tensor) -> Tensor:
        """The gradient of what this process owns, from those of what all processes hold."""
        owned = _cut(grad, self.owned, within=self.held).contiguous()
        outgoing = {
            peer: _cut(grad, common, within=self.held).contiguous() for peer, common in self._borrowed()
        }
        incoming = {peer: grad.new_empty(1, 3, *_size(common)) for peer, common in self._lent()}
        self.ranks.exchange(outgoing, incoming)
        for peer, common in self._lent():
            _cut(owned, common, within=self.owned).add_(incoming[peer])
        return owned

    def noise(self, seed: float) -> Tensor:
        """What this process owns of an image of normals (1, 3, H, W), as one process alone would draw it.

        A negative seed stands for one from the system's entropy, the same in all processes.
        """
        if seed < 0:
            (seed,) = self.ranks.broadcast([int.from_bytes(os.urandom(4), "little")])
        generator = Generator(seed)
        (top, bottom), (left, right) = self.owned
        height, width = self.layout.height, self.layout.width
        noise = np.empty((3, bottom - top, right - left), np.float32)
        for plane in noise:
            generator.skip(top * width)
            for line in plane:
                generator.skip(left)
                line[:] = generator.randn(right - left)
                generator.skip(width - right)
            generator.skip((height - bottom) * width)
        return torch.from_numpy(noise).unsqueeze(0)

    @property
    def _whole(self) -> Rectangle:
        return (0, self.layout.height), (0, self.layout.width)

    def _borrowed(self) -> Iterator[tuple[int, Rectangle]]:
        """What this process holds of others, by their numbers."""
        return self._common(self.held, self.layout.owned)

    def _lent(self) -> Iterator[tuple[int, Rectangle]]:
        """What others hold of this process, by their numbers."""
        return self._common(self.owned, self.layout.held)

    def _common(self, mine: Rectangle, parts: list[Rectangle]) -> Iterator[tuple[int, Rectangle]]:
        for peer, theirs in enumerate(parts):
            rows, columns = ((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(mine, theirs, strict=True))
            if peer != self.ranks.rank and rows[0] < rows[1] and columns[0] < columns[1]:
                yield peer, (rows, columns)


def _size(rectangle: Rectangle) -> tuple[int, int]:
    (top, bottom), (left, right) = rectangle
    return bottom - top, right - left


def _cut(image: Tensor, rectangle: Rectangle, *, within: Rectangle) -> Tensor:
    """A view of `rectangle` in `image`, which is the rectangle `within`."""
    (top, bottom), (left, right) = rectangle
    (first_row, _), (first_column, _) = within
    return image[:, :, top - first_row : bottom - first_row, left - first_column : right - first_column]


class SharedObjective(Objective):
    """An objective that processes share: takes and returns what this one owns; losses are those of the whole.

    `own_tiles` are this process's, in the whole image's coordinates.
    """

    def __init__(self, network: Network, part: Part, own_tiles: list[Tile]) -> None:
        (top, _), (left, _) = part.held
        super().__init__(
            network,
            [
                replace(tile, vertical=tile.vertical.moved(-top), horizontal=tile.horizontal.moved(-left))
                for tile in own_tiles
            ],
            reduce=part.ranks.all_reduce,
            own=part.owned,
            held=part.held,
        )
        self.part = part

    def capture(self, image: Tensor, losses: Sequence[Loss]) -> None:
        """Take the targets from `image`, whole in process 0, of any content in the others."""
        super().capture(self.part.scatter(image, halo=True), losses)

    def launch(self, image: Tensor) -> tuple[Tensor, Tensor]:
        values, grad = super().launch(self.part.fetch_halo(image))
        return values, self.part.reduce_halo(grad)

    def gather(self, image: Tensor) -> Tensor:
        """The whole image on the CPU in process 0; in the others what they own."""
        return self.part.gather(image)


def objective(net: Network, height: int, width: int, side: int, ranks: Ranks) -> SharedObjective:
    """The function to minimise, for images of height x width; each part in tiles of `side` if not 0."""
    layout = partition(net, height, width, ranks.size)
    return SharedObjective(net, Part(ranks, layout), own_tiles(net, layout, ranks.rank, side))


def own_tiles(net: Network, layout: Layout, rank: int, side: int) -> list[Tile]:
    """The tiles of process `rank`: its rectangle in pieces of about side x side, in one if that is 0."""
    if rank >= len(layout.owned):
        return []
    return net.tiles(layout.height, layout.width, side, layout.owned[rank])


def held(net: Network, height: int, width: int, ranks: Ranks) -> tuple[int, int]:
    """Height and width of what this process holds of an image; of the first part where it holds nothing."""
    if ranks.size == 1:
        return height, width
    parts = partition(net, height, width, ranks.size).held
    return _size(parts[min(ranks.rank, len(parts) - 1)])


def check(net: Network, height: int, width: int, ranks: Ranks) -> None:
    """Raise OptionError where there are more processes than parts that the content image can be cut into."""
    if ranks.size == 1:
        return
    layout = partition(net, height, width, ranks.size)
    if len(layout.owned) == ranks.size:
        return
    if not tiles.local(net.steps):
        raise OptionError(
            "the network has layers that look at the whole image, so that several processes cannot share it;"
            " start one process, or choose layers below those"
        )
    stride = max(net.total_stride(0), net.total_stride(1))
    raise OptionError(
        f"an image of {layout.width}x{layout.height} cannot be cut for {ranks.size} processes: parts begin at"
        f" multiples of {stride} pixels; start {len(layout.owned)} processes, or make the image larger"
    )
