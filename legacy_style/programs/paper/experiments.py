"""The experiments of Gatys, Ecker, Bethge, A Neural Algorithm of Artistic Style (2015), on the same network.

Ports arXiv:1508.06576v2: content loss (eq. 1), style loss (eqs. 3 to 5), total loss (eq. 7), figure 1's
reconstructions and figure 3's matrix; with average pooling, white noise to start from, L-BFGS, and the
weight 1/n for each of n style layers. Notes: the paper speaks of conv1_1 but means what follows its ReLU,
which is why its gradients are zero where F <= 0; a style image is cut to the content's size, since G and A
are sums over equally many positions.

`python -m legacy_style.paper reconstruct` and `… matrix` are the commands (legacy_style.cli.paper).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.losses import ContentLoss, Loss, StyleLoss
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimise import Stopped
from legacy_style.engine.session import Session
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.programs import devices
from legacy_style.programs.neural_style import pixels
from legacy_style.torch7 import image_files, nn
from legacy_style.torch7.image_files import Notice
from legacy_style.torch7.random import Generator

LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
RATIOS = (1e-5, 1e-4, 1e-3, 1e-2)

# The deviation of the noise, in 0..255; the paper does not say its own.
_NOISE = 1.0

_CORRECTIONS = 20


@dataclass(frozen=True)
class Terms:
    """A total loss: `alpha` times the content losses of layers, `beta` times the style loss of others."""

    content: tuple[str, ...] = ()
    style: tuple[str, ...] = ()
    alpha: float = 1.0
    beta: float = 1.0


def up_to(layer: str) -> list[tuple[str, ...]]:
    """The growing sets of style layers of figures 1 and 3, from conv1_1 alone to all as far as `layer`."""
    if layer not in LAYERS:
        raise OptionError(f"{layer!r} is none of the paper's style layers, which are {', '.join(LAYERS)}")
    return [LAYERS[: i + 1] for i in range(LAYERS.index(layer) + 1)]


class SummedContentLoss(ContentLoss):
    """strength / 2 * sum (F - P)^2."""

    def weight(self, count: float) -> float:
        return self.strength * count / 2


class SummedStyleLoss(StyleLoss):
    """strength / (4 N^2 M^2) * sum (G - A)^2, N being the number of feature maps and M that of their positions."""

    def weight(self, channels: int) -> float:
        # A StyleLoss's mean over N x N entries of (G - A) / (N M) is the paper's sum over N^4 M^2.
        return self.strength * channels**2 / 4


def build(
    chain: Sequence[loadcaffe.Module],
    terms: Terms,
    content: Tensor | None,
    style: Tensor | None,
    dtype: torch.dtype = torch.float32,
    tile: int = 0,
) -> Objective:
    """The total loss and its gradient, for images (1, 3, H, W) as `to_network` makes them, all of one size.

    With `tile`, images are worked in tiles of that side.

    Content: 1/2 sum (F - P)^2. Style: sum of w_l / (4 N_l^2 M_l^2) * sum (G - A)^2, N_l being the number of
    feature maps and M_l that of their positions.
    """
    session = Session(build_network(chain, terms, dtype), tile=tile)
    if content is not None:
        session.set_content(content)
    if style is not None:
        session.set_size(*style.shape[2:])
        session.set_styles([style])
    first = style if content is None else content
    assert first is not None
    return session.objective(*first.shape[2:])


def build_network(
    chain: Sequence[loadcaffe.Module], terms: Terms, dtype: torch.dtype = torch.float32
) -> Network:
    """The network with the losses of `terms`, on the GPU where there is one."""
    losses: dict[str, list[Loss]] = {rectified(name): [] for name in (*terms.content, *terms.style)}
    for name in terms.content:
        losses[rectified(name)].append(SummedContentLoss(f"content {name}", terms.alpha))
    for name in terms.style:
        losses[rectified(name)].append(SummedStyleLoss(f"style {name}", terms.beta / len(terms.style)))
    pooling = network.pool_rounding_up(nn.SpatialAveragePooling)
    net = network.build(network.replace_pooling(chain, pooling), losses)
    net.dtype = dtype
    network.place(net, [devices.default()])
    return net


def plans(
    chain: Sequence[loadcaffe.Module], images: Sequence[Terms], size: tuple[int, int], tile: int
) -> list[Plan]:
    """What each image with one of `images` as its terms will need, at a size of (width, height).

    With tiles of side `tile`, or, for 0, where it does not fit in one piece.
    """
    vectors = {"the image and L-BFGS's directions": 8, "L-BFGS's correction pairs": 2 * _CORRECTIONS}
    by_layers: dict[object, Plan] = {}
    for terms in images:
        if (terms.content, terms.style) not in by_layers:
            by_layers[terms.content, terms.style] = Session(build_network(chain, terms)).plan(
                (size[1], size[0]),
                [(size[1], size[0])] if terms.style else [],
                vectors,
                ways=["a smaller --image-size"],
                tile=tile,
            )
    return [by_layers[terms.content, terms.style] for terms in images]


def largest(plans: Sequence[Plan]) -> Plan:
    """The plan of the image that needs most."""
    return min(plans, key=lambda each: (each.tile or math.inf, -each.peak))


def rectified(layer: str) -> str:
    """The ReLU behind a convolution: relu1_1 for conv1_1."""
    return layer.replace("conv", "relu")


OnEvaluation = Callable[[list[float], Tensor, Tensor, float], object]
"""Is told of an evaluation: all total losses so far, the image that was evaluated, and the best one, (1, 3, H, W); and
which share of the descent is done, up to 1.

Where it returns something true, the best one is the result.
"""


@dataclass(frozen=True)
class Reconstruction:
    """`image`: the best that was evaluated, (1, 3, H, W); all total losses in order; whether it was stopped."""

    image: Tensor
    losses: list[float]
    stopped: bool


def most_evaluations(iterations: int) -> int:
    """So many evaluations an image takes at most: a quarter more than iterations (torch.optim.LBFGS)."""
    return iterations * 5 // 4


def minimise(
    objective: Objective, start: Tensor, iterations: int, on_evaluation: OnEvaluation | None = None
) -> Reconstruction:
    """L-BFGS from `start`, (1, 3, H, W).

    Unlike neural_style.lua's, it searches along each line, since the losses are not scaled to suit it. Raises
    DivergenceError.
    """
    x = start.to(objective.network.layers[0].device, copy=True)
    best, losses = x, list[float]()

    def closure() -> float:
        nonlocal best
        values, x.grad = objective(x)
        content, style = (objective.network.values_from(source, values) for source in ("content", "style"))
        total = sum(content) + sum(style)
        if not math.isfinite(total):
            raise DivergenceError(
                f"the loss is not finite at evaluation {len(losses) + 1}; try another --seed"
            )
        if not losses or total < min(losses):
            best = x.clone()
        losses.append(total)
        # It ends with its iterations or with its evaluations, whichever are done first.
        share = max((optimizer.state[x].get("n_iter", 0) - 1) / iterations, len(losses) / most)
        if on_evaluation is not None and on_evaluation(losses, x, best, min(share, 1.0)):
            raise Stopped
        return total

    most = most_evaluations(iterations)
    optimizer = torch.optim.LBFGS(
        [x],
        max_iter=iterations,
        max_eval=most,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=_CORRECTIONS,
        line_search_fn="strong_wolfe",
    )
    step: Callable[[Callable[[], float]], object] = optimizer.step
    try:
        step(closure)
    except Stopped:
        return Reconstruction(best, losses, True)
    return Reconstruction(best, losses, False)


def load(
    path: str, size: int | tuple[int, int], *, exif_rotate: bool = False, notice: Notice | None = None
) -> Image.Image:
    """An image as RGB, `size` pixels on its longer side, or cut to (width, height).

    Raises as `image_files.opened` does; `exif_rotate` and `notice` are its options.
    """
    with image_files.opened(path, exif_rotate=exif_rotate, notice=notice) as file:
        image = file.image.convert("RGB")
        if file.orientation != 1:
            image = Image.fromarray(file.upright(np.asarray(image)))
    if isinstance(size, tuple):
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    scale = size / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    resized: Image.Image = image.resize((width, height), Image.Resampling.LANCZOS)
    return resized


def to_network(image: Image.Image) -> Tensor:
    """RGB to BGR of 0..255 less the mean pixel, (1, 3, H, W) float32."""
    blue_first = np.asarray(image, np.float32)[:, :, ::-1] - np.array(pixels.MEAN_PIXEL, np.float32)
    return torch.from_numpy(np.ascontiguousarray(blue_first.transpose(2, 0, 1)))[None]


def to_image(x: Tensor) -> Image.Image:
    """The inverse of `to_network`, rounded and cut off to 0..255."""
    blue_first: NDArray[np.float64] = x[0].cpu().double().numpy().transpose(1, 2, 0) + pixels.MEAN_PIXEL
    image: Image.Image = Image.fromarray(blue_first[:, :, ::-1].round().clip(0, 255).astype(np.uint8))
    return image


def white_noise(size: tuple[int, int], seed: int | None) -> Tensor:
    """White noise about the mean pixel, (1, 3, H, W) for an image of (width, height)."""
    noise = Generator(seed).randn(1, 3, size[1], size[0]) * _NOISE
    return torch.from_numpy(noise.astype(np.float32))


if __name__ == "__main__":
    from legacy_style.cli.paper import main

    sys.exit(main())
