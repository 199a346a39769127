"""Pixel measures against scikit-image and scipy, on pictures made here."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wasserstein_distance
from skimage import color
from skimage import metrics as skimage_metrics

from legacy_style.compare import metrics
from legacy_style.errors import OptionError
from legacy_style.torch7 import image


def noise(height: int, width: int, seed: int) -> metrics.Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def disturbed(picture: metrics.Bytes, sigma: float, seed: int) -> metrics.Bytes:
    changed = picture + np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def smooth(height: int, width: int) -> metrics.Bytes:
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)]
    return np.stack(planes, axis=2).astype(np.uint8)


PAIRS = {
    "noise": (noise(37, 53, 1), noise(37, 53, 2)),
    "disturbed": (smooth(40, 31), disturbed(smooth(40, 31), 12, 3)),
    "shifted": (smooth(24, 64), np.roll(smooth(24, 64), 3, axis=1)),
    "inverted": (smooth(33, 33), 255 - smooth(33, 33)),
    "gray against colour": (np.full((20, 20, 3), 119, np.uint8), smooth(20, 20)),
    "smallest for SSIM": (noise(11, 11, 4), noise(11, 11, 5)),
}
each_pair = pytest.mark.parametrize(("a", "b"), PAIRS.values(), ids=PAIRS.keys())


@each_pair
def test_psnr_agrees_with_scikit_image(a: metrics.Bytes, b: metrics.Bytes) -> None:
    assert metrics.psnr(a, b) == pytest.approx(skimage_metrics.peak_signal_noise_ratio(a, b), rel=1e-12)


@each_pair
def test_ssim_agrees_with_scikit_image(a: metrics.Bytes, b: metrics.Bytes) -> None:
    expected = skimage_metrics.structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert metrics.ssim(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@each_pair
def test_color_difference_agrees_with_scikit_image(a: metrics.Bytes, b: metrics.Bytes) -> None:
    expected = color.deltaE_ciede2000(color.rgb2lab(a), color.rgb2lab(b))
    np.testing.assert_allclose(metrics.delta_e(a, b), expected, rtol=1e-9, atol=1e-9)
    measured = metrics.compare(a, b)
    assert measured.color_mean == pytest.approx(expected.mean())
    assert measured.color_p95 == pytest.approx(np.percentile(expected, 95))
    assert measured.color_max == pytest.approx(expected.max())


@each_pair
def test_histogram_distance_is_scipys_earth_movers(a: metrics.Bytes, b: metrics.Bytes) -> None:
    expected = [wasserstein_distance(a[..., c].ravel(), b[..., c].ravel()) for c in range(3)]
    np.testing.assert_allclose(metrics.histogram_distance(a, b), expected, rtol=1e-9)


# Sharma, Wu, Dalal (2005), table 1: pairs that published implementations got wrong.
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
        ((50, 2.4900, -0.0010), (50, -2.4900, 0.0011), 7.2195),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_color_difference_of_published_pairs(
    a: tuple[float, ...], b: tuple[float, ...], expected: float
) -> None:
    assert float(metrics.ciede2000(np.array(a, float), np.array(b, float))) == pytest.approx(
        expected, abs=5e-5
    )


def test_equal_pictures_are_at_no_distance() -> None:
    picture = smooth(30, 40)
    measured = metrics.compare(picture, picture.copy())
    assert dataclasses.asdict(measured) == {
        "width": 40,
        "height": 30,
        "max_difference": 0,
        "mean_difference": 0,
        "differing": 0,
        "psnr": math.inf,
        "ssim": pytest.approx(1),
        "histogram": (0, 0, 0),
        "color_mean": 0,
        "color_p95": 0,
        "color_max": 0,
    }


def test_levels_by_hand() -> None:
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0] = (3, 0, 0)
    b[1, 1] = (0, 200, 1)
    measured = metrics.compare(a, b)
    assert measured.max_difference == 200
    assert measured.mean_difference == 204 / 12
    assert measured.differing == 0.5
    assert measured.histogram == (0.75, 50, 0.25)


def test_ssim_needs_eleven_pixels() -> None:
    assert metrics.ssim(noise(10, 40, 1), noise(10, 40, 2)) is None


def test_other_sizes_are_refused() -> None:
    with pytest.raises(OptionError, match="3x2 and 2x3 pixels cannot be compared"):
        metrics.compare(noise(2, 3, 1), noise(3, 2, 1))


def test_bytes_survive_the_way_through_a_file(tmp_path: Path) -> None:
    picture = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    path = tmp_path / "levels.png"
    Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(metrics.load_bytes(path), picture)
    np.testing.assert_array_equal(metrics.to_image(picture), image.load(path))
