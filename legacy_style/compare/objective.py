"""What the network makes of a picture, and two pictures side by side.

`Meter` gives the objective of a command line, measured on any picture: the program's own functions build the network
and capture the targets, so a picture is measured by what would have been minimised. `compare` gives sizes and pixels of
two pictures, and with a content and a style the objective of both.

Notes: a picture of another size is scaled as the original scales images; the value of the TV term, which the original
never computes, is the one whose gradient it uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from legacy_style.compare import metrics
from legacy_style.compare.metrics import Array, OriginalColors, Pixels
from legacy_style.compare.verdicts import MeasuredObjective, number
from legacy_style.engine.losses import Loss, StyleLoss
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import preparing, story
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.pixels import preprocess
from legacy_style.programs.neural_style.settings import read
from legacy_style.torch7 import image as torch7_image


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
            net, images = preparing.prepare(settings, story.load(settings))
            plan = preparing.make_plan(settings, net, images, Ranks())
            self._session = preparing.capture(net, images, settings, tile=plan.tile)
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


@dataclass(frozen=True)
class Pair:
    """What was found of two pictures; `pixels` None where their sizes differ.

    `objectives` and `layers` are () without a content and a style, `colors` () where they were not asked for.
    """

    sizes: tuple[str, str]
    histogram: tuple[float, float, float]
    pixels: Pixels | None
    layers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    objectives: tuple[MeasuredObjective, ...] = ()
    colors: tuple[OriginalColors, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every exact test that was asked for came out well."""
        return all(each.passed for each in self.colors)


def compare(
    paths: tuple[Path, Path],
    *,
    content: Path | None = None,
    styles: Sequence[Path] = (),
    options: Options | None = None,
    original_colors: bool = False,
) -> Pair:
    """Compare the pictures in two files.

    With `content` and `styles` both are measured by one and the same network, at the first one's size:
    that of `options`, which also says weights and layers. Raises OptionError where the content does not
    scale to the first picture's size, and what `Meter` raises.
    """
    pictures = [metrics.load_bytes(path) for path in paths]
    pair = Pair(
        sizes=(metrics.size_of(pictures[0]), metrics.size_of(pictures[1])),
        histogram=metrics.histogram_distance(pictures[0], pictures[1]),
        pixels=metrics.compare(*pictures) if pictures[0].shape == pictures[1].shape else None,
    )
    if original_colors:
        if content is None:
            raise OptionError("--original-colors needs the content image: give it with --content")
        loaded = torch7_image.load(content)
        tested = tuple(metrics.original_colors_test(picture, loaded) for picture in pictures)
        pair = dataclasses.replace(pair, colors=tested)
    if not styles:
        return pair
    if content is None:
        raise OptionError("--style needs the content image too: give it with --content")
    meter = Meter(
        dataclasses.replace(
            options or Options(),
            content_image=str(content),
            style_image=",".join(str(style) for style in styles),
            image_size=float(max(pictures[0].shape)),
        )
    )
    if (meter.height, meter.width) != pictures[0].shape[:2]:
        raise OptionError(
            f"{paths[0]}: {pair.sizes[0]} pixels, but {content} scales to {meter.width}x{meter.height};"
            " they do not belong together"
        )
    return dataclasses.replace(
        pair,
        layers=(meter.content_layers, meter.style_layers),
        objectives=tuple(meter(metrics.to_image(picture)) for picture in pictures),
    )


def as_text(pair: Pair, names: tuple[str, str]) -> Iterator[str]:
    """The findings as lines to read."""
    yield f"size                 {pair.sizes[0]}" + (
        f" and {pair.sizes[1]}" if pair.sizes[0] != pair.sizes[1] else ""
    )
    pixels = pair.pixels
    if pixels is None:
        yield "                     other sizes cannot be compared pixel by pixel"
    else:
        yield f"largest difference   {pixels.max_difference} levels"
        differing = f"{pixels.differing:.2%} of the pixels differ"
        yield f"mean difference      {number(pixels.mean_difference)} levels, {differing}"
        yield f"PSNR                 {number(pixels.psnr)} dB"
        yield f"SSIM                 {'under 11 pixels' if pixels.ssim is None else f'{pixels.ssim:.5f}'}"
        spread = f"95% within {number(pixels.color_p95)}, at most {number(pixels.color_max)}"
        yield f"CIEDE2000            {number(pixels.color_mean)} on average, {spread}"
    red, green, blue = map(number, pair.histogram)
    yield f"histogram distance   red {red}, green {green}, blue {blue} levels"
    for name, tested in zip(names, pair.colors, strict=False):
        yield f"original colours     {name}: {tested.text}"
    if pair.objectives:
        yield from _objective_lines(pair)


def _objective_lines(pair: Pair) -> Iterator[str]:
    a, b = pair.objectives
    yield ""
    yield f"{'objective':20} {'A':>10} {'B':>10} {'B / A':>8} {'Gram A':>9} {'Gram B':>9}"
    rows: list[tuple[str, float, float, str]] = []
    for index, layer in enumerate(pair.layers[0]):
        rows.append((f"content {layer}", a.content[index], b.content[index], ""))
    for index, layer in enumerate(pair.layers[1]):
        gram = f"{number(a.gram[index]):>9} {number(b.gram[index]):>9}"
        rows.append((f"style {layer}", a.style[index], b.style[index], gram))
    rows += [("total", a.total, b.total, ""), ("TV, not in the total", a.tv, b.tv, "")]
    for name, ours, theirs, gram in rows:
        ratio = f"{theirs / ours:.4f}" if ours else ""
        yield f"{name:20} {number(ours):>10} {number(theirs):>10} {ratio:>8} {gram}".rstrip()
