"""--color-transfer: what the network is given, and what is saved; the formulas are tested in engine/test_colors.py."""

from __future__ import annotations

import numpy as np
import pytest
from thin_options import thin_options

from legacy_style.engine import colors
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.images import share_images
from legacy_style.programs.neural_style.settings import read
from legacy_style.programs.neural_style.story import stylize
from legacy_style.torch7.image import load, scale

pytestmark = pytest.mark.usefixtures("two_images")

SIZE = 40.0


def options(**given):
    return thin_options(**{"image_size": SIZE, "num_iterations": 3.0, "style_layers": "relu1_1", **given})


def given_to_the_network(**more):
    """Content and style as RGB, (3, H, W)."""
    images = share_images(read(options(**more)), Ranks())
    return [pixels.deprocess(image[0].numpy()) for image in (images.content, *images.styles)]


@pytest.mark.parametrize(
    ("mode", "which"), [("match", "pca"), ("pca", "pca"), ("chol", "chol"), ("sym", "sym")]
)
def test_styles_take_the_colours_of_the_content_before(mode, which):
    content, style = given_to_the_network(color_transfer=mode)
    matched = colors.match(load("style.png"), load("content.png"), which)
    np.testing.assert_allclose(style, scale(matched, SIZE), rtol=0, atol=1e-6)
    np.testing.assert_allclose(content, scale(load("content.png"), SIZE), rtol=0, atol=1e-6)


def test_luminance_is_a_transfer_of_gray_images_that_get_their_colours_back():
    content, style = given_to_the_network(color_transfer="luminance")
    for image in (content, style):
        np.testing.assert_allclose(image, np.broadcast_to(image[:1], image.shape), rtol=0, atol=1e-5)
    wanted = colors.luminance(load("content.png"))
    np.testing.assert_allclose(content, scale(wanted, SIZE), rtol=0, atol=1e-6)
    matched = colors.match_luminance(colors.luminance(load("style.png")), wanted)
    np.testing.assert_allclose(style, scale(matched, SIZE), rtol=0, atol=1e-6)
    result = stylize(options(color_transfer="luminance", init="image"), save=False).image
    colored = scale(load("content.png"), SIZE)
    np.testing.assert_allclose(result, colors.with_luminance(colored, result), rtol=0, atol=1e-9)
    assert not np.allclose(result, colored, atol=0.01)


def test_lab_takes_the_lightness_of_the_plain_result():
    plain = stylize(options(), save=False)
    result = stylize(options(color_transfer="lab"), save=False)
    assert result.losses == plain.losses
    expected = colors.with_lightness(scale(load("content.png"), SIZE), plain.image)
    np.testing.assert_array_equal(result.image, expected)


def test_an_init_image_is_gray_too_where_all_are():
    images = share_images(
        read(options(color_transfer="luminance", init="image", init_image="style.png")), Ranks()
    )
    rgb = pixels.deprocess(images.init[0].numpy())
    np.testing.assert_allclose(rgb, np.broadcast_to(rgb[:1], rgb.shape), rtol=0, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(OptionError, match="takes match, pca, chol, sym, luminance or lab, not 'hsv'"):
        read(options(color_transfer="hsv"))
    with pytest.raises(OptionError, match="-original_colors 1 and --color-transfer lab both give"):
        read(options(color_transfer="lab", original_colors=1.0))
    assert read(options(color_transfer="match", original_colors=1.0)).original_colors
