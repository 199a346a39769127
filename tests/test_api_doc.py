"""docs/api.md: its examples run, on small images and for few iterations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("number", range(3))
def test_an_example_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for name in ("photo.jpg", "other.jpg", "painting.jpg"):
        Image.fromarray(random.integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(name)
    code = EXAMPLES[number]
    for large, small in (
        ("300", "3"),
        ("512", "32"),
        ("256", "32"),
        ("96, 128", "24, 32"),
        ("tile=64", "tile=16"),
    ):
        code = code.replace(large, small)
    exec(compile(code, f"docs/api.md, example {number + 1}", "exec"), {})
    assert len(list(tmp_path.glob("styled_*"))) == (2 if number == 1 else 0)
