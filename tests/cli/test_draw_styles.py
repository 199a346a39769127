"""The style images in examples/ are what tools/draw_styles.py draws, and fit to be style images."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"
NAMES = ["impasto", "ink_wash", "mosaic"]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CHECKOUT / "tools"))
    import draw_styles

    return draw_styles


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_the_tool_draws_the_committed_image(name: str, tool: ModuleType, tmp_path: Path) -> None:
    drawn, committed = (
        pixels(tool.save(name, tmp_path, (640, 512), tool.SEED)),
        pixels(EXAMPLES / f"{name}.jpg"),
    )
    assert drawn.shape == committed.shape
    # Another machine rounds otherwise, which moves single samples of single strokes.
    assert np.abs(drawn - committed).mean() < 2
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.jpg"]


def test_a_drawing_depends_on_its_seed_alone(tool: ModuleType) -> None:
    draw = tool.STYLES["mosaic"]
    first, again, other = (np.asarray(draw((160, 128), seed), np.float64) for seed in (3, 3, 4))
    assert first.shape == (128, 160, 3)
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 2


@pytest.mark.parametrize("name", NAMES)
def test_style_images_have_texture_at_every_scale(name: str) -> None:
    image = pixels(EXAMPLES / f"{name}.jpg")
    for scale in (1, 2, 4, 8, 16):
        rows, columns = (size // scale for size in image.shape[:2])
        blocks = (
            image[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale, 3).mean(axis=(1, 3))
        )
        assert np.abs(np.diff(blocks, axis=1)).mean() > 4, f"flat at {scale} pixels"


def test_examples_are_small_and_all_have_their_source_written_down() -> None:
    images = [path for path in EXAMPLES.iterdir() if path.suffix in {".jpg", ".png"}]
    assert len(images) >= 5
    sources = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in images:
        assert f"| {path.name} |" in sources
        assert path.stat().st_size <= 250_000
        with Image.open(path) as image:
            assert max(image.size) <= 640


def test_a_size_that_is_none_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(tool.main, [str(tmp_path), "--size", "640"])
    assert result.exit_code == 2
    assert "'640' is not WIDTHxHEIGHT" in result.output
