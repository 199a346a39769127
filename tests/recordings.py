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

# Networks of fast-neural-style whose recorded files were not at hand when these programs were written, but for
# others of the same layout. What reads one of them is run and reported, and may differ: nobody has tried it yet.
UNTRIED = {
    *("bn_f", "bn_reflect", "bn_rs", "bn_tanh40", "in_C", "in_Cnone", "in_U2", "in_none"),
    *("in_reflect", "in_replicate", "in_rs", "in_zero", "resnet_tanh3"),
}


def marks_of(words: list[str]) -> list[pytest.MarkDecorator]:
    """What to mark a recorded command line with, where it reads one of the UNTRIED networks."""
    options = ["", *words]
    read = {
        Path(word).stem
        for option, word in zip(options, words, strict=False)
        if word.startswith("models/") and option != "-checkpoint_name"
    }
    return (
        [pytest.mark.xfail(reason="the recorded network was not tried", strict=False)]
        if read & UNTRIED
        else []
    )


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
