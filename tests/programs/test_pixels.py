"""legacy_style.programs.neural_style.pixels against the recorded arrays."""

from typing import Any

import numpy as np
from recordings import both_roots, component

from legacy_style.programs.neural_style import pixels
from legacy_style.torch7 import image

# The recording machine summed YUV with fused multiply-add (and the last few pixels of a row without), which
# rounds once where NumPy rounds twice: at most two units in the last place of a value near 1.
FUSED = 2.0**-51


@both_roots
def test_every_recorded_array_is_reproduced(root):
    arrays = component("preprocess", root)
    rgb = arrays["in_rgb01_double"]
    untouched = rgb.copy()
    yuv = image.rgb2yuv(rgb)
    generated = arrays["orig_colors_generated_in"]
    ours: dict[str, np.ndarray[Any, Any]] = {
        "preprocess_double": pixels.preprocess(rgb),
        "preprocess_float": pixels.preprocess(rgb).astype(np.float32),
        "deprocess_double": pixels.deprocess(arrays["preprocess_float"]),
        # image.minmax{min=0, max=1} does nothing (see below), so we have none.
        "minmax_0_1": pixels.deprocess(arrays["preprocess_float"]),
        "rgb2yuv": yuv,
        "yuv2rgb_of_rgb2yuv": image.yuv2rgb(yuv),
        "orig_colors_out": pixels.original_colors(rgb, generated),
    }
    for key, value in ours.items():
        tolerance = FUSED if key in ("rgb2yuv", "yuv2rgb_of_rgb2yuv", "orig_colors_out") else 0
        assert value.dtype == (np.float32 if key == "preprocess_float" else np.float64), key
        np.testing.assert_allclose(value, arrays[key], rtol=0, atol=tolerance, err_msg=key)
    np.testing.assert_array_equal(rgb, untouched)
    np.testing.assert_array_equal(rgb, arrays["in_unchanged_check"])
    np.testing.assert_array_equal(arrays["minmax_probe_out_min0_max1"], arrays["minmax_probe_in"])

    # Of minmax's other modes, which neural_style.lua does not use, we have nothing.
    unused = {"minmax_probe_out_saturate", "minmax_probe_inferred"}
    inputs = {"in_rgb01_double", "orig_colors_generated_in", "in_unchanged_check"}
    probes = {"minmax_probe_in", "minmax_probe_out_min0_max1"}
    assert set(arrays) == set(ours) | inputs | probes | unused


def test_preprocess_multiplies_by_256_and_swaps_red_and_blue():
    rgb = np.zeros((3, 1, 1))
    rgb[0] = 1
    bgr = pixels.preprocess(rgb)
    assert bgr.ravel().tolist() == [-103.939, -116.779, 256 - 123.68]


def test_deprocess_inverts_preprocess():
    rgb = np.random.RandomState(0).rand(3, 5, 7)
    np.testing.assert_allclose(pixels.deprocess(pixels.preprocess(rgb)), rgb, rtol=0, atol=1e-15)


def test_deprocess_takes_float32_and_does_not_clamp():
    bgr = np.full((3, 1, 1), 1000, np.float32)
    rgb = pixels.deprocess(bgr)
    assert rgb.dtype == np.float64
    assert rgb.min() > 4


def test_original_colors_keeps_the_content_hue_and_the_generated_brightness():
    rng = np.random.RandomState(1)
    content, generated = rng.rand(3, 4, 4), rng.rand(3, 4, 4)
    yuv = image.rgb2yuv(pixels.original_colors(content, generated))
    # The two matrices invert each other to about five digits.
    np.testing.assert_allclose(yuv[0], image.rgb2yuv(generated)[0], atol=2e-5)
    np.testing.assert_allclose(yuv[1:], image.rgb2yuv(content)[1:], atol=2e-5)
