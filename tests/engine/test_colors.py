"""engine.colors: the equations of the paper, written out for single pixels, and scikit-image's L*a*b*."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import color as skimage_color

from legacy_style.engine import colors
from legacy_style.errors import OptionError


@pytest.fixture
def images():
    generator = np.random.default_rng(3)
    mixing = np.array([[0.6, 0.3, 0.1], [0.1, 0.5, 0.1], [0.0, 0.2, 0.3]])
    style = 0.35 + 0.06 * np.tensordot(mixing, generator.standard_normal((3, 40, 50)), 1)
    content = 0.5 + 0.05 * np.tensordot(mixing.T, generator.standard_normal((3, 30, 20)), 1)
    return style, content


def statistics(image):
    flat = image.reshape(3, -1)
    return flat.mean(1), np.cov(flat, bias=True)


@pytest.mark.parametrize("mode", colors.MODES)
def test_a_matched_image_has_the_mean_and_covariance_of_the_other(images, mode):
    style, content = images
    mean, covariance = statistics(colors.match(style, content, mode))
    wanted_mean, wanted = statistics(content)
    assert mean == pytest.approx(wanted_mean, abs=1e-12)
    # The constant that is added to both variances leaves a difference of its own size.
    assert covariance == pytest.approx(wanted, abs=2 * colors.EPSILON)


@pytest.mark.parametrize("mode", colors.MODES)
def test_the_matrix_solves_the_paper_s_equation(images, mode):
    style, content = (statistics(image)[1] for image in images)
    a = colors.transform(style, content, mode)
    assert a @ style @ a.T == pytest.approx(content, rel=1e-9)


def test_each_mode_is_the_matrix_that_it_is_named_after(images):
    from scipy.linalg import sqrtm

    style, content = (statistics(image)[1] for image in images)
    pca = colors.transform(style, content, "pca")
    assert pca == pytest.approx(sqrtm(content) @ np.linalg.inv(sqrtm(style)), rel=1e-8)
    chol = colors.transform(style, content, "chol")
    assert chol == pytest.approx(
        np.linalg.cholesky(content) @ np.linalg.inv(np.linalg.cholesky(style)), rel=1e-8
    )
    assert np.triu(chol, 1) == pytest.approx(np.zeros((3, 3)), abs=1e-12)
    symmetric = colors.transform(style, content, "sym")
    assert symmetric == pytest.approx(symmetric.T, abs=1e-12)
    assert np.linalg.eigvalsh(symmetric).min() > 0


def test_an_image_matched_to_itself_stays(images):
    for mode in colors.MODES:
        assert colors.match(images[0], images[0], mode) == pytest.approx(images[0], abs=1e-9)


def test_a_gray_image_can_be_matched(images):
    gray = colors.luminance(images[0])
    assert np.isfinite(colors.match(gray, images[1], "chol")).all()


def test_an_unknown_mode_names_those_that_there_are(images):
    with pytest.raises(OptionError, match="one of pca, chol, sym"):
        colors.match(*images, "hist")


def test_luminance_is_moved_as_equation_10_says(images):
    style, content = (colors.luminance(image)[0] for image in images)
    matched = colors.match_luminance(style, content)
    expected = content.std() / style.std() * (style[3, 4] - style.mean()) + content.mean()
    assert matched[3, 4] == pytest.approx(expected, rel=1e-12)
    assert (matched.mean(), matched.std()) == pytest.approx((content.mean(), content.std()), rel=1e-12)
    flat = np.full((3, 4, 4), 0.25)
    assert colors.match_luminance(flat, content) == pytest.approx(np.full((3, 4, 4), content.mean()))


def test_a_result_keeps_its_luminance_and_takes_the_content_s_colours(images):
    content = images[1]
    result = np.random.default_rng(4).uniform(0.2, 0.8, content.shape)
    mixed = colors.with_luminance(content, result)
    assert colors.luminance(mixed) == pytest.approx(colors.luminance(result), abs=1e-12)
    # Equal luminance and equal I and Q: the difference to the content is gray.
    gray = (mixed - content)[:, 0, 0]
    assert np.ptp(gray) == pytest.approx(0, abs=1e-3)


def test_lab_is_scikit_image_s(images):
    pixels = np.random.default_rng(5).uniform(0, 1, (3, 6, 7))
    theirs = skimage_color.rgb2lab(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert colors.to_lab(pixels) == pytest.approx(theirs, abs=0.02)
    assert colors.from_lab(colors.to_lab(pixels)) == pytest.approx(pixels, abs=1e-9)


def test_lightness_is_the_result_s_where_the_colours_allow_it(images):
    content = images[1]
    result = np.full_like(content, 0.45)
    mixed = colors.to_lab(colors.with_lightness(content, result))
    assert mixed[0] == pytest.approx(colors.to_lab(result)[0], abs=1e-6)
    assert mixed[1:] == pytest.approx(colors.to_lab(content)[1:], abs=1e-6)


def test_before_and_after_a_transfer_are_the_paper_s_two_ways(images):
    style, content = images
    same, matched = colors.before("match", content, [style, style])
    assert same is content and len(matched) == 2
    np.testing.assert_array_equal(matched[0], colors.match(style, content, "pca"))
    assert colors.after("match", content, content) is content
    gray, (other,) = colors.before("luminance", content, [style])
    np.testing.assert_array_equal(gray[0], gray[2])
    assert (other.mean(), other.std()) == pytest.approx((gray.mean(), gray.std()))
    # What comes out gray as it went in gets its colours back.
    np.testing.assert_allclose(colors.after("luminance", content, gray), content, rtol=0, atol=1e-12)
    np.testing.assert_allclose(colors.after("lab", content, content), content, rtol=0, atol=1e-6)
