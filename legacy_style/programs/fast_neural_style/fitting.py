"""Whether the pictures that a network is to be trained to make can be compared with their targets.

Pixels are compared one by one, and so are the feature maps of the content loss; those of a pooled layer may have one
size though the pictures differ by a pixel, which the original trained on without complaint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.programs.fast_neural_style import shapes
from legacy_style.programs.fast_neural_style.data import Size
from legacy_style.programs.fast_neural_style.loss_network import Path
from legacy_style.programs.fast_neural_style.losses import PerceptualCriterion
from legacy_style.programs.fast_neural_style.shapes import Shape
from legacy_style.programs.fast_neural_style.train_options import TrainingSettings


def check(
    model: torch.nn.Sequential,
    criterion: PerceptualCriterion | None,
    sizes: Sequence[tuple[Size, Size]],
    settings: TrainingSettings,
) -> None:
    """Raise OptionError where a loss cannot compare what `model` makes of images with their targets.

    `sizes`: height and width of an image and of its target, for every kind of batch.
    """
    option = "-resume_from_checkpoint" if settings.resume_from_checkpoint else "-arch"
    for given, target in sizes:
        made = _shape(model, (3, *given), option)
        wanted: Shape = (3, *target)
        padding = settings.architecture.padding_type
        if padding == "none" and all(a <= b for a, b in zip(made, wanted, strict=True)):
            wanted = (3, *made[1:])  # targets are cropped
        if (
            padding == "reflect-start"
            and made[0] == 3
            and all(a <= b for a, b in zip(made[1:], given, strict=True))
        ):
            made = (3, *given)  # the first image is padded so that it comes out like this
        layers = [] if criterion is None else criterion.content.values()
        apart = made[0] != 3 or (settings.pixel_loss is not None and made != wanted)
        if apart or any(_map(criterion, path, made) != _map(criterion, path, wanted) for path in layers):
            raise OptionError(
                f"{option}: the network makes {_text(made)} of images of {given[1]}x{given[0]}, and the targets have"
                f" {_text(wanted)}; let as many layers enlarge (u, U) as make smaller (d), and give images whose sides"
                " can be halved as often"
            )


def _shape(module: torch.nn.Module, shape: Shape, option: str) -> Shape:
    try:
        return shapes.output_shape(module, shape)
    except UnsupportedError as error:
        what = str(error).partition(";")[0]
        raise OptionError(f"{option}: {what}; give larger images, or other layers") from None


def _map(criterion: PerceptualCriterion | None, path: Path, shape: Shape) -> Shape:
    """The shape of the feature map at `path` of the loss network for an image of `shape`."""
    assert criterion is not None
    return _shape(_up_to(criterion.network.modules, path), shape, "-loss_network")


def _up_to(modules: torch.nn.Sequential, path: Path) -> torch.nn.Sequential:
    """The network as far as the module at `path`, itself included."""
    last = modules[path[0] - 1]
    if isinstance(last, torch.nn.Sequential) and path[1:]:
        last = _up_to(last, path[1:])
    return torch.nn.Sequential(*list(modules)[: path[0] - 1], last)


def _text(shape: Shape) -> str:
    return f"{shape[2]}x{shape[1]} pixels in {shape[0]} channels"
