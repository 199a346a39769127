"""The network of neural_style.lua: Caffe's layers with the loss modules between them, cut after the last loss.

Ports neural_style.lua 07c4b82, main() (building) and setup_multi_gpu. A convolution and the in-place ReLU right behind
it are run as one step, unless a loss module stands between them and must see both. Losses on a convolution see its
output before the ReLU on the way forward and after it on the way back, as in the original, because the ReLU works in
place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial

import torch
from torch import Tensor

from legacy_style.engine import tiling
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.losses import ContentLoss, Loss, StyleLoss, TVLoss
from legacy_style.engine.tiling import Tile
from legacy_style.errors import OptionError
from legacy_style.torch7 import nn
from legacy_style.torch7.cmdline import split_list

Log = Callable[[str], None]


@dataclass
class Kept:
    """What a forward pass leaves for the backward pass: every layer's input, and its output before cropping.

    At the end of `outputs` stands one more, what the last layer left after cropping.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class Network:
    """Layers and losses in order. `listing` is what print(net) shows; `steps` what is run."""

    def __init__(self, modules: Sequence[nn.Layer | Loss], tv: TVLoss | None) -> None:
        self.tv = tv
        self.listing: list[object] = ([tv] if tv else []) + list(modules)
        self.chunks: list[tuple[int, list[object]]] | None = None  # (GPU from 1, its part of the listing)
        self.steps = _fuse(modules)
        self.content_losses = [step for step in self.steps if isinstance(step, ContentLoss)]
        self.style_losses = [step for step in self.steps if isinstance(step, StyleLoss)]
        self.layers = [step for step in self.steps if isinstance(step, nn.Layer)]
        self.dtype = torch.float32

    @property
    def losses(self) -> list[Loss]:
        """All losses in the order in which they are printed and summed: content, then style."""
        return [*self.content_losses, *self.style_losses]

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let the layers, which are in place, compute in `dtype` from now on; there is no way back, for weights are
        rounded.
        """
        if dtype != self.dtype:
            self.dtype = dtype
            for layer in self.layers:
                layer.to(layer.device, self.dtype_of(layer))

    def dtype_of(self, layer: nn.Layer) -> torch.dtype:
        """What `layer` computes in. The first: float32 at least, for the image's 0..255 need more than the 8 bits of
        bfloat16, and it costs little.
        """
        first = self.layers and layer is self.layers[0]
        return torch.promote_types(self.dtype, torch.float32) if first else self.dtype

    def windows(self, axis: int) -> list[nn.Window]:
        """What every step looks at along one axis (0: vertical, 1: horizontal); losses look at their input's points."""
        return [
            (step.windows or nn.POINT)[axis] if isinstance(step, nn.Layer) else nn.Window()
            for step in self.steps
        ]

    def tile(
        self, index: int, height: int, width: int, rows: tiling.Interval, columns: tiling.Interval
    ) -> Tile:
        """The plan of one tile of a height x width image."""
        losses = [not isinstance(step, nn.Layer) for step in self.steps]
        return Tile(
            index,
            tiling.axis(self.windows(0), losses, height, rows),
            tiling.axis(self.windows(1), losses, width, columns),
        )

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
        look: Callable[[Loss, Tensor], None] | None = None,
        keep: bool,
    ) -> Kept:
        """Run `x` through all steps; `look` is called for each loss with its own part of the feature maps, as they are
        then.

        With `keep`, returns what `backward` needs.
        """
        kept = Kept()
        for i, step in enumerate(self.steps[: _depth(tile, len(self.steps))]):
            if not isinstance(step, nn.Layer):
                if look is not None:
                    look(step, _own(x, tile, i))
                continue
            if x.device != step.device:
                x = x.to(step.device)
            y = step.forward(x)
            if keep:
                kept.inputs.append(x)
                kept.outputs.append(y)
            x = _crop(y, tile, i)
        if keep:
            kept.outputs.append(x)
        return kept

    def visit(self, kept: Kept, tile: Tile | None, look: Callable[[Loss, Tensor], None]) -> None:
        """Show each loss its feature maps as a backward pass would: as they are after the whole forward pass."""
        inputs = iter([*kept.inputs, kept.outputs[-1]])
        x = next(inputs)
        for i, step in enumerate(self.steps[: _depth(tile, len(self.steps))]):
            if isinstance(step, nn.Layer):
                x = next(inputs)
            else:
                look(step, _own(x, tile, i))

    def show_nothing(self) -> None:
        """Let style losses that no tile has reached in this process see no pixels: then they have a sum, of zeros."""
        channels, device = 3, torch.device("cpu")
        for step in self.steps:
            if isinstance(step, nn.SpatialConvolution):
                channels, device = step.weight.shape[0], step.device
            elif isinstance(step, StyleLoss) and step.products is None:
                step.accumulate(torch.empty((1, channels, 0, 0), device=device))

    def backward(self, kept: Kept, tile: Tile | None = None) -> Tensor:
        """The gradient of all losses with respect to the input; consumes `kept`, freeing it layer by layer."""
        index = 0 if tile is None else tile.index
        x = kept.outputs.pop()
        grad = torch.zeros_like(x)
        for i in range(_depth(tile, len(self.steps)) - 1, -1, -1):
            step = self.steps[i]
            if not isinstance(step, nn.Layer):
                step.backward(_own(x, tile, i), _own(grad, tile, i), index)
                continue
            y = kept.outputs.pop()
            x = kept.inputs.pop()
            grad = step.backward(x, y, _uncrop(grad, y, tile, i)).to(x.device, x.dtype)
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


def _crops(y: Tensor, tile: Tile, i: int) -> tuple[tiling.Interval, tiling.Interval]:
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
    return steps


def _listing(modules: Sequence[object]) -> str:
    """nn.Sequential's __tostring__."""
    arrows = " -> ".join(["input", *(f"({i + 1})" for i in range(len(modules))), "output"])
    lines = [f"  ({i + 1}): {module}" for i, module in enumerate(modules)]
    return "\n".join([f"nn.Sequential {{\n  [{arrows}]", *lines, "}"])


def check_layers(names: Sequence[str], content: Sequence[str], style: Sequence[str]) -> None:
    """Raise OptionError for a layer name that the original would never come to.

    It walked through the network with one pointer per list, so a name that is unknown, repeated or out of order
    silently switched off itself and all names after it.
    """
    for option, wanted in (("content_layers", content), ("style_layers", style)):
        position = -1
        for name in wanted:
            if name not in names:
                near = get_close_matches(name, names, n=1, cutoff=0.4) or get_close_matches(
                    name.strip(), names, n=1
                )
                hint = f"did you mean {near[0]}? " if near else ""
                raise OptionError(
                    f"-{option}: the model has no layer {name!r}; {hint}Its layers are {', '.join(names)}"
                )
            if names.index(name) <= position:
                raise OptionError(
                    f"-{option}: {name!r} is repeated or out of order, so it would never be found;"
                    f" give the layers in the model's order: {', '.join(sorted(set(wanted), key=names.index))}"
                )
            position = names.index(name)


def build(
    chain: Sequence[Module],
    content: Sequence[str],
    style: Sequence[str],
    *,
    content_weight: float,
    style_weight: float,
    tv_weight: float,
    pooling: str,
    normalize: bool,
    log: Log,
    style_loss: type[StyleLoss] = StyleLoss,
) -> Network:
    """The network up to the last loss, built from `chain` layer by layer; what lies above is never read.

    Pooling "avg" replaces max pooling by average pooling in floor mode. `log` takes the lines that the original prints.
    `style_loss` is the kind of style loss to insert.
    """
    check_layers([module.name for module in chain], content, style)
    modules: list[nn.Layer | Loss] = []
    content_left, style_left = list(content), list(style)
    for index, module in enumerate(chain, 1):
        if not content_left and not style_left:
            break
        layer = module.build()
        if pooling == "avg" and isinstance(layer, nn.SpatialMaxPooling):
            layer = _averaging(layer, index, log)
        modules.append(layer)
        if content_left and module.name == content_left[0]:
            log(f"Setting up content layer\t{index}\t:\t{module.name}\t")
            modules.append(ContentLoss(content_weight, normalize))
            content_left.pop(0)
        if style_left and module.name == style_left[0]:
            log(f"Setting up style layer  \t{index}\t:\t{module.name}\t")
            modules.append(style_loss(style_weight, normalize))
            style_left.pop(0)
    return Network(modules, TVLoss(tv_weight) if tv_weight > 0 else None)


def _averaging(layer: nn.SpatialMaxPooling, index: int, log: Log) -> nn.Layer:
    if layer.pad != (0, 0):
        raise OptionError(
            f"-pooling avg: the max pooling {layer.name} is padded, and the original replaces only unpadded ones;"
            " use -pooling max with this model"
        )
    log(f"Replacing max pooling at layer {index} with average pooling\t")
    return nn.SpatialAveragePooling(layer.name, layer.kernel, layer.stride, ceil=False)


def repooled(
    chain: Sequence[Module], kind: type[nn.SpatialMaxPooling | nn.SpatialAveragePooling]
) -> list[Module]:
    """`chain` with pooling of `kind` everywhere, sizes rounded up: windows over the border take what is in."""

    def build(module: Module) -> nn.Layer:
        layer = module.build()
        if isinstance(layer, nn.SpatialMaxPooling | nn.SpatialAveragePooling):
            return kind(layer.name, layer.kernel, layer.stride, layer.pad)
        return layer

    return [replace(module, build=partial(build, module)) for module in chain]


# setup_multi_gpu: where the network is split when -multigpu_strategy is not given; one more with a TV module.
_DEFAULT_SPLITS = {2: [3]}


def place(network: Network, devices: Sequence[torch.device], strategy: str, gpus: Sequence[int] = ()) -> None:
    """Put the layers on `devices`, split after the modules that `strategy` lists (`3,6`; '' for the default).

    Modules count from 1 as in print(net), the TV module included. A device may be named several times. `gpus` are
    the numbers that print(net) shows, from 1. Raises OptionError where pieces and devices are not as many.
    """
    if len(devices) == 1:
        splits: list[int] = []
    elif strategy == "":
        if len(devices) not in _DEFAULT_SPLITS:
            raise OptionError(
                f"-multigpu_strategy must be given for {len(devices)} GPUs: the layers after which to split, for"
                " example 3,6"
            )
        splits = [split + (1 if network.tv else 0) for split in _DEFAULT_SPLITS[len(devices)]]
    else:
        splits = [_layer_number(part) for part in split_list(strategy)]
    parts: list[list[object]] = [[]]
    for number, module in enumerate(network.listing, 1):
        parts[-1].append(module)
        if len(parts) <= len(splits) and number == splits[len(parts) - 1]:
            parts.append([])
    if len(parts) != len(devices):
        raise OptionError(
            f"-multigpu_strategy {strategy or splits} splits the network's {len(network.listing)} layers into"
            f" {len(parts)} parts, but {len(devices)} GPUs are given; give {len(devices) - 1} rising layer numbers"
        )
    for device, part in zip(devices, parts, strict=True):
        for module in part:
            if isinstance(module, nn.Layer):
                module.to(device, network.dtype_of(module))
    if len(devices) > 1:
        numbers = list(gpus) or [i + 1 for i in range(len(devices))]
        network.chunks = list(zip(numbers, parts, strict=True))


def _layer_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError(
            f"-multigpu_strategy: {text!r} is not a layer number; give for example 3,6"
        ) from None
