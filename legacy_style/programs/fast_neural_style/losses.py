"""The losses of train.lua and slow_neural_style.lua: content, style and pixels, each with its explicit gradient.

Ports jcjohnson/fast-neural-style 813c834, fast_neural_style/PerceptualCriterion.lua, ContentLoss.lua, StyleLoss.lua,
GramMatrix.lua, MeanAggregation.lua, DeepDreamLoss.lua, and the MSE, Abs and SmoothL1 criteria of torch/nn 8726825.

The gradient goes to the feature maps by formula, not by autograd, for one reason: the original's ReLUs work in place
and overwrite what stands in front of them. A loss directly behind a convolution that a ReLU follows sees x in the
forward pass, but relu(x) in the backward pass. The losses' values are weighted and summed in double, as Lua does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork, Path, parse_layer
from legacy_style.programs.fast_neural_style.values import Distance, Layers, StyleTarget

_DREAM_LIMIT = 100.0  # DeepDreamLoss.lua, clamp


def distance(kind: Distance, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The mean distance of x from a target of its shape, (), and its gradient with respect to x."""
    apart = x - target
    if kind == "L2":
        return apart.square().mean(), apart.mul_(2 / apart.numel())
    if kind == "L1":
        return apart.abs().mean(), apart.sign_().div_(apart.numel())
    return F.smooth_l1_loss(x, target), apart.clamp_(-1, 1).div_(apart.numel())


def gram(x: Tensor) -> Tensor:
    """Feature maps (N, C, H, W) -> (N, C, C), inner products of the maps over C*H*W (GramMatrix.lua)."""
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def aggregate(kind: StyleTarget, x: Tensor) -> Tensor:
    """What the style loss compares: Gram matrices (N, C, C), or the means of the maps (N, C)."""
    return gram(x) if kind == "gram" else x.mean((2, 3))


def aggregate_backward(kind: StyleTarget, x: Tensor, grad: Tensor) -> Tensor:
    """The gradient with respect to x, (N, C, H, W), given that with respect to `aggregate(kind, x)`."""
    n, c, h, w = x.shape
    if kind == "mean":
        return (grad / (h * w))[:, :, None, None].expand(n, c, h, w)
    return ((grad + grad.transpose(1, 2)) @ x.flatten(2) / (c * h * w)).view(n, c, h, w)


def places(layers: Layers, network: LossNetwork) -> dict[str, Path]:
    """The modules that exist, by name; a name of no module is passed over, as in the original."""
    there = set(network.paths())
    found = {name: parse_layer(name) for name in layers.weights}
    return {name: path for name, path in found.items() if path is not None and path in there}


@dataclass
class LossesOfBatch:
    """The weighted losses of one evaluation, by layer, and the gradient at each feature map."""

    content: dict[str, float] = field(default_factory=dict)
    style: dict[str, float] = field(default_factory=dict)
    maps: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(self.style.values()) + sum(self.content.values())

    def backward(self) -> None:
        """Send the gradients from the feature maps down to whatever made the images."""
        torch.autograd.backward(self.maps, self.gradients)

    def add(self, x: Tensor, gradient: Tensor) -> None:
        self.maps.append(x)
        self.gradients.append(gradient.to(x.dtype))


class PerceptualCriterion:
    """Content, style and deep dream losses on the layers of one network."""

    def __init__(
        self,
        network: LossNetwork,
        content: Layers,
        style: Layers,
        *,
        dream: Layers | None = None,
        style_target: StyleTarget = "gram",
        distance: Distance = "L2",
    ) -> None:
        self.network, self.style_target, self.distance = network, style_target, distance
        self.weights = {**content.weights}, {**style.weights}, {**(dream.weights if dream else {})}
        self.content, self.style = places(content, network), places(style, network)
        self.dream = places(dream, network) if dream else {}
        everywhere = {*self.content.values(), *self.style.values(), *self.dream.values()}
        last = max(everywhere, default=())
        self._overwritten = {path for path in everywhere if network.rectified_afterwards(path, last)}
        self._content_targets: dict[str, Tensor] = {}
        self._style_targets: dict[str, Tensor] = {}

    @torch.no_grad()
    def set_style_target(self, image: Tensor) -> None:
        """Take the style from an image (1, 3, H, W)."""
        maps = self.network.run(image, self.style.values())
        self._style_targets = {
            name: aggregate(self.style_target, maps[path].float()) for name, path in self.style.items()
        }

    @torch.no_grad()
    def set_content_target(self, images: Tensor) -> None:
        """Take the content from images (N, 3, H, W)."""
        maps = self.network.run(images, self.content.values())
        self._content_targets = {name: maps[path] for name, path in self.content.items()}

    def evaluate(self, images: Tensor) -> LossesOfBatch:
        """The losses of images (N, 3, H, W), which `LossesOfBatch.backward` follows down.

        A layer that the network does not have has a loss of 0, as in the original.
        """
        result = LossesOfBatch()
        maps = self.network.run(images, {*self.content.values(), *self.style.values(), *self.dream.values()})
        with torch.no_grad():
            for name, weight in self.weights[0].items():
                result.content[name] = self._content(name, weight, maps, result)
            for name, weight in self.weights[1].items():
                result.style[name] = self._style(name, weight, maps, result)
            for name, path in self.dream.items():
                x = self._seen(path, maps[path])
                result.add(maps[path], x.clamp(-_DREAM_LIMIT, _DREAM_LIMIT).mul_(-self.weights[2][name]))
        return result

    def _content(self, name: str, weight: float, maps: Mapping[Path, Tensor], result: LossesOfBatch) -> float:
        if name not in self.content:
            return 0.0
        path = self.content[name]
        x, target = maps[path].float(), self._content_targets[name].float()
        value, gradient = distance(self.distance, x, target)
        if path in self._overwritten:
            _, gradient = distance(self.distance, x.relu(), target)
        result.add(maps[path], gradient.mul_(weight))
        return weight * value.item()

    def _style(self, name: str, weight: float, maps: Mapping[Path, Tensor], result: LossesOfBatch) -> float:
        if name not in self.style:
            return 0.0
        if name not in self._style_targets:
            raise OptionError(
                "there is no style image to take the style from: -task upsample has none; leave out the style loss with"
                " -style_layers '' -style_weights ''"
            )
        path = self.style[name]
        x = maps[path].float()
        found = aggregate(self.style_target, x)
        value, gradient = distance(self.distance, found, self._style_targets[name].expand_as(found))
        gradient = aggregate_backward(self.style_target, self._seen(path, x), gradient.mul_(weight))
        result.add(maps[path], gradient)
        return weight * value.item()

    def _seen(self, path: Path, x: Tensor) -> Tensor:
        """What a backward pass of the original finds where it left x."""
        return x.relu() if path in self._overwritten else x
