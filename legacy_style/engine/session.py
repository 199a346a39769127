"""A network that is loaded once and run as often as one likes, on arrays: set the targets, run, set others, run again.

    session = Session.load(path, losses, image_losses)
    session.set_content(content)
    session.set_styles([style])
    finished = session.run(session.noise(seed=1), Adam(500, learning_rate=10))

Images are tensors (1, 3, H, W), float32, as the network takes them: for Caffe's networks blue first, 0..255, less the
mean pixel. Tiles, several processes, precision and checkpoints are the session's affair; a loss knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from legacy_style.engine import cards, checkpoint, loadcaffe, machine, memory, network, sizes
from legacy_style.engine.losses import Loss
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimise import Conditions, Finished, Optimisation, Optimizer
from legacy_style.engine.processes import parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.formats import model_files
from legacy_style.torch7.random import Generator

_NOISE_BLOCK = 2**20
"""Numbers drawn at a time: as Python floats they take twenty times the memory."""

Size = tuple[int, int]
"""Height and width."""


class Session:
    """A placed network with its losses. `tile` is the side of the tiles that images are worked in, 0 for one piece.

    Where `ranks` share the images, the first process gives and gets whole images, the others give images of the same
    size and any content (the device "meta" will do), and get what they own.
    """

    def __init__(self, net: Network, *, tile: int = 0, ranks: Ranks | None = None) -> None:
        self.net, self.tile, self.ranks = net, tile, ranks or Ranks()
        self.device = net.layers[0].device if net.layers else torch.device("cpu")
        self._exact = net.dtype
        self._objective: Objective | None = None
        self._size: Size | None = None

    @classmethod
    def load(
        cls,
        path: str,
        losses: Mapping[str, Sequence[Loss]],
        image_losses: Sequence[Loss] = (),
        *,
        device: str = "cpu",
        tile: int = 0,
    ) -> Session:
        """A session with the network of a model file, up to the last layer that has a loss."""
        chain, _ = loadcaffe.modules(model_files.load(path), list(losses))
        net = network.build(chain, losses, image_losses)
        network.place(net, [torch.device(device)])
        return cls(net, tile=tile)

    def objective(self, height: int, width: int) -> Objective:
        """The function to minimise, for images of that size: all losses by name, and the gradient."""
        if self.ranks.size > 1:
            return parts.objective(self.net, height, width, self.tile, self.ranks)
        return Objective(self.net, self.net.tiles(height, width, self.tile) if self.tile else None)

    def set_content(self, image: Tensor) -> None:
        """Take the content's targets from `image`, in place of earlier ones; what is run has its size."""
        self.set_size(image.shape[2], image.shape[3])
        self._capture(image, "content", forget=True)

    def set_styles(self, images: Sequence[Tensor], weights: Sequence[float] | None = None) -> None:
        """Take the style's targets from `images` of any sizes, in place of earlier ones; `weights` are of sum 1."""
        shares = [1 / len(images)] * len(images) if weights is None else weights
        for number, (image, weight) in enumerate(zip(images, shares, strict=True)):
            self.add_style(image, weight, forget=number == 0)

    def add_style(self, image: Tensor, weight: float, *, forget: bool = False) -> None:
        """Blend in the targets of one style image; with `forget`, those before it are forgotten."""
        for loss in self.net.losses_from("style"):
            loss.blend_weight = weight
        self._capture(image, "style", forget=forget)

    def set_size(self, height: int, width: int) -> None:
        """Say the size of what is run, where no content does. Raises OptionError where a layer cannot take it."""
        sizes.check(self.net, "content", height, width)
        if self._size != (height, width) or self._objective is None:
            self._size, self._objective = (height, width), self.objective(height, width)

    def _capture(self, image: Tensor, source: str, *, forget: bool) -> None:
        height, width = image.shape[2:]
        sizes.check(self.net, source, height, width)
        self.net.compute_in(self._exact)
        losses = self.net.losses_from(source)
        if forget:
            for loss in losses:
                loss.forget()
        while True:
            own = self._objective if (height, width) == self._size else None
            try:
                with torch.no_grad():
                    (own or self.objective(height, width)).capture(image, losses)
                return
            except torch.OutOfMemoryError:
                if forget:
                    for loss in losses:
                        loss.forget()
                if self._smaller() is None:
                    raise
            cards.give_back()

    def evaluate(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """The values of all losses by name, and the gradient, at an image; of several processes, at what each owns."""
        self.net.compute_in(self._exact)
        with torch.no_grad():
            return self._current(image)(image.to(self.device))

    def optimisation(
        self,
        start: Tensor,
        optimizer: Optimizer,
        conditions: Conditions,
        *,
        on_host: bool = False,
    ) -> Optimisation:
        """An optimisation from `start`, which it changes.

        With `on_host`, image and optimiser are in the computer's memory, wherever the network is.
        """
        return Optimisation(
            self._current(start),
            start if on_host else start.to(self.device),
            optimizer,
            conditions,
            ranks=self.ranks,
            smaller=self._smaller,
        )

    def _smaller(self) -> tuple[Objective, str] | None:
        """The objective in smaller tiles, for a GPU whose memory is full, and what to say of it; None if none are.

        Tiles change neither losses nor gradient.
        """
        if self._size is None or self.ranks.size > 1:
            return None
        side = memory.smaller_tile(self.net, *self._size, self.tile)
        if side is None:
            return None
        self.tile, self._objective = side, None
        self.set_size(*self._size)
        assert self._objective is not None
        return self._objective, f"The GPU's memory is full: going on in tiles of {side} pixels"

    def run(self, start: Tensor, optimizer: Optimizer, **conditions: Any) -> Finished:
        """An optimisation from `start`, which stays as it is, to the end; `conditions`: the fields of `Conditions`."""
        with torch.no_grad():
            own = start.clone(memory_format=torch.contiguous_format)
            return self.optimisation(own, optimizer, Conditions(**conditions)).run()

    def _current(self, image: Tensor) -> Objective:
        if self._objective is None:
            self.set_size(image.shape[2], image.shape[3])
        assert self._objective is not None
        return self._objective

    def scatter(self, image: Tensor) -> Tensor:
        """What this process owns of a whole image of the size that is run: a copy."""
        objective = self._current(image)
        if isinstance(objective, parts.SharedObjective):
            return objective.part.scatter(image, halo=False)
        return image.clone()

    def noise(self, seed: float = -1) -> Tensor:
        """Normals of deviation 1 as Torch7 draws them, of the size that is run; a seed below 0 is another each time.

        Of several processes, what this one owns of it.
        """
        if self._objective is None or self._size is None:
            raise ValueError("set_content or set_size comes first: how large is the image to be?")
        if isinstance(self._objective, parts.SharedObjective):
            return self._objective.part.noise(seed)
        generator = Generator(seed if seed >= 0 else None)
        noise = torch.empty(1, 3, *self._size)
        for block in torch.split(noise.view(-1), _NOISE_BLOCK):
            block.copy_(torch.from_numpy(generator.randn(block.numel()).astype(np.float32)))
        return noise

    def plan(
        self,
        content: Size,
        styles: Sequence[Size],
        vectors: Mapping[str, int],
        *,
        ways: Sequence[str] = (),
        images: int = 0,
        tile: int | None = None,
        may_move: bool = False,
    ) -> Plan:
        """What a run will need in this process, with tiles where its part does not fit in one piece; changes nothing.

        `vectors`: the optimiser's. `ways`: what makes a run smaller, for the error message. `images`: bytes of images
        that are freed before the run. `may_move`: whether an optimisation may be `on_host`. Raises OptionError where
        nothing fits.
        """
        content, *styles = (parts.held(self.net, *size, self.ranks) for size in (content, *styles))
        on_card = self.device.type == "cuda" and {layer.device for layer in self.net.layers} == {self.device}
        on_cpu = all(layer.device.type == "cpu" for layer in self.net.layers)
        machine.return_freed_memory()
        return memory.make(
            self.net,
            *content,
            styles,
            tile=self.tile if tile is None else tile,
            vectors=vectors,
            ways=ways,
            resident=max(memory.resident_memory() - images, 0),
            available=memory.available_memory(self.ranks.local_size) if on_cpu or on_card else None,
            card=cards.card(self.device) if on_card else None,
            may_move=may_move and self.ranks.size == 1,
        )


def weights_digest(net: Network) -> dict[str, str]:
    """A digest of the network's weights, for checkpoints."""
    weights = [getattr(layer, name, None) for layer in net.layers for name in ("weight", "bias")]
    return {"the model": checkpoint.digest(*(weight for weight in weights if weight is not None))}
