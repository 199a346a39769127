"""The network of neural_style.lua: which losses stand behind which layers. Ports 07c4b82, main() (building)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from legacy_style.engine import network
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.losses import ContentLoss, Loss, StyleLoss, TVLoss
from legacy_style.engine.network import Network
from legacy_style.errors import OptionError
from legacy_style.torch7 import nn

Log = Callable[[str], None]


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
) -> Network:
    """The network up to the last of the `content` and `style` layers; `log` takes the lines that the original prints.

    Pooling "avg" replaces max pooling by average pooling in floor mode. Raises OptionError for layers that it has not.
    """
    check_layers([module.name for module in chain], content, style)
    if pooling == "avg":
        chain = network.replace_pooling(chain, partial(_average, log=log))
    losses: dict[str, list[Loss]] = {name: [] for name in (*content, *style)}
    for name in content:
        losses[name].append(ContentLoss(f"content {name}", content_weight, normalize))
    for name in style:
        losses[name].append(StyleLoss(f"style {name}", style_weight, normalize))
    tv = [TVLoss("tv", tv_weight)] if tv_weight > 0 else []
    return network.build(chain, losses, tv, log=log)


def check_layers(names: Sequence[str], content: Sequence[str], style: Sequence[str]) -> None:
    """Raise OptionError for a layer name that the original would never come to.

    It walked through the network with one pointer per list, so a name that is unknown, repeated or out of order
    silently switched off itself and all names after it.
    """
    for option, wanted in (("content_layers", content), ("style_layers", style)):
        position = -1
        for name in wanted:
            if name not in names:
                raise OptionError(
                    f"-{option}: the model has no layer {name!r}; {network.suggestion(name, names)}"
                )
            if names.index(name) <= position:
                raise OptionError(
                    f"-{option}: {name!r} is repeated or out of order, so it would never be found;"
                    f" give the layers in the model's order: {', '.join(sorted(set(wanted), key=names.index))}"
                )
            position = names.index(name)


def _average(layer: nn.Pooling, number: int, log: Log) -> nn.Layer:
    """Average pooling in floor mode for max pooling, which -pooling avg asks for."""
    if not isinstance(layer, nn.SpatialMaxPooling):
        return layer
    if layer.pad != (0, 0):
        raise OptionError(
            f"-pooling avg: the max pooling {layer.name} is padded, and the original replaces only unpadded ones;"
            " use -pooling max with this model"
        )
    log(f"Replacing max pooling at layer {number} with average pooling\t")
    return nn.SpatialAveragePooling(layer.name, layer.kernel, layer.stride, ceil=False)
