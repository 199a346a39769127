"""Contact sheets: how results are arranged, what stands beside them, and the command with its grid."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import thin_networks
from PIL import Image

from legacy_style.cli.legacy_style import main
from legacy_style.programs.neural_style import record
from legacy_style.toolkit.contactsheet import SheetPicture, arrange, differing, draw


def result(name: str, **options: Any) -> SheetPicture:
    return SheetPicture(Path(name), options)


def test_the_options_that_differ_are_named() -> None:
    results = [
        result("a.png", style_weight=50.0, seed=1.0, output_image="a.png", style_image="x/ink.jpg"),
        result("b.png", style_weight=50.0, seed=2.0, output_image="b.png", style_image="y/ink.jpg"),
    ]
    assert differing(results) == ["seed"]
    assert arrange(results).labels == {Path("a.png"): "seed 1", Path("b.png"): "seed 2"}


def test_two_options_are_rows_and_columns_by_size() -> None:
    results = [
        result(f"{style}{content}", style_weight=style, content_weight=content)
        for content in (5.0, 1.0)
        for style in (500.0, 50.0, 100.0)
        if (content, style) != (1.0, 50.0)
    ]
    layout = arrange(results)
    assert layout.row_names == ["style_weight 50", "style_weight 100", "style_weight 500"]
    assert layout.column_names == ["content_weight 1", "content_weight 5"]
    names = [[each and str(each.path) for each in row] for row in layout.rows]
    assert names == [[None, "50.05.0"], ["100.01.0", "100.05.0"], ["500.01.0", "500.05.0"]]


def test_others_are_about_a_square_or_as_wide_as_asked_for() -> None:
    results = [result(f"{number}.png") for number in range(7)]
    assert [len(row) for row in arrange(results).rows] == [3, 3, 1]
    assert [len(row) for row in arrange(results, 5).rows] == [5, 2]
    assert arrange(results).labels[Path("3.png")] == "3.png"


def test_pictures_stand_where_they_belong(tmp_path: Path) -> None:
    results = []
    for row, style in enumerate((1.0, 2.0)):
        for column, content in enumerate((1.0, 2.0)):
            path = tmp_path / f"{row}{column}.png"
            Image.new("RGB", (60, 40), (row * 200, column * 200, 100)).save(path)
            results.append(SheetPicture(path, {"style_weight": style, "content_weight": content}))
    with Image.open(io.BytesIO(draw(arrange(results), 60))) as image:
        sheet = np.asarray(image).astype(int)
    found = {}
    for row in range(2):
        for column in range(2):
            place = np.argwhere((sheet == (row * 200, column * 200, 100)).all(2))
            assert len(place) == 60 * 40
            found[row, column] = place.min(0)
    assert found[0, 0][0] == found[0, 1][0] < found[1, 0][0]
    assert found[0, 0][1] == found[1, 0][1] < found[0, 1][1]


def test_a_long_word_does_not_run_into_the_next_picture(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30 + ".png")
    Image.new("RGB", (40, 40), "#ff0000").save(path)
    with Image.open(io.BytesIO(draw(arrange([SheetPicture(path)]), 40))) as image:
        assert image.width < 140


def photograph(path: Path, phase: int) -> None:
    y, x = np.mgrid[0:36, 0:48]
    waves = np.stack([np.sin(x / (phase + each)) * np.cos(y / (5 + each)) for each in range(3)], 2)
    Image.fromarray(np.uint8(127 + 120 * waves)).save(path)


def test_a_grid_is_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph(Path("photo.png"), 3)
    photograph(Path("style.png"), 7)
    words = ["sheet", "--grid", "style_weight=50,500", "--grid", "optimizer=adam,lbfgs", "--size", "32", "--"]
    words += ["-content_image", "photo.png", "-style_image", "style.png", "-image_size", "32", "-gpu", "-1"]
    words += ["-model_file", thin_networks.path("vgg19"), "-num_iterations", "2", "-seed", "1"]
    assert main(words) == 0
    assert "sheet.png: 4 pictures" in capsys.readouterr().out
    made = sorted(path.name for path in Path("grid").glob("*.png"))
    assert made[0] == "style_weight_500_optimizer_adam.png"
    kept = record.read(Path("grid") / made[0])
    assert kept is not None
    assert (kept["options"]["style_weight"], kept["options"]["optimizer"]) == (500, "adam")
    with Image.open("sheet.png") as image:
        assert image.width > 2 * 32
    assert main(words) == 0
    assert capsys.readouterr().out.count("painted before") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "style_weight"], "there are no values"),
        (["--grid", "colour=1,2"], "'colour' is no option that can have several values"),
        (["--grid", "output_image=a,b"], "'output_image' is no option"),
        (["--grid", "style_weight=a,b"], "invalid type for option -style_weight"),
        (["--grid", "style_weight=1,1"], "a value stands there twice"),
        ([], "there are no pictures to put on a sheet"),
        (["none.png"], "there is no such picture"),
        (["--output", "sheet.gif"], "a sheet is a PNG"),
    ],
)
def test_a_sheet_that_cannot_be(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["sheet", *words]) == 1
    assert message in capsys.readouterr().err
