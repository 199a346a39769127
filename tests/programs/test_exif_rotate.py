"""EXIF orientations in the programs beside neural_style: told where they are ignored, obeyed on request."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from legacy_style.cli import fast_neural_style, legacy_style, slow_neural_style
from legacy_style.cli import train as train_command
from legacy_style.errors import FormatError, IncompleteError, UnsupportedError
from legacy_style.formats import t7
from legacy_style.programs.artistic_video import flo, options, settings, single
from legacy_style.programs.fast_neural_style import options as fast_options
from legacy_style.programs.fast_neural_style import run as fast
from legacy_style.programs.fast_neural_style import saving, slow, slow_options, train, train_options
from legacy_style.programs.video import motion, source
from legacy_style.torch7 import image, image_files, kinds

TOLD = "its EXIF orientation (6: to be turned by 90 degrees) is ignored"


@pytest.fixture
def turned(tmp_path, monkeypatch):
    """A photograph of 48x32 pixels that is to stand upright, as 32x48."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    numbers = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(numbers).save("turned.png", exif=exif)
    return "turned.png"


@pytest.mark.parametrize(("words", "size", "count"), [([], (32, 48), 1), (["--exif-rotate"], (48, 32), 0)])
def test_fast_neural_style(words, size, count, turned):
    parsed = fast_options.parse(["-input_image", turned, "-image_size", "0", *words])
    assert parsed is not None
    said = []
    loaded = fast.load_image(turned, fast_options.settings(parsed[0]), said.append)
    assert loaded.shape[1:] == size
    assert len(said) == count and all(TOLD in line for line in said)


@pytest.mark.parametrize(("words", "size", "count"), [([], (32, 48), 1), (["--exif-rotate"], (48, 32), 0)])
def test_slow_neural_style(words, size, count, turned):
    parsed = slow_options.parse(words)
    assert parsed is not None
    said = []
    loaded = slow._load(turned, 48, slow_options.settings(parsed[0]), said.append)
    assert tuple(loaded.shape[2:]) == size
    assert len(said) == count and all(TOLD in line for line in said)


@pytest.mark.parametrize(("words", "size", "count"), [([], (32, 48), 2), (["--exif-rotate"], (48, 32), 0)])
def test_train(words, size, count, turned, monkeypatch):
    """The style image and the picture beside checkpoints; each is told of once, however many checkpoints there are."""
    loss_network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(True))
    t7.write("loss.t7", saving.to_t7(loss_network))
    shutil.copy(turned, "picture.png")
    targets = []
    monkeypatch.setattr(
        train.PerceptualCriterion,
        "set_style_target",
        lambda criterion, style, right=train.PerceptualCriterion.set_style_target: (
            targets.append(tuple(style.shape[2:])) or right(criterion, style)
        ),
    )
    parsed = train_options.parse(
        [
            *("-arch", "c3s1-3", "-padding_type", "reflect", "-loss_network", "loss.t7", "-gpu", "-1"),
            *(
                "-content_layers",
                "2",
                "-style_layers",
                "2",
                "-style_image",
                turned,
                "-style_image_size",
                "48",
            ),
            *("--image-dir", ".", "--crop", "16", "-batch_size", "1", "-num_val_batches", "1", "--seed", "1"),
            *("-num_iterations", "2", "-checkpoint_every", "1", "--picture", "picture.png", *words),
        ]
    )
    assert parsed is not None
    said = []
    train.train(
        train_options.settings(parsed[0]),
        log=lambda line: None,
        notice=said.append,
        on_progress=lambda done: None,
    )
    assert targets == [size]
    with Image.open("checkpoint.png") as painted:
        assert painted.size[::-1] == size
    assert len(said) == count and all(TOLD in line for line in said)
    assert {line.split(":")[0] for line in said} == ({turned, "picture.png"} if count else set())


@pytest.mark.parametrize(("words", "size", "count"), [([], (32, 48), 1), (["--exif-rotate"], (48, 32), 0)])
def test_flow_fits_the_frames_of_artistic_video(words, size, count, turned, monkeypatch, capsys):
    for number in (1, 2, 3):
        shutil.copy(turned, f"f{number}.png")
    shapes = []

    def still(before, after):
        shapes.extend([before.shape[:2], after.shape[:2]])
        return np.zeros((2, *before.shape[:2]), np.float32)

    monkeypatch.setattr(motion, "estimator", lambda command: still)
    assert legacy_style.main(["flow", "f%d.png", "flow", *words]) == 0
    assert set(shapes) == {size} and len(shapes) == 8
    assert flo.read("flow/forward_1_2.flo").shape[1:] == size
    told = capsys.readouterr().err.splitlines()
    assert told == [line for line in told if line.startswith(f"legacy-style flow: f1.png: {TOLD}")]
    assert len(told) == count


@pytest.mark.parametrize(("words", "size", "count"), [([], (32, 48), 1), (["--exif-rotate"], (48, 32), 0)])
def test_frames_of_artistic_video_are_told_of_once(words, size, count, turned, monkeypatch, tmp_path):
    for number in (1, 2, 3):
        shutil.copy(turned, f"f{number}.png")
    Image.new("RGB", (40, 40)).save("style.png")
    parsed = options.parse(
        options.SINGLE,
        ["-content_pattern", "f%d.png", "-style_image", "style.png", "-gpu", "-1", *words],
        pytest.fail,
    )
    assert parsed is not None
    shapes = []

    class Painter:
        def __init__(self, *args, **more):
            pass

        def build(self):
            pass

        def set_styles(self, styles, weights):
            pass

    monkeypatch.setattr(single, "FramePainter", Painter)
    monkeypatch.setattr(
        single.SinglePass, "paint", lambda self, frame, content, frames: shapes.append(content.shape[1:])
    )
    said = []
    single.run(
        settings.single(*parsed), log=lambda line: None, notice=said.append, on_saved=lambda name: None
    )
    assert shapes == 3 * [size]
    assert len(said) == count and all(line.startswith(f"f1.png: {TOLD}") for line in said)


@pytest.mark.parametrize(("rotate", "size", "count"), [(False, (48, 32), 1), (True, (32, 48), 0)])
def test_a_folder_of_images_for_a_video_is_told_of_once(rotate, size, count, turned, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        shutil.copy(turned, f"frames/{number}.png")
    said = []
    found = source.open_source("frames", exif_rotate=rotate, notice=said.append)
    assert (found.width, found.height) == size
    assert [frame.picture.shape[:2] for frame in source.read(found, *size)] == 2 * [size[::-1]]
    assert len(said) == count and all(TOLD in line for line in said)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (fast_neural_style.main, ["-help"]),
        (slow_neural_style.main, ["-help"]),
        (legacy_style.main, ["video", "--help"]),
        (legacy_style.main, ["flow", "--help"]),
        (train_command.main, ["-help"]),
    ],
)
def test_the_option_is_in_the_help(main, words, capsys):
    assert main(words) == 0
    assert "--exif-rotate" in capsys.readouterr().out


def test_a_photograph_to_paint_is_opened_once(turned, monkeypatch):
    from legacy_style.programs.fast_neural_style import painter

    read, opened = image_files._read, []
    monkeypatch.setattr(image_files, "_read", lambda name, *rest: opened.append(name) or read(name, *rest))
    monkeypatch.setattr(Image, "open", _refuse_paths(Image.open))
    assert painter.load_photograph(turned, 0).shape == (3, 48, 32)
    assert opened == [turned]


def _refuse_paths(right):
    def opening(file, *args, **more):
        assert not isinstance(file, str), "a file was opened a second time"
        return right(file, *args, **more)

    return opening


BOX = b"\0\0\0\x18ftypavif\0\0\0\0avifmif1"


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (BOX, False),
        (BOX + b"\0\0\0\x09meta", True),
        (BOX + b"\0\0\0\x09metax", False),
        (BOX + b"\0\0\0", True),
        (BOX + b"\0\0\0\0mdat and all that follows", False),
        (BOX + b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x11x", False),
        (BOX + b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12x", True),
        (BOX[:20], True),
    ],
)
def test_a_file_of_boxes_is_cut_where_one_ends_beyond_it(data, cut):
    assert kinds.is_cut(data) == cut


@pytest.mark.parametrize(
    ("data", "readable", "error", "says"),
    [
        (
            BOX + b"\0\0\1\0mdat",
            True,
            IncompleteError,
            "is incomplete (its last part is missing): a download",
        ),
        (BOX + b"\0\0\0\x09mdatx", True, FormatError, "a broken AVIF image ("),
        (BOX + b"\0\0\1\0mdat", False, UnsupportedError, "an AVIF image, which is not read here"),
    ],
)
def test_an_avif_that_was_cut_is_incomplete(data, readable, error, says, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files.features, "check", lambda feature: readable)
    (tmp_path / "a.avif").write_bytes(data)
    with pytest.raises(error) as caught:
        image.load(tmp_path / "a.avif")
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{tmp_path}/a.avif: {says}")
