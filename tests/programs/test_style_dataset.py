"""Folders of images to the HDF5 file that train.lua reads, against what make_style_dataset.py made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from recordings import SHARED, needs_shared
from training_runs import RECORDED

from legacy_style.cli.tools.style_dataset import style_dataset
from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style import style_dataset as conversion
from legacy_style.programs.fast_neural_style.style_dataset import EXTENSIONS, Sizes, convert, find, make

h5py = pytest.importorskip("h5py")

INPUTS = SHARED / "golden" / "torch7" / "inputs"

# The recordings' names that are copies under another name.
COPIES = {"up.PNG": "odd97x61.png"}

JPEG = 20
"""Levels: the recordings' libjpeg was another, with another way to enlarge the colour planes."""


@needs_shared
def test_images_are_stored_as_they_were_recorded():
    index = json.loads((RECORDED / "INDEX.json").read_text())["cases"]
    compared = 0
    for key, case in index.items():
        path = RECORDED / key / "files" / "out.h5"
        if not key.startswith("runs/ds_") or not path.is_file():
            continue
        options = dict(zip(case["argv"][2::2], case["argv"][3::2], strict=True))
        sizes = Sizes(int(options["--height"]), int(options["--width"]), int(options.get("--max_resize", 16)))
        with h5py.File(path) as file:
            for part, names in case["listdir_order"].items():
                stored = file[f"{part}2014/images"][:] if f"{part}2014" in file else []
                for name, theirs in zip(
                    (n for n in names if Path(n).suffix in EXTENSIONS), stored, strict=False
                ):
                    source = INPUTS / COPIES.get(name, name)
                    if not source.is_file() or not theirs.any():  # zero: lost to the original's race
                        continue
                    apart = np.abs(convert(source, sizes).astype(int) - theirs).max()
                    assert apart <= (JPEG if source.suffix == ".jpg" else 1), (key, name)
                    compared += 1
    print(f"{compared} images")
    assert compared >= 25


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    values = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3) % 251
    image = Image.fromarray(values.astype(np.uint8))
    for name in ("train/b.png", "train/a.jpg", "val/c.PNG"):
        image.save(tmp_path / name)
    image.convert("L").save(tmp_path / "train" / "gray.png")
    image.convert("RGBA").save(tmp_path / "train" / "transparent.png")
    return tmp_path


def stored(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {part: file[f"{part}2014/images"][:] for part in ("train", "val") if f"{part}2014" in file}


def run(folder, *words):
    given = [
        "--train_dir",
        str(folder / "train"),
        "--val_dir",
        str(folder / "val"),
        "--height",
        "16",
        "--width",
        "24",
    ]
    return CliRunner().invoke(style_dataset, [*given, "--output_file", str(folder / "out.h5"), *words])


def test_a_file_has_all_images_in_the_order_of_their_names(folder):
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("out.h5: 4 for train and 1 for val\n")
    images = stored(folder / "out.h5")
    assert images["train"].shape == (4, 3, 16, 24)
    assert images["train"].dtype == np.uint8
    sizes = Sizes(16, 24)
    for number, name in enumerate(("a.jpg", "b.png", "gray.png", "transparent.png")):
        np.testing.assert_array_equal(images["train"][number], convert(folder / "train" / name, sizes))
    assert np.ptp(images["train"][2].astype(int), axis=0).max() == 0  # gray
    np.testing.assert_array_equal(images["train"][3], images["train"][1])  # transparency is dropped


def test_an_image_that_cannot_be_used_is_left_out_and_told_of(folder):
    (folder / "train" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (50, 7)).save(folder / "train" / "flat.png")
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert len(stored(folder / "out.h5")["train"]) == 4
    assert "broken.png: left out" in result.output
    assert "flat.png: left out: its 50x7 pixels are less than the 16 of --max_resize" in result.output


def test_an_image_that_memory_does_not_hold_is_an_error(folder, monkeypatch):
    def no_room(*words):
        raise MemoryError

    monkeypatch.setattr(conversion, "convert", no_room)
    result = run(folder)
    assert isinstance(result.exception, OptionError)
    assert "not enough memory to load this image" in str(result.exception)


def test_a_maximum_makes_the_dataset_shorter(folder):
    assert run(folder, "--max_images", "2", "--include-val", "0").exit_code == 0
    images = stored(folder / "out.h5")
    assert set(images) == {"train"}
    assert len(images["train"]) == 2
    assert images["train"].any(axis=(1, 2, 3)).all()


def test_an_image_is_cropped_to_multiples_before_it_is_scaled(tmp_path):
    values = np.zeros((20, 37, 3), np.uint8)
    values[:16, :32] = 100  # what is outside would show
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (convert(tmp_path / "a.png", Sizes(8, 8, 16)) == 100).all()


def test_a_failure_leaves_what_was_there(folder, monkeypatch):
    (folder / "out.h5").write_bytes(b"old")

    def fail(*rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("h5py.Dataset.__setitem__", fail)
    with pytest.raises(OptionError, match="No space left on device; free some space"):
        make(
            str(folder / "out.h5"),
            {"train": str(folder / "train")},
            Sizes(),
            max_images=None,
            workers=1,
            notice=print,
        )
    assert (folder / "out.h5").read_bytes() == b"old"
    assert sorted(path.name for path in folder.iterdir()) == ["out.h5", "train", "val"]


def test_a_missing_folder_is_told_of(tmp_path):
    with pytest.raises(OptionError, match="there is no such folder"):
        find(str(tmp_path / "none"))


def test_turned_photographs_are_told_of_once(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "train" / "a.jpg") as picture:
        picture.load()
    for name in ("t1.jpg", "t2.jpg"):
        picture.save(folder / "train" / name, exif=exif)
    said = []
    make(
        str(folder / "out.h5"),
        {"train": str(folder / "train")},
        Sizes(32, 48, 16),
        max_images=None,
        workers=2,
        notice=said.append,
    )
    assert said == [
        f"{folder}/train/t1.jpg: its EXIF orientation (6: to be turned by 90 degrees) is ignored, as it always was, and"
        " so are those of 1 others; turn photographs upright before they are stored"
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--height", "9" * 20], "Invalid value for '--height'"),
        (["--width", "9" * 20], "Invalid value for '--width'"),
        (["--output_file", "/"], "/: could not be written: Is a directory"),
    ],
)
def test_sizes_and_names_that_no_file_can_have_are_refused(folder, words, says):
    given = ["--train_dir", str(folder / "train"), "--val_dir", str(folder / "val"), *words]
    result = CliRunner().invoke(style_dataset, given)
    assert result.exit_code != 0 and says in result.output + str(result.exception)
