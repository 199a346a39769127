"""The exact test of original colours: on what the original wrote, and on what it must refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recordings import RECORDED, SHARED, needs_shared

from legacy_style.compare import metrics
from legacy_style.programs.neural_style.pixels import original_colors
from legacy_style.torch7 import image

PUBLISHED = SHARED / "published"


def photo(height: int, width: int, seed: int = 0) -> metrics.Array:
    """Saturated noise of many frequencies, RGB in [0,1]."""
    rng = np.random.default_rng(seed)
    coarse = image.scale_to(rng.random((3, 5, 7)), width, height)
    return np.clip(coarse * 1.2 - 0.1 + rng.normal(0, 0.05, coarse.shape), 0, 1)


def as_saved(picture: metrics.Array) -> metrics.Bytes:
    """What image.save writes: clamped and truncated."""
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def test_what_original_colors_makes_passes_even_where_it_is_clamped() -> None:
    content = photo(60, 80)
    generated = photo(60, 80, seed=1) * 3 - 1  # far outside [0,1], as before clamping
    picture = as_saved(original_colors(content, generated))
    assert (picture == 0).any() and (picture == 255).any()
    assert metrics.original_colors_test(picture, content) == metrics.OriginalColors(True, 0.0, 0.0)


def test_rounding_to_bytes_instead_of_truncating_passes_too() -> None:
    content = photo(40, 40)
    made = original_colors(content, photo(40, 40, seed=1) * 0.5 + 0.25)
    picture = np.rint(np.clip(made, 0, 1) * 254).astype(np.uint8).transpose(1, 2, 0)
    assert not metrics.original_colors_test(picture, content).passed  # scaled by 254: other colours
    rounded = np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    assert metrics.original_colors_test(rounded, content).passed


def test_the_content_is_scaled_as_the_original_scales_it() -> None:
    content = photo(97, 151)
    scaled = image.scale(content, 64)
    picture = as_saved(original_colors(scaled, photo(41, 64, seed=1)))
    assert metrics.original_colors_test(picture, content).passed


def test_one_wrong_level_in_one_pixel_fails() -> None:
    content = photo(40, 40) * 0.3 + 0.3
    picture = as_saved(original_colors(content, photo(40, 40, seed=1) * 0.3 + 0.3))
    assert metrics.original_colors_test(picture, content).passed
    picture[7, 9, 2] += 2
    result = metrics.original_colors_test(picture, content)
    assert not result.passed
    assert result.failing == 1 / 1600
    assert 0 < result.worst <= 2


def test_other_constants_for_yuv_fail() -> None:
    """BT.601 as Pillow and JPEG have it, instead of torch/image's constants."""
    content, generated = photo(40, 40), photo(40, 40, seed=1)
    y_of = np.array([0.299, 0.587, 0.114])
    y = np.tensordot(y_of, generated - content, axes=1)
    cb, cr = 0.564 * (content[2] - y), 0.713 * (content[0] - y)  # as if from bytes of Y
    picture = as_saved(np.stack([y + 1.402 * cr, y - 0.344 * cb - 0.714 * cr, y + 1.772 * cb]))
    assert not metrics.original_colors_test(picture, content).passed


def test_a_picture_of_another_shape_was_not_made_from_this_content() -> None:
    result = metrics.original_colors_test(np.zeros((40, 40, 3), np.uint8), photo(40, 80))
    assert not result.passed and not result.same_size


@needs_shared
def test_every_published_original_color_picture_passes() -> None:
    content = image.load(PUBLISHED / "examples/inputs/tubingen.jpg")
    pictures = sorted((PUBLISHED / "examples/outputs/original_color").glob("*.png"))
    assert len(pictures) == 5
    for path in pictures:
        assert metrics.original_colors_test(metrics.load_bytes(path), content).passed, path.name
    plain = metrics.load_bytes(PUBLISHED / "examples/outputs/tubingen_starry.png")
    assert metrics.original_colors_test(plain, content).failing > 0.9


@needs_shared
@pytest.mark.parametrize("case", ["orig_colors", "orig_colors_gray"])
def test_recordings_of_original_colors_pass(case: str) -> None:
    index = json.loads((RECORDED / "INDEX.json").read_text())
    (run,) = [run for run in index["runs"] if run["name"] == case]
    argv = run["argv"]
    name = (
        argv[argv.index("-content_image") + 1] if "-content_image" in argv else "examples/inputs/tubingen.jpg"
    )
    content = image.load(RECORDED / name)
    for file in run["files"]:
        if file.endswith(".png"):
            picture = metrics.load_bytes(RECORDED / "runs" / case / file)
            assert metrics.original_colors_test(picture, content).passed, file
