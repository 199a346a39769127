"""Options of quick runs of a thin VGG-19, on the two images that the fixture `two_images` draws."""

from __future__ import annotations

from typing import Any

from recordings import SHIPPED

from legacy_style import Options

VGG = SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel"

_COMMON = {
    "content_image": "content.png",
    "style_image": "style.png",
    "model_file": str(VGG),
    "gpu": "-1",
    "seed": 1.0,
    "content_layers": "relu2_2",
    "style_layers": "relu1_1,relu2_1",
}


def thin_options(**given: Any) -> Options:
    return Options(**{**_COMMON, **given})
