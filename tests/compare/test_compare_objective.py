"""The objective of a picture, and two pictures side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compare_cases import THIN, printed_losses, write_network, write_picture
from PIL import Image
from recordings import RECORDED, needs_shared

import legacy_style.programs.neural_style.story as stylize
from legacy_style.compare import metrics, objective
from legacy_style.compare.objective import Meter, tv_value
from legacy_style.engine.losses import TVLoss
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.options import Options, parse
from legacy_style.torch7 import image

LAYERS = {"content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1", "gpu": "-1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_network(tmp_path / "small.caffemodel")
    write_picture(tmp_path / "content.png", 48, 36, 1)
    write_picture(tmp_path / "style.png", 48, 36, 2)
    write_picture(tmp_path / "a.png", 32, 24, 3)
    write_picture(tmp_path / "b.png", 32, 24, 4)
    return tmp_path


def small_options(folder: Path) -> Options:
    return Options(
        content_image=str(folder / "content.png"),
        style_image=str(folder / "style.png"),
        image_size=32.0,
        model_file=str(folder / "small.caffemodel"),
        **LAYERS,  # type: ignore[arg-type]  # all text
    )


@needs_shared
@pytest.mark.parametrize("case", ["adam_init_image", "odd", "pool_avg_odd"])
def test_the_content_image_has_the_losses_that_the_original_printed_at_its_start(case: str) -> None:
    index = json.loads((RECORDED / "INDEX.json").read_text())
    (run,) = [each for each in index["runs"] if each["name"] == case]
    parsed = parse(run["argv"][2:])
    assert parsed is not None
    options = dataclasses.replace(
        parsed.options,
        content_image=str(RECORDED / parsed.options.content_image),
        style_image=str(RECORDED / parsed.options.style_image),
        model_file=str(THIN),
    )
    first = printed_losses((RECORDED / "runs" / case / "stdout.txt").read_text())[0]
    found = Meter(options)(image.load(options.content_image))
    assert found.content == pytest.approx(first.content, rel=1e-5, abs=1e-6)
    assert found.style == pytest.approx(first.style, rel=1e-5)
    assert found.total == pytest.approx(first.total, rel=1e-5)


def test_a_picture_is_measured_by_what_would_have_been_minimised(folder: Path) -> None:
    options = small_options(folder)
    found = Meter(options)(image.load(folder / "a.png"))
    start = dataclasses.replace(
        options, init="image", init_image=str(folder / "a.png"), num_iterations=1.0, optimizer="adam"
    )
    first = stylize.stylize(start, save=False).losses[0]
    assert (found.content, found.style) == (first.content, first.style)


def test_the_style_image_is_at_no_distance_from_its_own_gram_matrices(folder: Path) -> None:
    meter = Meter(small_options(folder))
    assert meter(image.load(folder / "style.png")).gram == (0.0, 0.0)
    assert min(meter(image.load(folder / "a.png")).gram) > 0


def test_the_distance_of_gram_matrices_is_relative(folder: Path) -> None:
    """Against numpy, on the first layer: convolution by hand, ReLU, F F^T / (C H W)."""
    from legacy_style.formats.caffe import caffemodel

    layer = caffemodel.read(folder / "small.caffemodel").layer("conv1_1")
    weight, bias = (np.array(blob.data(), dtype=np.float64) for blob in layer.blobs)

    def gram(path: Path) -> np.ndarray:  # type: ignore[type-arg]  # float64
        x = pixels.preprocess(image.scale(image.load(path), 32))
        x = np.pad(x.astype(np.float32).astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        maps = np.maximum(np.einsum("chwij,ocij->ohw", windows, weight) + bias.reshape(-1, 1, 1), 0)
        flat = maps.reshape(len(maps), -1)
        return flat @ flat.T / maps.size

    ours, target = gram(folder / "a.png"), gram(folder / "style.png")
    expected = np.linalg.norm(ours - target) / np.linalg.norm(target)
    found = Meter(small_options(folder))(image.load(folder / "a.png"))
    assert found.gram[0] == pytest.approx(expected, rel=1e-4)


def test_a_picture_of_another_size_is_scaled_as_the_original_scales(folder: Path) -> None:
    meter = Meter(small_options(folder))
    large = image.load(folder / "content.png")
    assert meter(large) == meter(image.scale(large, 32))


def test_the_value_of_tv_by_hand() -> None:
    x = torch.tensor([[1.0, 4.0], [3.0, 9.0]]).repeat(1, 3, 1, 1)
    # Only the upper left pixel has both neighbours: (1-4)^2 + (1-3)^2 = 13, in three channels.
    assert tv_value(x, 0.5) == 0.5 / 2 * 3 * 13
    assert tv_value(x, 0) == 0


def test_the_value_of_tv_belongs_to_its_gradient() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 5, 7)))
    grad = torch.zeros_like(x)
    TVLoss("tv", 0.3).backward(x, grad, ((0, 5), (0, 7)))
    for index in np.ndindex(1, 3, 5, 7):
        step = torch.zeros_like(x)
        step[index] = 1e-3
        slope = (tv_value(x + step, 0.3) - tv_value(x - step, 0.3)) / 2e-3
        assert slope == pytest.approx(float(grad[index]), abs=1e-9)


def test_two_pictures_without_a_network(folder: Path) -> None:
    found = objective.compare((folder / "a.png", folder / "b.png"))
    assert found.pixels == metrics.compare(
        metrics.load_bytes(folder / "a.png"), metrics.load_bytes(folder / "b.png")
    )
    assert found.objectives == () and found.passed
    text = "\n".join(objective.as_text(found, ("a", "b")))
    assert "size                 32x24" in text and "CIEDE2000" in text and "objective" not in text


def test_two_pictures_of_other_sizes_still_have_histograms(folder: Path) -> None:
    found = objective.compare((folder / "a.png", folder / "content.png"))
    assert found.pixels is None and found.sizes == ("32x24", "48x36")
    assert min(found.histogram) > 0
    assert "other sizes cannot be compared" in "\n".join(objective.as_text(found, ("a", "b")))


def test_two_pictures_under_one_network(folder: Path) -> None:
    found = objective.compare(
        (folder / "a.png", folder / "style.png"),
        content=folder / "content.png",
        styles=[folder / "style.png"],
        options=small_options(folder),
    )
    meter = Meter(small_options(folder))
    for measured, name in zip(found.objectives, ("a.png", "style.png"), strict=True):
        alone = meter(image.load(folder / name))
        assert (measured.content, measured.style, measured.gram) == (alone.content, alone.style, alone.gram)
    assert found.layers == (("relu2_1",), ("relu1_1", "relu2_1"))
    lines = list(objective.as_text(found, ("a", "b")))
    assert any(line.startswith("content relu2_1") for line in lines)
    assert any(line.startswith("TV, not in the total") for line in lines)


def test_a_content_that_does_not_fit_is_refused(folder: Path) -> None:
    write_picture(folder / "tall.png", 20, 60, 5)
    with pytest.raises(OptionError, match="do not belong together"):
        objective.compare(
            (folder / "a.png", folder / "b.png"),
            content=folder / "tall.png",
            styles=[folder / "style.png"],
            options=small_options(folder),
        )


@pytest.mark.parametrize("words", [{"original_colors": True}, {"styles": [Path("style.png")]}])
def test_what_needs_the_content_says_so(folder: Path, words: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="--content"):
        objective.compare((folder / "a.png", folder / "b.png"), **words)  # type: ignore[arg-type]  # as given


def test_original_colors_of_two_pictures(folder: Path) -> None:
    content = image.scale(image.load(folder / "content.png"), 32)
    mixed = pixels.original_colors(content, image.load(folder / "a.png"))
    Image.fromarray((np.clip(mixed, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)).save(
        folder / "good.png"
    )
    found = objective.compare(
        (folder / "good.png", folder / "a.png"), content=folder / "content.png", original_colors=True
    )
    assert [each.passed for each in found.colors] == [True, False]
    assert not found.passed
    text = "\n".join(objective.as_text(found, ("good.png", "a.png")))
    assert "good.png: U and V are the content's, exactly" in text
    assert "a.png: 9" in text or "a.png: 100.00%" in text
