"""Optical flow in Middlebury's .flo files.

Ports manuelruder/artistic-videos 40e7447, flowFileLoader.lua. A file is a float32 tag, the int32 width and height,
then for each pixel, row by row, the float32 motion to the right (u) and downwards (v), all little-endian. Notes: the
original does not look at the tag, and neither do we; what follows the last vector is ignored.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from legacy_style import files
from legacy_style.errors import FormatError, OptionError

Flow = NDArray[np.float32]
"""(2, H, W) in pixels: u to the right, v downwards. Pixel (y, x) moves to (y + v, x + u)."""

TAG = 202021.25
"""The sanity check of the format: `PIEH` as bytes."""

_HEADER = struct.Struct("<fii")


def read(path: str) -> Flow:
    """The flow in a .flo file, (2, H, W).

    Raises OptionError for a file that cannot be opened, FormatError for one that is broken.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(
            f"{path}: {reason}; make the flow files first, for example with legacy-style flow"
        ) from None
    if len(data) < _HEADER.size:
        raise FormatError(f"{path}: not a .flo file, only {len(data)} bytes long; make it again")
    _, width, height = _HEADER.unpack_from(data)
    needed = _HEADER.size + 8 * width * height
    if width < 1 or height < 1 or len(data) < needed:
        raise FormatError(
            f"{path}: a broken .flo file: its header says {width}x{height} pixels, which need {needed} bytes, and"
            f" there are {len(data)}; make it again"
        )
    vectors = np.frombuffer(data, "<f4", 2 * width * height, _HEADER.size).reshape(height, width, 2)
    return np.ascontiguousarray(vectors.transpose(2, 0, 1), np.float32)


def write(path: str, flow: Flow) -> None:
    """Write a flow (2, H, W) as a .flo file, whole or not at all; raises OptionError where that fails."""
    header = _HEADER.pack(TAG, flow.shape[2], flow.shape[1])
    try:
        files.write_whole(path, header + flow.transpose(1, 2, 0).astype("<f4").tobytes())
    except OSError as error:
        raise OptionError(f"{path}: could not be written: {files.reason(error)}") from error
