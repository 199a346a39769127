"""What a run will need, before it begins: memory, arithmetic, and the tiles that make it fit.

Memory is counted layer by layer, as the passes of `network.Network` hold it: every layer's output until the backward
pass has consumed it, two gradients at a time, the optimiser's vectors, the content targets. What the process holds
already is measured, not guessed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from legacy_style.engine import cgroups, machine, sizes, tiles
from legacy_style.engine.cards import WORKSPACES, Card
from legacy_style.engine.kernels import split, winograd
from legacy_style.engine.losses import Loss, StyleLoss
from legacy_style.engine.network import Network
from legacy_style.errors import OptionError
from legacy_style.torch7 import nn

# Sides of tiles to try, largest first: the larger, the less is computed twice.
_TILE_SIDES = (
    4096,
    3072,
    2048,
    1536,
    1280,
    1024,
    896,
    768,
    704,
    640,
    576,
    512,
    448,
    384,
    320,
    256,
    192,
    128,
    64,
)

# Of the memory that is free, this much may be planned for: the prediction is good to about a twentieth.
_USABLE = 0.95

# What the process's code takes once it computes, beyond what loading has touched (measured with PyTorch 2.13 on Linux).
_LIBRARIES = 130_000_000

# Freed feature maps stay in the heap of a run in one piece (`machine.keep_freed_memory`), and larger ones do not fit
# into the holes that smaller ones have left: this share of what feature maps take. Measured with glibc 2.36 at 256 to
# 2048 pixels with both optimisers, the peaks were 0.91 to 1.12 times as planned.
_HOLES = 0.6

ON_HOST = "What the optimiser keeps does not fit onto the GPU: it is in this computer's memory, and slower"

# A GPU's steps have the gradient in a place of their own and take intermediate vectors, and while one evaluation is
# under way the image of the one before it waits for its losses.
_VECTORS_OF_STEPS = 6

_FLOAT = 4  # bytes; whatever the precision, capturing and the first evaluations are float32, and the peak is theirs


@dataclass(frozen=True)
class Work:
    """One pass over an image or a tile: `peak` bytes of feature maps and gradients, `flops` of one forward pass."""

    peak: int
    flops: float


@dataclass(frozen=True)
class Plan:
    """How a run goes: `tile` is the side of the tiles, 0 for one piece; `memory` in bytes, by purpose."""

    height: int
    width: int
    tile: int
    tiles: int
    flops: float  # an evaluation, forward and backward
    overhead: float  # that, as a multiple of the arithmetic of the image in one piece
    memory: dict[str, int]
    available: int | None
    on_card: bool = False  # whether that is a GPU's
    pairs_on_host: bool = False  # whether what the optimiser keeps is in the computer's memory all the same

    @property
    def peak(self) -> int:
        return sum(self.memory.values())

    def __str__(self) -> str:
        pieces = "in one piece"
        if self.tile:
            pieces = (
                f"in {self.tiles} tiles of {self.tile} pixels, {self.overhead:.2f} times that of one piece"
            )
        free = "" if self.available is None else f" of {_giga(self.available)} that are there"
        return "\n".join(
            [
                f"image    {self.width}x{self.height}",
                f"work     {self.flops / 1e9:.0f} GFLOP an evaluation, {pieces}",
                f"memory   {_giga(self.peak)}{free}{' on the GPU' if self.on_card else ''}",
                *(f"         {_giga(size)} {purpose}" for purpose, size in self.memory.items()),
            ]
        )


def make(
    net: Network,
    height: int,
    width: int,
    styles: Sequence[tuple[int, int]],
    *,
    tile: int,
    vectors: Mapping[str, int],
    ways: Sequence[str],
    resident: int,
    available: int | None,
    card: Card | None = None,
    may_move: bool = False,
) -> Plan:
    """Plan a run; where `tile` is 0 and the image does not fit in one piece, choose tiles that do.

    With a `card`, on which the network is then, the plan is of its memory. Where it `may_move`, what the optimiser
    keeps goes to the computer's memory before tiles get so small that most of the arithmetic is done twice.

    `styles`: (height, width) of the style images. `vectors`: purpose -> number, what an optimiser keeps in vectors of
    the image's size. `ways`: what makes a run smaller, for the error message. `resident`: bytes that the process holds
    with the network loaded, without images; `available`: bytes that it may grow to, None if unknown. Raises OptionError
    where nothing fits.
    """
    sides: Sequence[int]
    if tile:
        sides = (tile,)
        _check_can_tile(net, tile)
    elif tiles.local(net.steps):
        # A tile as large as the image is one piece without holes in the heap.
        sides = list(dict.fromkeys(min(side, max(height, width)) for side in _TILE_SIDES))
        if card is not None:
            sides = [side for side in sides if _largest_map(net, [(side, side)]) <= _MOST_ON_CARD]
        if card is None or _largest_map(net, [(height, width), *styles]) <= _MOST_ON_CARD:
            sides = (0, *sides)
    else:
        sides = (0,)
    plans = []
    for side, on_host in _tries(sides, card is not None and may_move):
        plan = _with_tiles(net, height, width, styles, vectors, side, resident, available, card, on_host)
        if (
            on_host
            and available is not None
            and _vectors(vectors, height, width) > available * _USABLE - resident
        ):
            continue
        if plan.available is None or plan.peak <= plan.available * _USABLE:
            return plan
        plans.append(plan)
    if tile > 64:
        ways = (f"--tile {tile // 2}, or no --tile", *ways)
    raise OptionError(_does_not_fit(min(plans, key=lambda plan: plan.peak), ways))


_MOST_ON_CARD = 2**31 - 1
"""Values of a map that GPU libraries can number: beyond, cuDNN before 9.3 refuses, and PyTorch instead takes many times
the memory (pytorch/pytorch 95024, 134890); poolings have read elsewhere (52822, 84018).
"""

_LEAST_ON_CARD = 512
"""Smaller tiles than this are tried only after what the optimiser keeps has left the GPU."""


def _tries(sides: Sequence[int], may_move: bool) -> list[tuple[int, bool]]:
    """Sides of tiles, and whether the optimiser's vectors are in the computer's memory: the best first."""
    if not may_move:
        return [(side, False) for side in sides]
    large = [side for side in sides if side == 0 or side >= _LEAST_ON_CARD]
    small = [side for side in sides if side not in large]
    return [(side, on_host) for some in (large or small, small) for on_host in (False, True) for side in some]


def choose_tile(
    plan: Callable[[], Plan], asked: int, notice: Callable[[str], None], resumed: str = ""
) -> int:
    """`choose` for a run whose optimiser stays where the network is: the side of its tiles, 0 for one piece."""
    return choose(plan, asked, notice, resumed).tile


def choose(plan: Callable[[], Plan], asked: int, notice: Callable[[str], None], resumed: str = "") -> Plan:
    """What a run works by: its plan, of which `notice` is told.

    `asked`: the side that the run must have, 0 if the plan may decide. `resumed`: the checkpoint of the run that goes
    on, which keeps its own side. Raises OptionError where they do not fit into memory.
    """
    try:
        found = plan()
        fits = not resumed or found.tile == asked
    except OptionError:
        if not resumed:  # whose advice a resumed run cannot take
            raise
        fits = False
    if not fits:
        pieces = f"tiles of {asked} pixels" if asked else "one piece"
        raise OptionError(
            f"--resume {resumed}: that run was in {pieces}, for which there is not enough memory here now;"
            " resume it where there is more"
        )
    if found.tile and not asked:
        notice(f"The image is too large for one piece here: working in tiles of {found.tile} pixels")
    if found.pairs_on_host:
        notice(ON_HOST)
    if found.tile:
        machine.spare_memory()
    return found


def smaller_tile(net: Network, height: int, width: int, side: int) -> int | None:
    """The side of tiles below `side` (0: one piece), for a GPU that is full all the same; None where there is none."""
    if not tiles.local(net.steps):
        return None
    return next((each for each in _TILE_SIDES if each < (side or max(height, width))), None)


def _check_can_tile(net: Network, tile: int) -> None:
    """Raise OptionError where a layer takes the image in one piece only."""
    undivided = [layer for layer in net.layers if layer.windows is None]
    if undivided:
        # Caffe has no layer of its own for what flattens feature maps before InnerProduct.
        named = [layer.name for layer in undivided if not isinstance(layer, nn.View)] or [undivided[0].name]
        raise OptionError(
            f"--tile {tile}: the layer {named[0]} takes the whole image at once, which tiles do not have; leave"
            f" --tile out, or choose layers before {named[0]}"
        )


def _with_tiles(
    net: Network,
    height: int,
    width: int,
    styles: Sequence[tuple[int, int]],
    vectors: Mapping[str, int],
    side: int,
    resident: int,
    available: int | None,
    card: Card | None,
    on_host: bool,
) -> Plan:
    whole = work(net, _whole(net, height, width))
    peak, flops, count = whole.peak, 2 * whole.flops, 1
    if side:
        works = [work(net, lengths) for lengths in _tiles(net, height, width, side)]
        peak = max(work.peak for work in works)
        flops = 3 * sum(work.flops for work in works) if len(works) > 1 else 2 * works[0].flops
        count = len(works)
    for style in styles:
        pieces = _tiles(net, *style, side) if side else [_whole(net, *style)]
        peak = max(peak, max(work(net, lengths, forward_only=True).peak for lengths in pieces))
    vector = 3 * height * width * _FLOAT
    if card is None:
        memory = {"the program and its weights": resident + _LIBRARIES}
    else:
        memory = {"the weights": card.held, "workspaces of cuDNN and cuBLAS": WORKSPACES}
        available = card.available
    if on_host:
        memory["the image and its gradient"] = 3 * vector
    else:
        memory |= {purpose: count * vector for purpose, count in vectors.items()}
        if card is not None:
            memory["an iteration's intermediate vectors"] = _VECTORS_OF_STEPS * vector
    memory["content targets"] = _targets(net, height, width)
    memory["feature maps and their gradients"] = peak
    memory["convolution by Winograd"] = _scratch(net, [(height, width), *styles], side)
    if card is None and not side and all(layer.device.type == "cpu" for layer in net.layers):
        memory["holes in the heap"] = int(_HOLES * peak)
    if card is not None:
        memory["convolution in split numbers"] = _split_parts(net, [(height, width), *styles])
        memory["Gram matrices"] = _grams(net)
    overhead = flops / (2 * whole.flops)
    return Plan(height, width, side, count, flops, overhead, memory, available, card is not None, on_host)


def _vectors(vectors: Mapping[str, int], height: int, width: int) -> int:
    return sum(vectors.values()) * 3 * height * width * _FLOAT


def _split_parts(net: Network, images: Sequence[tuple[int, int]]) -> int:
    """What split.convolve holds at most, in bytes: three parts of the largest map, a band of it where it is large."""
    return _FLOAT * min(3 * _largest_map(net, images), split.BAND)


def _largest_map(net: Network, images: Sequence[tuple[int, int]]) -> int:
    """Values of the largest map that a convolution takes or gives, of any of the images in one piece."""
    return max(
        (
            max(before, after) * h * w
            for image in images
            for (step, before, after), (h, w, _, _) in zip(_channels(net), _whole(net, *image), strict=True)
            if isinstance(step, nn.SpatialConvolution)
        ),
        default=0,
    )


def _grams(net: Network) -> int:
    """Of each style loss: its target, the matrix, the gradient by it, and one on the way there; float64."""
    styles = (channels for step, _, channels in _channels(net) if isinstance(step, StyleLoss))
    return 4 * 8 * sum(channels**2 for channels in styles)


Lengths = list[tuple[int, int, int, int]]
"""For each step that runs: height and width of its output, before and after cropping."""


def _whole(net: Network, height: int, width: int) -> Lengths:
    outputs = [after for _, _, after in sizes.walk(net, height, width)]
    return [(h, w, h, w) for _, h, w in outputs]


def _channels(net: Network) -> Iterator[tuple[nn.Layer | Loss, int, int]]:
    """Every step with the channels of its input and output."""
    return ((step, before[0], after[0]) for step, before, after in sizes.walk(net, 1, 1))


def _tiles(net: Network, height: int, width: int, side: int) -> Iterator[Lengths]:
    return (tile_lengths(net, tile.vertical, tile.horizontal) for tile in net.tiles(height, width, side))


def tile_lengths(net: Network, vertical: tiles.Axis, horizontal: tiles.Axis) -> Lengths:
    """The outputs of the steps that run for one tile."""
    lengths: Lengths = []
    axes = ((vertical, net.windows(0)), (horizontal, net.windows(1)))
    for i in range(min(vertical.depth, horizontal.depth)):
        sizes = []
        for plan, windows in axes:
            raw = windows[i].size(plan.lengths[i])
            crop = plan.crops[i]
            sizes.append((raw, raw if crop is None else crop[1] - crop[0]))
        lengths.append((sizes[0][0], sizes[1][0], sizes[0][1], sizes[1][1]))
    return lengths


def work(net: Network, lengths: Lengths, *, forward_only: bool = False) -> Work:
    """Walk through both passes, adding up what is alive, in bytes: forward the outputs so far, backward those that are
    left; on top of them the gradient, and what a layer needs while it works. A layer's entry in `kept` is (input,
    output).
    """
    kept: list[tuple[int, int]] = []
    x = alive = peak = 0
    flops = 0.0
    for (step, before, after), (h, w, cropped_h, cropped_w) in zip(_channels(net), lengths, strict=False):
        if not isinstance(step, nn.Layer):
            continue
        if isinstance(step, nn.SpatialConvolution):
            kernel = step.weight.shape[2] * step.weight.shape[3] * step.weight.shape[1]
            flops += 2.0 * kernel * after * h * w
        y = _FLOAT * after * h * w
        x = x or _FLOAT * before * h * w
        if not kept:
            alive = x
        extra = (
            2 * y if isinstance(step, nn.SpatialMaxPooling) else 0
        )  # where the maxima are, eight bytes each
        peak = max(peak, alive + y + extra)
        kept.append((x, y))
        alive = x + y if forward_only else alive + y
        x = _FLOAT * after * cropped_h * cropped_w
        if (cropped_h, cropped_w) != (h, w):
            alive += x
            peak = max(peak, alive)
    if not forward_only:
        grad = x
        peak = max(peak, alive + grad)
        for (step, _, _), (x, y) in zip(
            reversed([entry for entry in _channels(net) if isinstance(entry[0], nn.Layer)][: len(kept)]),
            reversed(kept),
            strict=True,
        ):
            extra = 3 * y if isinstance(step, nn.SpatialMaxPooling) else 0
            peak = max(peak, alive + max(grad, y) + x + extra)
            alive, grad = alive - y, x
    return Work(peak, flops)


def _targets(net: Network, height: int, width: int) -> int:
    total = 0
    for (step, _, channels), (h, w, _, _) in zip(_channels(net), _whole(net, height, width), strict=True):
        if isinstance(step, Loss) and step.keeps_maps:
            total += channels * h * w * _FLOAT
    return total


def _scratch(net: Network, images: Sequence[tuple[int, int]], side: int) -> int:
    """What winograd.Scratch grows to, in bytes: each of its arrays to what the layer that takes most of it takes."""
    largest: dict[str, int] = {}
    for height, width in images:
        for lengths in _tiles(net, height, width, side) if side else [_whole(net, height, width)]:
            for (step, before, after), (h, w, _, _) in zip(_channels(net), lengths, strict=False):
                if not isinstance(step, nn.SpatialConvolution) or not winograd.pays(h, w):
                    continue
                if winograd.suits(step.weight, step.pad):
                    for channels in ((before, after), (after, before)):
                        for name, size in winograd.scratch_sizes(*channels, h, w).items():
                            largest[name] = max(largest.get(name, 0), size)
    return _FLOAT * sum(largest.values())


def _does_not_fit(plan: Plan, ways: Sequence[str]) -> str:
    details = ", ".join(f"{_giga(size)} {purpose}" for purpose, size in plan.memory.items())
    assert plan.available is not None
    return (
        f"this run would take {_giga(plan.peak)} of memory, and {_giga(plan.available)} are there ({details});"
        f" what makes it fit: {'; or '.join(ways)}"
    )


def _giga(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def resident_memory() -> int:
    """Bytes of physical memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """Bytes of physical memory that this process has held at most; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        return 0


def available_memory(processes: int = 1) -> int | None:
    """Bytes that this process may grow to, what it holds included; None where the system does not tell.

    What is free is for `processes` of the kind.
    """
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024 + resident_memory())
    except (OSError, ValueError):
        return None
    limits += [free + resident_memory() for free in cgroups.free_memory()]
    if not limits:
        return None
    return resident_memory() + (min(limits) - resident_memory()) // processes
