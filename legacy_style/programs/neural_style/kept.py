"""What one run leaves for the next: the model, the network, and the targets of the style images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch

from legacy_style.engine import checkpoint
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.network import Network
from legacy_style.programs.neural_style.images import Images
from legacy_style.programs.neural_style.settings import Settings

# What decides on the model's layers.
_MODEL = ("model_file", "orientation", "content_layers", "style_layers")

# What the network without its targets does not depend on: images, the descent, and what is written.
_FREE = {
    *("content_image", "style_images", "blend_weights", "image_size", "style_size", "init", "init_image"),
    *("original_colors", "color_transfer", "max_pixels", "exif_rotate", "feather", "model_named"),
    *("optimizer", "num_iterations", "learning_rate", "correction", "seed", "precision", "tile"),
    *("output_image", "print_iter", "save_iter", "checkpoint", "resume", "metadata", "binding", "last_stage"),
}

Targets = tuple[object, ...]
"""What the targets of the style images depend on, besides the network."""


class KeptNetwork:
    """Hand the same object to one run after the other: each takes over from the one before what is the same for both.

    It holds one network, with the targets of the last style images; nothing while a run has it.
    """

    def __init__(self) -> None:
        self._chain: tuple[object, list[Module]] | None = None
        self._network: tuple[object, Network, Targets | None] | None = None

    def chain(self, settings: Settings, load: Callable[[], list[Module]]) -> list[Module]:
        """The layers of the model of `settings`, by `load` where they are not here."""
        key = [getattr(settings, name) for name in _MODEL]
        if self._chain is None or self._chain[0] != key:
            self._chain = self._network = None  # which frees them first
            self._chain = key, load()
        return self._chain[1]

    def take(self, settings: Settings) -> tuple[Network, Targets | None] | tuple[None, None]:
        """The network of the run before, if `settings` would build the same, and what its style targets are of."""
        found, self._network = self._network, None
        if found is None or found[0] != _network(settings):
            return None, None
        _, net, targets = found
        net.compute_in(torch.float32)
        for loss in net.losses_from("content"):
            loss.forget()
        return net, targets

    def keep(self, settings: Settings, net: Network, targets: Targets | None) -> None:
        self._network = _network(settings), net, targets


def style_targets(settings: Settings, images: Images, tile: int) -> Targets | None:
    """What the style targets of a run in tiles of side `tile` depend on; None where regions do, which are not kept."""
    if settings.is_guided:
        return None
    return checkpoint.digest(*images.styles), settings.blend_weights, tile


def _network(settings: Settings) -> object:
    return {each.name: getattr(settings, each.name) for each in fields(settings) if each.name not in _FREE}
