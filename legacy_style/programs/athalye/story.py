"""anishathalye/neural-style's way of style transfer: the same network, other losses and another descent.

Ports anishathalye/neural-style d0a1148, stylize.py and vgg.py. Unlike neural_style.lua it works on images of
0..255 less the file's own mean pixel, weighs the layers, keeps a target per style image, takes the total
variation per pixel, pools with sizes rounded up, and looks at the losses after each step of Adam. Surprises:
the best image is saved, but only of those that were looked at; a .mat's kernels are used transposed, as
vgg.py reads them; the network wants blue first, so images are turned instead of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import mul
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.losses import ContentLoss, Loss
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.engine.session import Session
from legacy_style.errors import DivergenceError, OptionError, UnsupportedError
from legacy_style.formats import matlab, model_files
from legacy_style.programs.athalye.images import Array, check_channels
from legacy_style.programs.athalye.losses import MeanTVLoss, SeparateStyleLoss
from legacy_style.programs.neural_style import pixels
from legacy_style.torch7 import nn
from legacy_style.torch7.optim import AdamState
from legacy_style.torch7.random import Generator

CONTENT_LAYERS = ("relu4_2", "relu5_2")
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# The deviation of the noise, in 0..255 (stylize.py).
_NOISE = 0.256

# More than any use, and far enough below the end of float32.
_LARGEST_WEIGHT = 1e30


@dataclass(frozen=True)
class Settings:
    """The options of the optimisation, as on the command line; `initial_noiseblend` None: the default."""

    content_weight: float = 5.0
    content_weight_blend: float = 1.0
    style_weight: float = 500.0
    style_layer_weight_exp: float = 1.0
    style_blend_weights: Sequence[float] | None = None
    tv_weight: float = 100.0
    learning_rate: float = 10.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    initial_noiseblend: float | None = None
    pooling: str = "max"
    seed: int | None = None


@dataclass(frozen=True)
class Losses:
    """The losses of one image, weighted as they are printed, rounded to float32."""

    content: float
    style: float
    tv: float
    total: float


@dataclass(frozen=True)
class Model:
    """A network's layers, not built yet; its mean pixel, red first, (3,); whether kernels are transposed."""

    chain: list[loadcaffe.Module]
    mean_pixel: NDArray[np.float64]
    transposed: bool


def load_model(path: str, orientation: str | None) -> Model:
    """The network of a .mat, .caffemodel or .pth file.

    `orientation` "wh" uses kernels transposed, "hw" as they were trained; None is "wh" for a .mat, as in the
    original, and "hw" for others. Raises UnsupportedError where a layer is missing, and the readers' errors.
    """
    net = model_files.load(path)
    chain, _ = loadcaffe.modules(net)
    names = {module.name for module in chain}
    missing = [name for name in (*STYLE_LAYERS, *CONTENT_LAYERS) if name not in names]
    if missing:
        raise UnsupportedError(f"{path}: the network has no layer {missing[0]}; give a VGG-16 or VGG-19")
    if orientation is None:
        with Path(path).open("rb") as file:
            orientation = "wh" if matlab.is_level_5(file.read(128)) else "hw"
    return Model(chain, np.array(net.mean_pixel or pixels.MEAN_PIXEL)[::-1], orientation == "wh")


def blend_weights(settings: Settings, count: int) -> list[float]:
    """The weights of `count` style images, divided by the sum of all that were given, even too many."""
    given = settings.style_blend_weights
    if given is None:
        return [1.0 / count] * count
    total = sum(given)
    if total == 0:
        raise OptionError("--style-blend-weights have the sum 0, which nothing can be divided by")
    return [weight / total for weight in given]


def layer_weights(ratio: float) -> list[float]:
    """The weights of STYLE_LAYERS: each `ratio` times the one before it, their sum 1."""
    weights = list(accumulate(repeat(ratio, len(STYLE_LAYERS) - 1), mul, initial=1.0))
    return [weight / sum(weights) for weight in weights]


def build_network(model: Model, settings: Settings, device: torch.device) -> Network:
    """The network up to its last loss; a content layer of weight 0 is left out."""
    average = settings.pooling == "avg"  # whatever else it says means max
    pooling = network.pool_rounding_up(nn.SpatialAveragePooling if average else nn.SpatialMaxPooling)
    blend = settings.content_weight_blend
    losses: dict[str, list[Loss]] = {}
    for name, share in zip(CONTENT_LAYERS, (blend, 1.0 - blend), strict=True):
        if settings.content_weight * share != 0:
            losses[name] = [ContentLoss(f"content {name}", settings.content_weight * share)]
    for name, share in zip(STYLE_LAYERS, layer_weights(settings.style_layer_weight_exp), strict=True):
        losses[name] = [SeparateStyleLoss(f"style {name}", settings.style_weight * share)]
    chain = network.replace_pooling(model.chain, pooling)
    net = network.build(chain, losses, [MeanTVLoss("tv", settings.tv_weight)])
    for layer in net.layers:
        if model.transposed and isinstance(layer, nn.SpatialConvolution):
            layer.weight = layer.weight.transpose(2, 3)
    network.place(net, [device])
    return net


def to_network(image: Array, mean_pixel: NDArray[np.float64]) -> Tensor:
    """RGB of 0..255, (H, W, 3), as the network takes it: BGR less the mean, (1, 3, H, W) float32."""
    check_channels("an image", image)
    return _to_tensor((image - mean_pixel).astype(np.float32))


def to_image(x: Tensor, mean_pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `to_network`: RGB of 0..255, (H, W, 3), not cut off."""
    image: NDArray[np.float64] = x[0].cpu().numpy()[::-1].transpose(1, 2, 0) + mean_pixel
    return image


def noise(shape: tuple[int, ...], seed: int | None) -> NDArray[np.float32]:
    """Normals of deviation 1, (H, W, 3): Torch7's, which a seed repeats; TensorFlow's nothing repeats."""
    return Generator(seed).randn(*shape).astype(np.float32)


def start_image(content: Array, initial: Array | None, model: Model, settings: Settings) -> Tensor:
    """Where the descent starts, (1, 3, H, W): `initial` or the content, blended with noise; or only noise."""
    blend = settings.initial_noiseblend
    if blend is None:
        blend = 1.0 if initial is None else 0.0
    if initial is None and blend < 1.0:
        initial = content
    if initial is None:
        return _to_tensor(noise(content.shape, settings.seed) * np.float32(_NOISE))
    base = to_network(initial, model.mean_pixel)
    if blend == 0:
        return base
    keep = 1.0 - blend
    return base * keep + _to_tensor(noise(content.shape, settings.seed) * np.float32(_NOISE)) * (1.0 - keep)


def _to_tensor(image: NDArray[np.float32]) -> Tensor:
    """(H, W, 3), red first, as (1, 3, H, W), blue first."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))[None]


class Descent:
    """Adam on the image x; `losses` are those of x, `best` is the best of the images that counted."""

    def __init__(self, objective: Objective, x: Tensor, settings: Settings) -> None:
        self.objective, self.settings = objective, settings
        self.state = AdamState()
        self._betas = np.array((settings.beta1, settings.beta2), np.float32)
        self._powers = np.ones(2, np.float32)  # of the betas, to the number of the step
        self.best: Tensor | None = None
        self._best_total = math.inf
        self.x = x
        self.losses, self.grad = self.evaluate(x)

    def evaluate(self, x: Tensor) -> tuple[Losses, Tensor]:
        """The losses and the gradient at x."""
        values, grad = self.objective(x)
        net = self.objective.network
        content, style = (sum(net.values_from(source, values)) for source in ("content", "style"))
        parts = (content, style, values["tv"])
        return Losses(*(float(np.float32(value)) for value in (*parts, sum(parts)))), grad

    def step(self) -> None:
        """One step of TensorFlow's Adam, and a look at where it led; interrupted, it leaves x as it was."""
        state, alpha, (beta1, beta2) = self.state, self._next_step_size(), self._betas.tolist()
        if state.m is None or state.v is None:
            state.m, state.v = torch.zeros_like(self.x), torch.zeros_like(self.x)
        # In TensorFlow's order, for the last bit of x: where features are equal, it decides which is the maximum.
        state.m += (self.grad - state.m) * (1 - beta1)
        state.v += (self.grad * self.grad - state.v) * (1 - beta2)
        # PyTorch's square root in float32 is not always the nearest; that in float64, rounded, is.
        x = self.x - state.m * alpha / (state.v.double().sqrt().float() + self.settings.epsilon)
        losses, grad = self.evaluate(x)
        self.x, self.losses, self.grad = x, losses, grad

    def _next_step_size(self) -> float:
        """The learning rate with both corrections of the bias, computed in float32 as TensorFlow does."""
        self.state.t += 1
        with np.errstate(all="ignore"):
            self._powers = self._powers * self._betas
            correction1, correction2 = np.float32(1) - self._powers
            alpha = np.float32(self.settings.learning_rate) * np.sqrt(correction2) / correction1
        if not np.isfinite(alpha):
            raise OptionError(
                f"Adam cannot make a step of {alpha}: --beta1 and --beta2 should be at least 0 and less than 1,"
                " --learning-rate less than 1e38"
            )
        return float(alpha)

    def count(self) -> Tensor:
        """Let x be a candidate for the best image, which is returned; DivergenceError where there is none."""
        if self.losses.total < self._best_total:
            self.best, self._best_total = self.x, self.losses.total
        if self.best is None:
            raise DivergenceError(
                f"the loss is not finite after {self.state.t} iterations, so there is no image to save;"
                " a weight or --learning-rate is far too large"
            )
        return self.best


def start(
    content: Array, styles: Sequence[Array], initial: Array | None, model: Model, settings: Settings
) -> Descent:
    """Capture the targets and look at the start image. Raises OptionError, UnsupportedError."""
    for name in ("content_weight", "content_weight_blend", "style_weight"):
        if abs(getattr(settings, name)) > _LARGEST_WEIGHT:
            raise OptionError(f"--{name.replace('_', '-')} {getattr(settings, name):g} is far too large")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_network(model, settings, device)
    session = Session(net)
    session.set_content(to_network(content, model.mean_pixel))
    weights = blend_weights(settings, len(styles))
    if len(weights) < len(styles):
        raise OptionError(
            f"--style-blend-weights has {len(weights)} numbers for {len(styles)} style images; give as many"
        )
    for style, weight in zip(styles, weights, strict=False):  # too many only count in the sum
        session.add_style(to_network(style, model.mean_pixel), weight)
    start = start_image(content, initial, model, settings).to(device)
    return Descent(session.objective(*content.shape[:2]), start, settings)
