"""`legacy-style paint`: photographs and folders of them, in the styles in the box and in one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from legacy_style import files
from legacy_style.cli.tools.paint import paint
from legacy_style.errors import FormatError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import network, painter, saving
from legacy_style.programs.fast_neural_style.architecture import build
from legacy_style.programs.fast_neural_style.values import Architecture
from legacy_style.torch7.random import Generator

ARCH = "c9s1-4,d6,d8,R8,U2,c3s1-6,U2,c3s1-4,c9s1-3"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[0:50, 0:70]
    waves = np.stack([np.sin(x / (4 + phase)) * np.cos(y / (5 + phase)) for phase in range(3)], 2)
    Image.fromarray(np.uint8(127 + 120 * waves)).save("photo.png")
    options = {"arch": ARCH, "padding_type": "reflect", "use_instance_norm": 1, "tanh_constant": 150}
    model = saving.to_t7(build(Architecture(ARCH, "reflect"), Generator(1)))
    t7.write("own.t7", {"opt": {**options, "preprocessing": "vgg"}, "model": model})
    return tmp_path


def run(*words: str):
    result = CliRunner().invoke(paint, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_a_picture_has_the_size_of_the_photograph(folder):
    assert run("photo.png", "out.png", "--style", "own.t7").exit_code == 0
    assert pixels("out.png").shape == (50, 70, 3)
    assert pixels("out.png").std() > 5


@pytest.mark.parametrize("rows", ["1", "16", "1000"])
def test_tiles_give_the_same_picture(folder, rows):
    run("photo.png", "whole.png", "--style", "own.t7")
    run("photo.png", "tiles.png", "--style", "own.t7", "--tile", rows)
    apart = np.abs(pixels("whole.png") - pixels("tiles.png"))
    assert apart.max() <= 1  # values at the border of a level
    assert (apart > 0).mean() < 1e-3


def test_a_large_photograph_is_painted_in_strips_by_itself(folder, monkeypatch):
    used = []
    monkeypatch.setattr(painter, "WHOLE_PIXELS", 3000)
    monkeypatch.setattr(
        painter.strips, "run", lambda model, x, rows: used.append(rows) or torch.zeros_like(x)
    )
    run("photo.png", "out.png", "--style", "own.t7")
    assert used == [painter.STRIP_ROWS]


@pytest.mark.parametrize(("size", "shape"), [("35", (25, 35)), ("1024", (50, 70)), ("0", (50, 70))])
def test_a_photograph_is_scaled_down_and_never_up(folder, size, shape):
    run("photo.png", "out.png", "--style", "own.t7", "--size", size)
    assert pixels("out.png").shape[:2] == shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_painted_the_right_way_up(folder, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open("photo.png") as image:
        image.save("turned.png", exif=exif)
    with Image.open("turned.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(painter.load_photograph("turned.png", 0), expected, atol=1e-12)


def test_a_folder_is_painted_file_by_file(folder):
    (folder / "in").mkdir()
    for name in ("b.png", "a.JPG"):
        with Image.open("photo.png") as image:
            image.save(f"in/{name}")
    (folder / "in" / "notes.txt").write_text("no photograph")
    result = run("in", "out/new", "--style", "own.t7")
    assert result.output == "out/new/a.jpg\nout/new/b.png\n"
    run("photo.png", "one.png", "--style", "own.t7")
    np.testing.assert_array_equal(pixels("out/new/b.png"), pixels("one.png"))


def test_a_broken_file_in_a_folder_does_not_end_the_others(folder):
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(b"no image")
    with Image.open("photo.png") as image:
        image.save("in/b.png")
    result = CliRunner().invoke(paint, ["in", "out", "--style", "own.t7"])
    assert isinstance(result.exception, LegacyStyleError)
    assert str(result.exception) == "1 of the files in in could not be painted"
    assert "left out: in/a.png: not an image" in result.output
    assert (folder / "out" / "b.png").is_file()


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (("photo.png", "out.png", "--style", "oil"), OptionError, "--style oil: there is no such style"),
        (("photo.png", "out.png", "--style", "photo.png"), FormatError, "neither a painter's file nor a .t7"),
        (("none.png", "out.png", "--style", "own.t7"), OptionError, "none.png: No such file"),
        (("photo.png", "out.gif", "--style", "own.t7"), OptionError, "out.gif"),
        (("photo.png", "no/out.png", "--style", "own.t7"), OptionError, "does not exist; create it"),
        (("photo.png", "out.png", "--style", "own.t7", "--size", "3"), UnsupportedError, "too small"),
        (("empty", "out", "--style", "own.t7"), OptionError, "there are no photographs in it"),
    ],
)
def test_what_cannot_be_painted_is_refused_with_a_sentence(folder, words, kind, told):
    (folder / "empty").mkdir()
    with pytest.raises(kind, match=told):
        run(*words)
    assert not list(folder.glob("out*"))


def test_a_painters_file_paints_as_its_checkpoint_but_for_half_precision(folder):
    painter.save("own.pth", network.from_checkpoint(t7.read("own.t7"), "own.t7"))
    run("photo.png", "half.png", "--style", "own.pth")
    run("photo.png", "whole.png", "--style", "own.t7")
    assert np.abs(pixels("half.png") - pixels("whole.png")).mean() < 1
    assert (folder / "own.pth").stat().st_size < (folder / "own.t7").stat().st_size


@pytest.mark.parametrize(
    "change",
    [{"format": "another"}, {"arch": "x"}, {"weights": {}}, {"weights": None}, {"preprocessing": "none"}],
)
def test_a_painters_file_that_makes_no_sense_is_refused(folder, change):
    painter.save("own.pth", network.from_checkpoint(t7.read("own.t7"), "own.t7"))
    content = torch.load("own.pth", weights_only=True)
    torch.save({**content, **change}, "bad.pth")
    with pytest.raises(FormatError, match=r"bad\.pth"):
        painter.load("bad.pth")


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_painter_in_the_box_draws_ink_on_paper(folder):
    """Hardly any colour but the paper's, much paper, some ink, and the lines of the photograph where they were."""
    assert run(str(EXAMPLES / "chelsea.png"), "ink.png", "--size", "256").exit_code == 0
    picture = pixels("ink.png")
    with Image.open(EXAMPLES / "chelsea.png") as image:
        photograph = np.asarray(image.convert("L").resize(picture.shape[1::-1])).astype(float)
    assert picture.shape == (170, 256, 3)
    red, _, blue = picture.reshape(-1, 3).T
    assert 4 < np.mean(red - blue) < 50  # paper is a little yellow; the cat itself is ginger, 61
    gray = picture.mean(2)
    assert np.percentile(gray, 2) < 100
    assert np.percentile(gray, 50) > 150

    def lines(values: np.ndarray) -> np.ndarray:
        across, down = np.diff(values, axis=1)[:-1], np.diff(values, axis=0)[:, :-1]
        return np.hypot(across, down)

    assert np.corrcoef(lines(gray).ravel(), lines(photograph).ravel())[0, 1] > 0.2


def test_the_painter_in_the_box_is_small_and_of_the_documented_architecture():
    brush = painter.load("ink")
    assert painter.bundled().with_name(painter.STYLES["ink"]).stat().st_size < 1_000_000
    assert sum(each.numel() for each in brush.model.parameters()) == 425_091


def test_the_checksum_of_the_painter_is_the_documented_one():
    path = painter.bundled().with_name(painter.STYLES["ink"])
    assert f"`{files.sha256(path)}`" in (EXAMPLES.parent / "models" / "README.md").read_text("utf-8")


def test_a_network_that_makes_no_image_is_told(folder):
    model = saving.to_t7(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)))
    t7.write("features.t7", model)
    with pytest.raises(UnsupportedError, match="the network gives 8 channels, not an image in three colours"):
        run("photo.png", "out.png", "--style", "features.t7")


@pytest.mark.parametrize(
    ("cards", "words", "device"),
    [
        (2, [], "cuda:0"),
        (2, ["--gpu", "1"], "cuda:1"),
        (2, ["--gpu", "-1"], "cpu"),
        (0, [], "cpu"),
        (0, ["--gpu", "0"], "cpu"),
    ],
)
def test_a_gpu_paints_where_there_is_one_unless_it_is_refused(folder, monkeypatch, cards, words, device):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(
        painter, "Forward", lambda model, where: chosen.append(str(where)) or (lambda x: torch.zeros_like(x))
    )
    result = run("photo.png", "out.png", "--style", "own.t7", *words)
    assert (result.exit_code, chosen) == (0, [device])
    assert ("No CUDA device here" in result.output) == (words == ["--gpu", "0"])
    assert pixels("out.png").shape == (50, 70, 3)


def test_a_gpu_that_is_not_there_is_told(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(OptionError, match="--gpu 2: there is no GPU 2, only 0 to 1"):
        run("photo.png", "out.png", "--style", "own.t7", "--gpu", "2")
