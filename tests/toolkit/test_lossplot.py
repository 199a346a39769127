"""Losses drawn from records, and the two commands `legacy-style plot` and `legacy-style colors`."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from legacy_style.cli.legacy_style import main
from legacy_style.engine import colors
from legacy_style.errors import FormatError, OptionError
from legacy_style.files import sha256
from legacy_style.toolkit import lossplot
from legacy_style.torch7 import image as torch_image

RECORD = {
    "format": "legacy-style result 1",
    "options": {"content_layers": "relu4_2", "style_layers": "relu1_1,relu2_1"},
    "losses": {
        "evaluation": [1, 2, 3, 4],
        "content": [[10.0], [8.0], [6.0], [5.0]],
        "style": [[990.0, 9000.0], [90.0, 900.0], [9.0, 90.0], [1.0, 4.0]],
        "total": [10000.0, 998.0, 105.0, 10.0],
    },
}


def made(folder: Path, name: str = "out.png") -> str:
    picture = folder / name
    Image.new("RGB", (4, 4)).save(picture)
    (folder / f"{name}.json").write_text(json.dumps(RECORD | {"picture": sha256(picture)}))
    return str(picture)


def points(svg: bytes, color: str) -> list[tuple[float, float]]:
    (curve,) = re.findall(
        rf'<polyline points="([^"]+)" fill="none" stroke="{color}" stroke-width="2"', svg.decode()
    )
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in curve.split())]


def test_losses_are_drawn_over_iterations_on_a_logarithmic_scale() -> None:
    svg = lossplot.draw(lossplot.curves("out.png", RECORD), "losses.svg")
    ElementTree.fromstring(svg)
    drawn = points(svg, "#0072b2")
    steps = [second[0] - first[0] for first, second in itertools.pairwise(drawn)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    heights = [y for _, y in drawn]
    expected = np.log10(RECORD["losses"]["total"])
    scale = (heights[-1] - heights[0]) / (expected[-1] - expected[0])
    assert heights == pytest.approx(heights[0] + scale * (expected - expected[0]), abs=0.2)
    assert heights[0] < heights[-1], "a larger loss stands higher"


def test_every_layer_has_its_curve_by_its_name() -> None:
    labels = [curve.label for curve in lossplot.curves("out.png", RECORD, layers=True)]
    assert labels == ["out.png", "content relu4_2", "style relu1_1", "style relu2_1"]


def test_a_png_shows_the_curve_in_its_colour() -> None:
    png = Image.open(io.BytesIO(lossplot.draw(lossplot.curves("out.png", RECORD), "losses.png")))
    assert png.size == (lossplot.WIDTH, lossplot.HEIGHT)
    assert (np.asarray(png.convert("RGB")) == (0x00, 0x72, 0xB2)).all(2).sum() > 200


def test_losses_that_are_not_finite_or_not_above_0_are_left_out() -> None:
    curve = lossplot.LossCurve("x", [(1, 100.0), (2, float("inf")), (3, 0.0), (4, 1.0)])
    assert len(points(lossplot.draw([curve], "a.svg"), "#0072b2")) == 2
    with pytest.raises(OptionError, match="no loss above 0"):
        lossplot.draw([lossplot.LossCurve("x", [(1, 0.0)])], "a.svg")


def test_a_flat_curve_and_a_single_evaluation_can_be_drawn() -> None:
    for line in ([(1, 5.0), (2, 5.0)], [(1, 5.0)]):
        assert b"<polyline" in lossplot.draw([lossplot.LossCurve("x", line)], "a.svg")


def test_a_record_without_losses_is_named() -> None:
    with pytest.raises(FormatError, match=r"out.png: its record holds no losses"):
        lossplot.curves("out.png", {"losses": {"total": [1.0]}})


def test_plot_draws_one_picture_or_several(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path)
    made(tmp_path, "b.png")
    assert main(["plot", "out.png", "b.png", "-o", "l.svg"]) == 0
    svg = Path("l.svg").read_text()
    assert ("out.png" in svg, "b.png" in svg) == (True, True)
    assert main(["plot", "out.png", "--layers", "-o", "l.png"]) == 0
    assert capsys.readouterr().out.endswith("l.png: 4 curves\n")


def test_plot_says_what_is_wrong(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path)
    Image.new("RGB", (2, 2)).save("bare.png")
    for words, said in (
        (["bare.png"], "make the picture with --metadata"),
        (["out.png", "-o", "l.pdf"], "an .svg or a .png file"),
        (["out.png", "out.png", "--layers"], "name one"),
    ):
        assert main(["plot", *words]) == 1
        assert said in capsys.readouterr().err


def test_colors_writes_the_image_in_the_other_s_colours(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(1)
    for name, low in (("style.png", 20), ("photo.png", 90)):
        pixels = generator.integers(low, low + 100, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    assert main(["colors", "style.png", "photo.png", "out.png", "--mode", "chol"]) == 0
    style, photo = torch_image.load("style.png"), torch_image.load("photo.png")
    expected = (colors.match(style, photo, "chol") * 255).astype(np.uint8).transpose(1, 2, 0)
    assert (np.asarray(Image.open("out.png")) == expected).all()


def test_colors_refuses_a_name_that_no_image_can_have(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (2, 2)).save("a.png")
    assert main(["colors", "a.png", "a.png", "out.xyz"]) == 1
    assert "unknown image type" in capsys.readouterr().err
