"""Between images and what the network sees: Caffe units, and the content's own colours.

Ports the helpers at the end of neural_style.lua 07c4b82. Notes: Caffe's networks were trained on 0..255,
yet the original multiplies by 256; nothing is clamped here, which `torch7.image.save` alone does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from legacy_style.torch7.image import rgb2yuv, yuv2rgb

# The mean of ImageNet's training images, blue, green, red, in Caffe units (`mean_pixel` in neural_style.lua).
MEAN_PIXEL = (103.939, 116.779, 123.68)

# `preprocess` maps [0,1] onto 0..256, not 0..255.
_CAFFE_RANGE = 256.0


def preprocess(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGB in [0,1], (3, H, W), to BGR in Caffe units about the mean pixel (neural_style.lua, `preprocess`).

    The result is a new float64 array; the original's next step is to round it to float32.
    """
    array = image[::-1] * _CAFFE_RANGE
    array -= _mean()
    return array


def deprocess(array: NDArray[np.floating]) -> NDArray[np.float64]:
    """BGR in Caffe units, (3, H, W), back to RGB, not clamped (neural_style.lua, `deprocess`).

    The result is a new float64 array.
    """
    image = array[::-1].astype(np.float64)  # one array only: the image may be large
    image += _mean()[::-1]
    image /= _CAFFE_RANGE
    return image


def original_colors(content: NDArray[np.float64], generated: NDArray[np.float64]) -> NDArray[np.float64]:
    """The brightness of `generated` with the colours of `content`, both RGB (3, H, W).

    Not clamped (neural_style.lua, `original_colors`).
    """
    return yuv2rgb(np.concatenate([rgb2yuv(generated)[:1], rgb2yuv(content)[1:]]))


def _mean() -> NDArray[np.float64]:
    return np.array(MEAN_PIXEL).reshape(3, 1, 1)
