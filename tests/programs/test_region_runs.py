"""Runs with --content-regions, --style-regions and --mask, in small images drawn here."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from recorded_runs import draw_stand_in
from recordings import SHIPPED

from legacy_style import Options
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.story import stylize
from legacy_style.torch7 import image as torch_image

VGG = str(SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel")


RED, BLUE = (255, 0, 0), (0, 0, 255)


def size(name):
    with Image.open(name) as image:
        return image.size


def pixels(name):
    with Image.open(name) as image:
        return np.asarray(image)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A content image with its map and its mask, and two style images, one with a map."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("content", "style", "other")):
        draw_stand_in(tmp_path / f"{name}.png", number)
    width, height = size("content.png")
    halves = np.zeros((height, width, 3), np.uint8)
    halves[:, : width // 2] = RED
    halves[:, width // 2 :] = BLUE
    Image.fromarray(halves).save("halves.png")
    Image.fromarray(np.uint8(halves[:, :, 2])).save("mask.png")
    width, height = size("style.png")
    thirds = np.zeros((height, width, 3), np.uint8)
    thirds[:, : width // 3] = RED
    thirds[:, width // 3 : 2 * width // 3] = BLUE
    Image.fromarray(thirds).save("thirds.png")
    return tmp_path


def options(**given):
    common = {"content_image": "content.png", "style_image": "style.png", "model_file": VGG, "gpu": "-1"}
    quick = {"image_size": 40.0, "num_iterations": 4.0, "seed": 1.0, "style_layers": "relu1_1,relu2_1"}
    return Options(**{**common, **quick, "content_layers": "relu2_2", **given})


def test_a_mask_keeps_the_content_to_the_byte_and_styles_the_rest(folder):
    result = stylize(options(mask="mask.png", mask_feather=10.0))
    content = torch_image.scale(torch_image.load("content.png"), 40.0)
    saved = pixels("out.png")
    np.testing.assert_array_equal(saved[:, :20], np.uint8(content * 255).transpose(1, 2, 0)[:, :20])
    difference = np.abs(result.image - content).max((0, 1))
    assert difference[25:].min() > 0.01 and difference[:20].max() == 0
    assert difference[20] > 0  # the soft edge begins inside


def test_two_styles_for_two_regions_differ_from_one_style_for_both(folder):
    both = stylize(
        options(style_image="style.png,other.png", content_regions="halves.png", style_regions="red,blue")
    )
    swapped = stylize(
        options(style_image="style.png,other.png", content_regions="halves.png", style_regions="blue,red")
    )
    assert both.losses[0].style != swapped.losses[0].style
    # Where both regions have the same styles, they have nothing to choose between.
    first, second = (
        stylize(options(style_image=styles, content_regions="halves.png", style_regions=maps))
        for styles, maps in (("style.png,other.png", "red,blue"), ("other.png,style.png", "blue,red"))
    )
    np.testing.assert_allclose(first.image, second.image, rtol=0, atol=1e-9)


def test_a_style_s_map_is_told_what_of_it_is_not_used(folder):
    notices = []
    stylize(options(content_regions="halves.png", style_regions="thirds.png"), notice=notices.append)
    assert notices == [
        "thirds.png: --content-regions has no #000000 (black), so that this part of the style image is not used"
    ]


def test_a_region_of_weight_0_has_no_content_loss(folder):
    plain = stylize(
        options(content_regions="halves.png", style_regions="none", num_iterations=1.0, init="random")
    )
    none = stylize(
        options(
            content_regions="halves.png",
            content_region_weights="red=0,blue=0",
            num_iterations=1.0,
            init="random",
        )
    )
    assert plain.losses[0].content[0] > 0 and none.losses[0].content == (0.0,)
    assert none.losses[0].style == plain.losses[0].style


def test_regions_of_a_run_are_the_same_in_tiles_and_after_a_kill(folder):
    given = {
        "content_regions": "halves.png",
        "style_regions": "thirds.png",
        "content_region_weights": "red=3",
    }
    given |= {"mask": "mask.png", "save_iter": 2.0, "init": "image"}
    whole = stylize(options(**given))
    tiled = stylize(options(**given, tile=32))
    np.testing.assert_allclose(tiled.image, whole.image, rtol=0, atol=2e-3)
    stylize(options(**{**given, "num_iterations": 2.0}, checkpoint="state"))
    resumed = stylize(options(**given, resume="state"))
    np.testing.assert_array_equal(resumed.image, whole.image)
    Image.fromarray(pixels("halves.png")[:, ::-1]).save("halves.png")
    with pytest.raises(OptionError, match="the regions or the mask changed"):
        stylize(options(**given, resume="state"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"style_regions": "none"},
            "--style-regions needs the regions of the content: give --content-regions too",
        ),
        ({"content_region_weights": "red=1"}, "--content-region-weights needs the regions of the content"),
        (
            {"content_regions": "halves.png", "style_regions": "a.png,b.png"},
            "has 2 elements for 1 style images",
        ),
        (
            {"content_regions": "halves.png", "content_region_weights": "red"},
            "'red' is no colour with a weight",
        ),
        ({"content_regions": "none.png"}, "none.png"),
        ({"content_regions": "noise.png"}, "noise.png: no area of one colour"),
        ({"mask": "black.png"}, "black.png: all of it is black; paint white"),
        ({"mask": "wide.png"}, "--mask: a map of 80x10 pixels has other proportions"),
    ],
)
def test_what_cannot_be_is_one_sentence(given, message, folder):
    width, height = size("content.png")
    Image.new("L", (width, height)).save("black.png")
    Image.new("L", (80, 10), 255).save("wide.png")
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3))
    Image.fromarray(noise.astype(np.uint8)).save("noise.png")
    with pytest.raises(OptionError, match=message):
        stylize(options(**given))


def test_a_feather_is_a_percentage():
    with pytest.raises(OptionError, match="--mask-feather takes per cent, 0 to 100, not 101"):
        Options(mask_feather=101.0)
