"""anishathalye/neural-style's way of style transfer: the same network, other losses and another descent.

Ports anishathalye/neural-style d0a1148, stylize.py and vgg.py. Unlike neural_style.lua it works on images of
0..255 less the file's own mean pixel, weighs the layers, keeps a target per style image, takes the total
variation per pixel, pools with sizes rounded up, and looks at the losses after each step of Adam. Notes:
the best image is saved, but only of those that were looked at; a .mat's kernels are used transposed, as
vgg.py reads them; the network wants blue first, so images are turned instead of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.checkpoint import Plain, digest
from legacy_style.engine.losses import ContentLoss, Loss
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Feval, Losses, Repeat, plainly
from legacy_style.engine.session import Session, weights_digest
from legacy_style.errors import DivergenceError, OptionError, UnsupportedError
from legacy_style.formats import matlab, model_files
from legacy_style.programs.athalye.images import Array, AthalyeImages, check_channels
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
class AthalyeSettings:
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
class AthalyeModel:
    """A network's layers, not built yet; its mean pixel, red first, (3,); whether kernels are transposed."""

    chain: list[loadcaffe.Module]
    mean_pixel: NDArray[np.float64]
    transposed: bool


def load_model(path: str, orientation: str | None) -> AthalyeModel:
    """The network of a .mat, .caffemodel or .pth file.

    `orientation` "wh" uses kernels transposed, "hw" as they were trained; None is "wh" for a .mat, as in the
    original, and "hw" for others. Raises UnsupportedError where a layer is missing, and the readers' errors.
    """
    with Path(path).open("rb") as file:
        net = model_files.load(path, file)
        file.seek(0)
        is_mat = matlab.is_level_5(file.read(128))
    chain, _ = loadcaffe.modules(net)
    names = {module.name for module in chain}
    missing = [name for name in (*STYLE_LAYERS, *CONTENT_LAYERS) if name not in names]
    if missing:
        raise UnsupportedError(f"{path}: the network has no layer {missing[0]}; give a VGG-16 or VGG-19")
    if orientation is None:
        orientation = "wh" if is_mat else "hw"
    return AthalyeModel(chain, np.array(net.mean_pixel or pixels.MEAN_PIXEL)[::-1], orientation == "wh")


def blend_weights(settings: AthalyeSettings, count: int) -> list[float]:
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


def build_network(model: AthalyeModel, settings: AthalyeSettings, device: torch.device) -> Network:
    """The network up to its last loss, on `device`; a content layer of weight 0 is left out.

    Raises OptionError for a weight that is far too large.
    """
    for name in ("content_weight", "content_weight_blend", "style_weight"):
        if abs(getattr(settings, name)) > _LARGEST_WEIGHT:
            raise OptionError(f"--{name.replace('_', '-')} {getattr(settings, name):g} is far too large")
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


def start_image(
    content: Array, initial: Array | None, model: AthalyeModel, settings: AthalyeSettings
) -> Tensor:
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


class Shown(NamedTuple):
    """The losses of one image as they are printed: weighted, rounded to float32."""

    content: float
    style: float
    tv: float
    total: float


def shown(losses: Losses) -> Shown:
    """The losses of an evaluation for printing."""
    kinds = (sum(losses.content), sum(losses.style), sum(losses.others))
    return Shown(*(float(np.float32(value)) for value in (*kinds, sum(kinds))))


class Descent:
    """TensorFlow's Adam as an `optimise.Optimizer`, and the best of the images that counted.

    `iterations` steps are one evaluation more: that of the start image. What has counted is part of the state, since
    the best image is what is saved.
    """

    def __init__(self, settings: AthalyeSettings, iterations: int) -> None:
        self.settings, self.iterations = settings, max(iterations, 0)
        self.num_iterations = self.iterations + 1.0  # evaluations
        self.state = AdamState()
        with np.errstate(over="ignore"):  # what is too large for the original's float32 was infinite there
            self._betas = np.array((settings.beta1, settings.beta2), np.float32)
        self._powers = np.ones(2, np.float32)  # of the betas, to the number of the step
        self.best: Tensor | None = None
        self.best_total = math.inf
        self._earlier: tuple[Tensor | None, float] = (
            None,
            math.inf,
        )  # before the evaluation that is under way

    @property
    def vectors(self) -> dict[str, int]:
        """What it keeps, for the memory plan, the image and its gradient included."""
        return {"the image and Adam's moments": 6, "the best image": 2}

    def minimise(self, feval: Feval, x: Tensor, done: int, repeat: Repeat = plainly) -> None:
        """Evaluate x, then step and evaluate where that led, until the last step."""
        self._powers = np.ones(2, np.float32)
        with np.errstate(all="ignore"):
            for _ in range(done):
                self._powers = self._powers * self._betas
        self.state.t = done
        _, grad = feval(x)
        while self.state.t < self.iterations:
            self.step(x, grad.view_as(x))
            self._earlier = (self.best, self.best_total)
            _, grad = feval(x)

    def step(self, x: Tensor, grad: Tensor) -> None:
        """One step of TensorFlow's Adam: changes x."""
        state, alpha, (beta1, beta2) = self.state, self._next_step_size(), self._betas.tolist()
        if state.m is None or state.v is None:
            state.m, state.v = torch.zeros_like(x), torch.zeros_like(x)
        # In TensorFlow's order, for the last bit of x: where features are equal, it decides which is the maximum.
        state.m += (grad - state.m) * (1 - beta1)
        state.v += (grad * grad - state.v) * (1 - beta2)
        # PyTorch's square root in float32 is not always the nearest; that in float64, rounded, is.
        x -= state.m * alpha / (state.v.double().sqrt().float() + self.settings.epsilon)

    def _next_step_size(self) -> float:
        """The learning rate with both corrections of the bias, computed in float32 as TensorFlow does."""
        with np.errstate(all="ignore"):
            powers = self._powers * self._betas
            correction1, correction2 = np.float32(1) - powers
            alpha = np.float32(self.settings.learning_rate) * np.sqrt(correction2) / correction1
        if not np.isfinite(alpha):
            raise OptionError(
                f"Adam cannot make a step of {alpha}: --beta1 and --beta2 should be at least 0 and less than 1,"
                " --learning-rate less than 1e38"
            )
        self.state.t += 1
        self._powers = powers
        return float(alpha)

    def count(self, image: Tensor, total: float) -> None:
        """Let an image be a candidate for the best; DivergenceError where there is none."""
        if total < self.best_total:
            self.best, self.best_total = image.clone(), total
        if self.best is None:
            raise DivergenceError(
                f"the loss is not finite after {self.state.t} iterations, so there is no image to save;"
                " a weight or --learning-rate is far too large"
            )

    def pack(self) -> dict[str, Any]:
        best, total = self._earlier
        return {"m": self.state.m, "v": self.state.v, "best": best, "best_total": total}

    def unpack(self, packed: Mapping[str, Any], x: Tensor) -> None:
        m, v = (None if packed[name] is None else packed[name].to(x.device) for name in ("m", "v"))
        self.state = AdamState(0, m, v)
        self._earlier = self.best, self.best_total = packed["best"], packed["best_total"]


def plan(net: Network, loaded: AthalyeImages, descent: Descent, tile: int) -> Plan:
    """What a run will need, with tiles of side `tile`, or, for 0, where it does not fit in one piece."""
    return Session(net).plan(
        loaded.content.shape[:2],
        [style.shape[:2] for style in loaded.styles],
        descent.vectors,
        ways=["a smaller --width", "smaller --style-scales"],
        tile=tile,
    )


def capture(
    net: Network, loaded: AthalyeImages, model: AthalyeModel, settings: AthalyeSettings, *, tile: int = 0
) -> Session:
    """A session with the targets of content and styles. Raises OptionError, UnsupportedError."""
    session = Session(net, tile=tile)
    session.set_content(to_network(loaded.content, model.mean_pixel))
    weights = blend_weights(settings, len(loaded.styles))
    if len(weights) < len(loaded.styles):
        raise OptionError(
            f"--style-blend-weights has {len(weights)} numbers for {len(loaded.styles)} style images; give as many"
        )
    for style, weight in zip(loaded.styles, weights, strict=False):  # too many only count in the sum
        session.add_style(to_network(style, model.mean_pixel), weight)
    return session


def binding(settings: AthalyeSettings, model: AthalyeModel, tile: int) -> dict[str, Plain]:
    """The options that a continuation must have the same, by their names."""
    values = {name.replace("_", "-"): value for name, value in vars(settings).items()}
    plain = {name: str(value) if isinstance(value, Sequence) else value for name, value in values.items()}
    return {**plain, "matconvnet-orientation": "wh" if model.transposed else "hw", "tile": tile}


def digests(net: Network, loaded: AthalyeImages) -> dict[str, str]:
    """Digests of what the options only name."""
    images = {"the content image": [loaded.content], "the style images": loaded.styles}
    if loaded.initial is not None:
        images["the initial image"] = [loaded.initial]
    found = {what: digest(*map(torch.from_numpy, some)) for what, some in images.items()}
    return {**weights_digest(net), **found}
