"""Pictures for the report: small JPEGs as data URIs, and the map of where two pictures differ."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from legacy_style.compare.metrics import Bytes, delta_e

DIFFERENCE_RANGE = 50.0
"""CIEDE2000 at the bright end of the map; what is beyond is cut off there."""

# From none to DIFFERENCE_RANGE, evenly spaced: dark, so that equal pictures give a calm, dark map.
_RAMP = np.array(
    [
        [18, 18, 34],
        [58, 28, 92],
        [128, 38, 110],
        [204, 66, 82],
        [246, 132, 48],
        [252, 208, 92],
        [255, 252, 220],
    ]
)


def data_uri(picture: Bytes, longest: int, quality: int = 84) -> str:
    """A picture (H, W, 3) as a JPEG in a data: URI, at most `longest` pixels on its longer side."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def difference_map(a: Bytes, b: Bytes) -> Bytes:
    """Where two pictures of one size look different, (H, W, 3): CIEDE2000 from dark (0) to bright."""
    position = np.clip(delta_e(a, b) / DIFFERENCE_RANGE, 0, 1) * (len(_RAMP) - 1)
    lower = np.minimum(position.astype(int), len(_RAMP) - 2)
    part = (position - lower)[..., np.newaxis]
    mixed = _RAMP[lower] * (1 - part) + _RAMP[lower + 1] * part
    colors: Bytes = np.rint(mixed).astype(np.uint8)
    return colors
