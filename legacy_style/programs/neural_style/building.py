"""The network of neural_style.lua: the model that it reads, and which losses stand behind which layers.

Ports 07c4b82, main() (loading and building).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from legacy_style.engine import loadcaffe, network, sizes
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.losses import ContentLoss, Loss, StyleLoss, TVLoss
from legacy_style.engine.network import Network
from legacy_style.errors import LegacyStyleError, OptionError
from legacy_style.formats import model_files
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs.neural_style.images import Images
from legacy_style.programs.neural_style.region_losses import RegionContentLoss, RegionStyleLoss
from legacy_style.programs.neural_style.settings import Settings
from legacy_style.torch7 import nn

Log = Callable[[str], None]


@dataclass(frozen=True)
class Loaded:
    """What every stage needs: the devices, and the model's layers, not built yet."""

    devices: list[torch.device]
    chain: list[Module]


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
    content_loss: type[ContentLoss] = ContentLoss,
    style_loss: type[StyleLoss] = StyleLoss,
) -> Network:
    """The network up to the last of the `content` and `style` layers; `log` takes the lines that the original prints.

    Pooling "avg" replaces max pooling by average pooling in floor mode. Raises OptionError for layers that it has not.
    """
    check_layers([module.name for module in chain], content, style)
    if pooling == "avg":
        chain = network.replace_pooling(chain, partial(_average, log=log))
    losses: dict[str, list[Loss]] = {name: [] for name in (*content, *style)}
    for name in content:
        losses[name].append(content_loss(f"content {name}", content_weight, normalize))
    for name in style:
        losses[name].append(style_loss(f"style {name}", style_weight, normalize))
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


def load_model(settings: Settings, notice: Log) -> NetParameter:
    """The model of `settings`; says so where that is not the one that was asked for."""
    if settings.model_file != settings.model_named:
        notice(
            f"No {settings.model_named} here: using the bundled VGG-16 instead"
            " (legacy-style models get fetches VGG-19, -model_file names another model)"
        )
    return model_files.load(settings.model_file, matconvnet_orientation=settings.orientation)


def load_chain(settings: Settings, log: Log, notice: Log) -> list[Module]:
    """The model's layers, not built yet; prints what loadcaffe prints."""
    return read_chain(
        settings.model_named,
        lambda: load_model(settings, notice),
        settings.content_layers,
        settings.style_layers,
        log,
    )


def read_chain(
    named: str, load: Callable[[], NetParameter], content: Sequence[str], style: Sequence[str], log: Log
) -> list[Module]:
    """The layers of the model that `load` reads, up to the last of the `content` and `style` layers.

    `named` is the model's file for what `log` takes and for errors: those of `load`, and OptionError for a file that is
    not there and for layers that it has not.
    """
    try:
        net = load()
    except OSError as error:
        log(f"Couldn't load {named}")
        raise OptionError(
            f"{named}: {error.strerror}; give a model file that is there, or none for the bundled network"
        ) from error
    except LegacyStyleError:
        log(f"Couldn't load {named}")
        raise
    log(f"Successfully loaded {net.path or named}")
    check_layers(loadcaffe.layer_names(net), content, style)
    chain, lines = loadcaffe.modules(net, [*content, *style])
    for line in lines:
        log(line)
    return chain


def layer_names(settings: Settings) -> list[str]:
    """The names of the model's layers, in network order, each of which -content_layers and -style_layers may name."""
    return loadcaffe.usable_names(load_model(settings, lambda line: None))


def build_network(settings: Settings, chain: Sequence[Module], log: Log) -> Network:
    return build(
        chain,
        settings.content_layers,
        settings.style_layers,
        content_weight=settings.content_weight,
        style_weight=settings.style_weight,
        tv_weight=settings.tv_weight,
        pooling=settings.pooling,
        normalize=settings.normalize,
        log=log,
        content_loss=RegionContentLoss if settings.region_weights else ContentLoss,
        style_loss=RegionStyleLoss if settings.is_guided else StyleLoss,
    )


def check_sizes(net: Network, images: Images) -> None:
    """Raise OptionError where an image has a size that a layer, or the total variation, cannot take."""
    for what, image in (("content", images.content), *(("style", style) for style in images.styles)):
        sizes.check(net, what, image.shape[2], image.shape[3])
    if net.image_losses and min(images.content.shape[2:]) < 2:
        raise OptionError(
            "-tv_weight needs an image of at least 2x2 pixels; give a larger -image_size, or -tv_weight 0"
        )
