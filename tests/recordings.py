"""Where the recordings of the original program lie, and how to read them.

`SHIPPED` (tests/golden/torch7) is a small part of `RECORDED` (../shared/golden/torch7, beside the checkout):
both were made by running jcjohnson/neural-style 07c4b82 unmodified on Torch7 (torch7 814ea4a, nn 8726825,
image 5aa1881, optim a5ceed7), on one thread. The shipped arrays are copies; those of photographs are left out
or cut to a few pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHIPPED = Path(__file__).parent / "golden" / "torch7"
SHARED = Path(__file__).parents[1].parent / "shared"
RECORDED = SHARED / "golden" / "torch7"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings: {SHARED} does not exist")

# For tests that run on what is shipped and, where it lies beside the checkout, on everything that was
# recorded.
both_roots = pytest.mark.parametrize(
    "root", [pytest.param(SHIPPED, id="shipped"), pytest.param(RECORDED, id="recorded", marks=needs_shared)]
)


def component(name: str, root: Path = RECORDED) -> dict[str, np.ndarray[Any, Any]]:
    """Every array recorded from one component of the original; fails where it is missing or empty."""
    with np.load(root / "components" / name / "arrays.npz") as archive:
        arrays = dict(archive)
    assert arrays, f"the recording of {name} is empty"
    return arrays
