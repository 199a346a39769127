"""Two pictures side by side: sizes, pixels, and, with a content and a style, the objective of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from legacy_style.compare import metrics
from legacy_style.compare.metrics import OriginalColors, Pixels
from legacy_style.compare.objective import Meter
from legacy_style.compare.results import MeasuredObjective, number
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7 import image as torch7_image


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
        if tested.passed:
            yield f"original colours     {name}: U and V are the content's, exactly"
        elif not tested.same_size:
            yield f"original colours     {name}: the content does not scale to its size"
        else:
            yield (
                f"original colours     {name}: {tested.failing:.2%} of the pixels have other U and V,"
                f" by up to {number(tested.worst)} levels"
            )
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
