"""PyAV and OpenCV, which the extra `video` brings and nothing else in this package needs."""

from __future__ import annotations

import importlib
from typing import Any

from legacy_style.errors import UnsupportedError

_PACKAGES = {"av": "av", "cv2": "opencv-python-headless"}


def load(module: str) -> Any:
    """`av` or `cv2`; raises UnsupportedError, which says how to get it, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(
            f"videos need the package {_PACKAGES[module]}, which is not here ({error}); install it with"
            ' pip install "legacy-style[video]"'
        ) from error
