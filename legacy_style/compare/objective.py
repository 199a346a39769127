"""What the network makes of a picture: the objective of a command line, measured on any picture.

The engine's own functions build the network and capture the targets (neural_style/story.py), so a picture is
measured by what would have been minimised. Notes: a picture of another size is scaled as the
original scales images; the value of the TV term, which the original never computes, is the one whose
gradient it uses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from legacy_style.compare.results import MeasuredObjective
from legacy_style.engine.losses import Loss, StyleLoss
from legacy_style.engine.processes.group import Ranks
from legacy_style.programs.neural_style import story
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.pixels import preprocess
from legacy_style.programs.neural_style.settings import read
from legacy_style.torch7 import image as torch7_image

Array = NDArray[np.float64]


class Meter:
    """The network of one command line, with its targets captured: `meter(picture)` measures.

    Raises what `stylize` raises where the command line cannot run. `height` and `width` are those of the
    picture that the command line makes.
    """

    def __init__(self, options: Options) -> None:
        # Nothing is initialised, so neither an init image nor a file to resume from is read.
        options = options.changed(init="random", init_image="", resume="", checkpoint="")
        settings = read(options, save=False)
        with torch.no_grad():
            net, images = story.prepare(settings, story.load(settings))
            plan = story.make_plan(settings, net, images, Ranks())
            self._session = story.capture(net, images, settings, tile=plan.tile)
        self.height, self.width = images.content.shape[2:]
        self.content_layers = settings.content_layers
        self.style_layers = settings.style_layers
        self._tv_weight = settings.tv_weight

    def __call__(self, picture: Array) -> MeasuredObjective:
        """The objective of a picture, RGB in [0,1], (3, H, W); one of another size is scaled."""
        if picture.shape[1:] != (self.height, self.width):
            picture = torch7_image.scale_to(picture, self.width, self.height)
        with torch.no_grad():
            x = torch.from_numpy(preprocess(picture).astype(np.float32)).unsqueeze(0)
            values, _ = self._session.evaluate(x)
        net = self._session.net
        content, style = (net.values_from(source, values) for source in ("content", "style"))
        return MeasuredObjective(
            content=content,
            style=style,
            tv=tv_value(x, self._tv_weight),
            total=sum(content) + sum(style),
            gram=tuple(_gram_distance(loss) for loss in net.losses_from("style")),
        )


def tv_value(x: torch.Tensor, weight: float) -> float:
    """weight / 2 * the squared differences to the right and lower neighbour, in Caffe units, (1, 3, H, W).

    Over the upper left (H-1) x (W-1) block, as the gradient in losses.TVLoss has it; 0 where `weight` <= 0.
    """
    if weight <= 0:
        return 0.0
    x = x.double()
    inner = x[:, :, :-1, :-1]
    across, down = inner - x[:, :, :-1, 1:], inner - x[:, :, 1:, :-1]
    return weight / 2 * float(across.square().sum() + down.square().sum())


def _gram_distance(loss: Loss) -> float:
    assert isinstance(loss, StyleLoss) and loss.gram is not None and loss.target is not None
    norm = float(loss.target.norm())
    distance = float((loss.gram - loss.target).norm())
    return distance / norm if norm else float("inf") if distance else 0.0
