"""A network as neural_style.lua has it: Caffe's layers with loss modules between them, cut after the last loss.

Ports neural_style.lua 07c4b82, main() (building) and setup_multi_gpu. A convolution and the in-place ReLU right behind
it are run as one step, unless a loss module stands between them and must see both. Losses on a convolution see its
output before the ReLU on the way forward and after it on the way back, as in the original, because the ReLU works in
place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial

import torch
from torch import Tensor

from legacy_style.engine import tiles
from legacy_style.engine.kernels import convolution, fused
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.losses import Loss
from legacy_style.engine.tiles import Rectangle, Tile
from legacy_style.errors import OptionError
from legacy_style.torch7 import nn

Log = Callable[[str], None]

Hook = Callable[[Loss, Tensor, Rectangle], None]
"""Is called for a loss with its own part of the feature maps and where in the whole map that lies."""


@dataclass
class Kept:
    """What a forward pass leaves for the backward pass: every layer's input, and its output before cropping.

    At the end of `outputs` stands one more, what the last layer left after cropping.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class Network:
    """Layers and losses in order. `listing` is what print(net) shows; `steps` what is run.

    `image_losses` look at the image itself, `losses` at feature maps.
    """

    def __init__(self, modules: Sequence[nn.Layer | Loss], image_losses: Sequence[Loss] = ()) -> None:
        self.image_losses = list(image_losses)
        self.listing: list[object] = [*image_losses, *modules]
        self.chunks: list[tuple[int, list[object]]] | None = None  # (GPU from 1, its part of the listing)
        self.steps = _fuse(modules)
        self.losses = [step for step in self.steps if isinstance(step, Loss)]
        self.layers = [step for step in self.steps if isinstance(step, nn.Layer)]
        names = sorted(loss.name for loss in (*self.losses, *image_losses))
        if len(set(names)) < len(names):
            raise ValueError(f"two losses have the same name: {names}")
        self.dtype, self.tf32 = torch.float32, False
        self.autotune = False  # whether cuDNN times its algorithms first
        self._exact: list[dict[str, object]] = []  # the weights as they were before `compute_in`

    @property
    def reach(self) -> int:
        """How many pixels beyond its own a part of the image needs for the image losses."""
        return max((loss.reach for loss in self.image_losses), default=0)

    def losses_from(self, source: str) -> list[Loss]:
        """The losses that take their targets from the image `source`."""
        return [loss for loss in (*self.losses, *self.image_losses) if loss.source == source]

    def values_from(self, source: str, values: Mapping[str, float]) -> tuple[float, ...]:
        """Of the `values` of an evaluation, those of the losses that take their targets from the image `source`."""
        return tuple(values[loss.name] for loss in self.losses_from(source) if loss.name in values)

    def compute_in(self, dtype: torch.dtype, *, tf32: bool = False) -> None:
        """Let the layers, which are in place, compute in `dtype` from now on; their exact weights are kept.

        With `tf32`, convolutions of float32 may round what they multiply to TF32, on GPUs that have it.
        """
        if (dtype, tf32) == (self.dtype, self.tf32):
            return
        if not self._exact:
            names = ("weight", "bias", "weights")
            self._exact = [
                {name: getattr(layer, name) for name in names if hasattr(layer, name)}
                for layer in self.layers
            ]
        self.dtype, self.tf32 = dtype, tf32
        for loss in self.losses:
            loss.tf32 = tf32
        for layer, exact in zip(self.layers, self._exact, strict=True):
            vars(layer).update(exact)
            self.put(layer, layer.device)

    def put(self, layer: nn.Layer, device: torch.device) -> None:
        """Move a layer to `device`, and choose how it computes there."""
        layer.to(device, self.dtype_of(layer))
        if isinstance(layer, nn.SpatialConvolution):
            narrow = self.dtype if self.dtype_of(layer) != self.dtype else None
            convolution.install(layer, tf32=self.tf32, narrow=narrow)
        elif isinstance(layer, nn.SpatialMaxPooling):
            fused.install(layer)

    def dtype_of(self, layer: nn.Layer) -> torch.dtype:
        """What `layer` computes in. The first: float32 at least, for the image's 0..255 need more than the 8 bits of
        bfloat16, and it costs little; on the way back it may be the network's.
        """
        first = self.layers and layer is self.layers[0]
        return torch.promote_types(self.dtype, torch.float32) if first else self.dtype

    def windows(self, axis: int) -> list[nn.Window]:
        """What every step looks at along one axis (0: vertical, 1: horizontal); losses look at their input's points."""
        return [
            (step.windows or nn.POINT)[axis] if isinstance(step, nn.Layer) else nn.Window()
            for step in self.steps
        ]

    def total_stride(self, axis: int) -> int:
        """How many pixels of the image a step along the axis in the deepest feature maps is."""
        return tiles.total_stride(self.windows(axis))

    def tiles(self, height: int, width: int, side: int, own: Rectangle | None = None) -> list[Tile]:
        """The tiles of a height x width image that make up `own`, the whole if None: of about side x side pixels each,
        one for all if `side` is 0.
        """
        losses = [isinstance(step, Loss) for step in self.steps]
        plans = []
        for axis, n in enumerate((height, width)):
            start, stop = own[axis] if own else (0, n)
            pieces = -(-(stop - start) // side) if side else 1
            parts = tiles.cut(stop - start, pieces, self.total_stride(axis))
            windows = self.windows(axis)
            plans.append([tiles.axis(windows, losses, n, (a + start, b + start)) for a, b in parts])
        pairs = ((vertical, horizontal) for vertical in plans[0] for horizontal in plans[1])
        return [Tile(vertical, horizontal) for vertical, horizontal in pairs]

    def prepare(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) as the first layer likes it: on its device, channels-last."""
        device = self.layers[0].device if self.layers else image.device
        # A copy in any case: a network that begins with an in-place ReLU must not change the image.
        dtype = torch.promote_types(self.dtype, torch.float32)  # even where the layers compute in bfloat16
        moved = torch.empty(image.shape, dtype=dtype, device=device, memory_format=torch.channels_last)
        return moved.copy_(image)

    def forward(
        self,
        x: Tensor,
        tile: Tile | None = None,
        *,
        hook: Hook | None = None,
        keep: bool,
    ) -> Kept:
        """Run `x` through all steps; `hook` gets the feature maps of each loss as they are then.

        With `keep`, returns what `backward` needs.
        """
        kept = Kept()
        for i, step in enumerate(self.steps[: _depth(tile, len(self.steps))]):
            if not isinstance(step, nn.Layer):
                if hook is not None:
                    hook(step, _own(x, tile, i), _where(x, tile, i))
                continue
            y = step.forward(x.to(step.device))
            if keep:
                kept.inputs.append(x)  # where the losses in front of the layer look at it
                kept.outputs.append(y)
            x = _crop(y, tile, i)
        if keep:
            kept.outputs.append(x)
        return kept

    def replay(self, kept: Kept, tile: Tile | None, hook: Hook) -> None:
        """Call `hook` as a backward pass would: with the feature maps as they are after the whole forward pass."""
        inputs = iter([*kept.inputs, kept.outputs[-1]])
        x = next(inputs)
        for i, step in enumerate(self.steps[: _depth(tile, len(self.steps))]):
            if isinstance(step, nn.Layer):
                x = next(inputs)
            else:
                hook(step, _own(x, tile, i), _where(x, tile, i))

    def without_maps(self, losses: Iterable[Loss], hook: Hook) -> None:
        """Call `hook` with maps without pixels for those of the `losses` that have no part of the image here."""
        channels, device, left = 3, torch.device("cpu"), list(losses)
        for step in self.steps:
            if isinstance(step, nn.SpatialConvolution):
                channels, device = step.weight.shape[0], step.device
            elif isinstance(step, Loss) and step in left:
                hook(step, torch.empty((1, channels, 0, 0), device=device), ((0, 0), (0, 0)))

    def backward(self, kept: Kept, tile: Tile | None = None) -> Tensor:
        """The gradient of all losses with respect to the input; consumes `kept`, freeing it layer by layer."""
        x = kept.outputs.pop()
        grad, masked = torch.zeros_like(x), False  # by the layer behind
        for i in range(_depth(tile, len(self.steps)) - 1, -1, -1):
            step = self.steps[i]
            if not isinstance(step, nn.Layer):
                step.backward(_own(x, tile, i), _own(grad, tile, i), _where(x, tile, i))
                masked = False
                continue
            y = kept.outputs.pop()
            x = kept.inputs.pop()
            given = x.to(step.device), y, _uncrop(grad, y, tile, i)
            if masked and isinstance(step, nn.SpatialConvolution):
                grad = step.backward(*given, masked=True)
            else:
                grad = step.backward(*given)
            grad = grad.to(x.device, x.dtype)
            masked = isinstance(step, nn.SpatialMaxPooling) and step.backwards is not None
            del given, y  # before the loss in front of this layer takes memory of its own
        return grad

    def __str__(self) -> str:
        """What print(net) shows."""
        if self.chunks is None:
            return _listing(self.listing)
        return _listing(
            [f"nn.GPU({gpu}) @ " + _listing(part).replace("\n", "\n  ") for gpu, part in self.chunks]
        )


def _depth(tile: Tile | None, steps: int) -> int:
    return steps if tile is None else min(tile.vertical.depth, tile.horizontal.depth)


def _own(x: Tensor, tile: Tile | None, i: int) -> Tensor:
    if tile is None:
        return x
    (top, bottom), (left, right) = tile.vertical.owned[i], tile.horizontal.owned[i]
    return x[:, :, top:bottom, left:right]


def _where(x: Tensor, tile: Tile | None, i: int) -> Rectangle:
    if tile is not None:
        return tile.vertical.where[i], tile.horizontal.where[i]
    return ((0, x.shape[2]), (0, x.shape[3])) if x.dim() == 4 else ((0, 1), (0, 1))


def _crop(y: Tensor, tile: Tile | None, i: int) -> Tensor:
    if tile is None or (tile.vertical.crops[i] is None and tile.horizontal.crops[i] is None):
        return y
    (top, bottom), (left, right) = _crops(y, tile, i)
    return y[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)


def _uncrop(grad: Tensor, y: Tensor, tile: Tile | None, i: int) -> Tensor:
    if grad.shape == y.shape:
        return grad
    assert tile is not None
    (top, bottom), (left, right) = _crops(y, tile, i)
    whole = torch.zeros_like(y)
    whole[:, :, top:bottom, left:right] = grad
    return whole


def _crops(y: Tensor, tile: Tile, i: int) -> tuple[tiles.Interval, tiles.Interval]:
    return (tile.vertical.crops[i] or (0, y.shape[2])), (tile.horizontal.crops[i] or (0, y.shape[3]))


def _fuse(modules: Sequence[nn.Layer | Loss]) -> list[nn.Layer | Loss]:
    steps: list[nn.Layer | Loss] = []
    for module in modules:
        previous = steps[-1] if steps else None
        if (
            isinstance(module, nn.ReLU)
            and isinstance(previous, nn.SpatialConvolution)
            and not previous.rectify
        ):
            previous.rectify = True
        elif not isinstance(module, nn.Dropout):
            steps.append(module)
    layers = [step for step in steps if isinstance(step, nn.Layer)]
    for before, layer in itertools.pairwise(layers):
        if isinstance(layer, nn.SpatialMaxPooling):
            rectifies = isinstance(before, nn.SpatialConvolution) and before.rectify
            layer.rectified = rectifies or isinstance(before, nn.ReLU)
    return steps


def _listing(modules: Sequence[object]) -> str:
    """nn.Sequential's __tostring__."""
    arrows = " -> ".join(["input", *(f"({i + 1})" for i in range(len(modules))), "output"])
    lines = [f"  ({i + 1}): {module}" for i, module in enumerate(modules)]
    return "\n".join([f"nn.Sequential {{\n  [{arrows}]", *lines, "}"])


def build(
    chain: Sequence[Module],
    losses: Mapping[str, Sequence[Loss]],
    image_losses: Sequence[Loss] = (),
    *,
    log: Log = lambda line: None,
) -> Network:
    """The network up to the last loss, built from `chain` layer by layer; what lies above is never read.

    `losses` stand behind the layer that they are given for, `image_losses` look at the image; all have names of their
    own. `log` takes the lines that the original prints. Raises OptionError for a layer that the chain has not.
    """
    names = [module.name for module in chain]
    for name in losses:
        if name not in names:
            raise OptionError(f"the model has no layer {name!r}; {suggestion(name, names)}")
    left = {name: some for name, some in losses.items() if some}
    modules: list[nn.Layer | Loss] = []
    for index, module in enumerate(chain, 1):
        if not left:
            break
        modules.append(module.build())
        for loss in left.pop(module.name, ()):
            log(f"Setting up {loss.source + ' layer':13}\t{index}\t:\t{module.name}\t")
            modules.append(loss)
    return Network(modules, image_losses)


def suggestion(name: str, names: Sequence[str]) -> str:
    """Which of a model's layers `name` may stand for, and which there are."""
    near = get_close_matches(name, names, n=1, cutoff=0.4) or get_close_matches(name.strip(), names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"Its layers are {', '.join(names)}"


def replace_pooling(
    chain: Sequence[Module], replacement: Callable[[nn.Pooling, int], nn.Layer]
) -> list[Module]:
    """`chain` with `replacement(layer, number)` for every pooling layer, `number` counting all layers from 1."""

    def build(module: Module, number: int) -> nn.Layer:
        layer = module.build()
        return replacement(layer, number) if isinstance(layer, nn.Pooling) else layer

    return [replace(module, build=partial(build, module, number)) for number, module in enumerate(chain, 1)]


def pool_rounding_up(
    kind: type[nn.SpatialMaxPooling | nn.SpatialAveragePooling],
) -> Callable[[nn.Pooling, int], nn.Layer]:
    """For `replace_pooling`: pooling of `kind`, sizes rounded up, so that windows over the border take what is in."""
    return lambda layer, number: kind(layer.name, layer.kernel, layer.stride, layer.pad)


# setup_multi_gpu: where the network is split when -multigpu_strategy is not given; one more with a TV module.
_DEFAULT_SPLITS = {2: [3]}


def place(
    network: Network,
    devices: Sequence[torch.device],
    splits: Sequence[int] | None = None,
    gpus: Sequence[int] = (),
) -> None:
    """Put the layers on `devices`, split after the modules of these numbers, None for the original's choice.

    Modules count from 1 as in print(net), the TV module included. A device may be named several times. `gpus` are
    the numbers that print(net) shows, from 1. Raises OptionError where pieces and devices are not as many.
    """
    if len(devices) == 1:
        splits = ()
    elif splits is None:
        if len(devices) not in _DEFAULT_SPLITS:
            raise OptionError(
                f"-multigpu_strategy must be given for {len(devices)} GPUs: the layers after which to split, for"
                " example 3,6"
            )
        splits = [split + len(network.image_losses) for split in _DEFAULT_SPLITS[len(devices)]]
    parts: list[list[object]] = [[]]
    for number, module in enumerate(network.listing, 1):
        parts[-1].append(module)
        if len(parts) <= len(splits) and number == splits[len(parts) - 1]:
            parts.append([])
    if len(parts) != len(devices):
        raise OptionError(
            f"-multigpu_strategy {','.join(map(str, splits))} splits the network's {len(network.listing)} layers into"
            f" {len(parts)} parts, but {len(devices)} GPUs are given; give {len(devices) - 1} rising layer numbers"
        )
    for device, part in zip(map(_numbered, devices), parts, strict=True):
        for module in part:
            if isinstance(module, nn.Layer):
                network.put(module, device)
    if len(devices) > 1:
        numbers = list(gpus) or [i + 1 for i in range(len(devices))]
        network.chunks = list(zip(numbers, parts, strict=True))


def _numbered(device: torch.device) -> torch.device:
    """`device`, which may be "cuda" alone, as tensors there tell it."""
    unnumbered = device.type == "cuda" and device.index is None
    return torch.device("cuda", torch.cuda.current_device()) if unnumbered else device
