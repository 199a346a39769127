"""`--image-dir`: batches of crops from a folder of photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.fast_neural_style import photographs
from legacy_style.programs.fast_neural_style.photographs import (
    PhotographBatches,
    Photographs,
    find,
    split,
)
from legacy_style.programs.fast_neural_style.values import Crops

ORIENTATION = 0x0112


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, so that a crop tells where it is from."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.full_like(x, 128)], 2)
    return Image.fromarray(values.round().astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    for name, size in {
        "a.png": (120, 80),
        "b.jpg": (90, 200),
        "below/c.PNG": (64, 64),
        "d.png": (20, 30),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        gradient(*size).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def batches(folder, seed=1, notice=print):
    return PhotographBatches(Photographs(find(str(folder)), Crops(32), notice), 3, seed)


def test_photographs_are_found_in_the_order_of_their_names(folder):
    assert [path.name for path in find(str(folder))] == ["a.png", "b.jpg", "c.PNG", "d.png"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_photographs_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="--image-dir"):
        find(str(tmp_path / name))


def test_a_batch_depends_on_seed_and_number_alone(folder):
    one, other = batches(folder), batches(folder)
    forward = [one.batch(number) for number in range(6)]
    np.testing.assert_array_equal(other.batch(4), forward[4])
    np.testing.assert_array_equal(other.batch(1), forward[1])
    assert forward[0].shape == (3, 3, 32, 32)
    assert forward[0].dtype == np.uint8
    assert not np.array_equal(batches(folder, seed=2).batch(0), forward[0])
    assert not np.array_equal(forward[0], forward[1])
    for each in (one, other):
        each.close()


def test_crops_have_many_places_sizes_and_both_directions(tmp_path):
    gradient(300, 200).save(tmp_path / "a.png")
    crops = Photographs(find(str(tmp_path)), Crops(32, 1, 4), print)
    random = np.random.default_rng(3)
    spans, mirrored = [], 0
    for _ in range(60):
        red, green, _ = crops.random_crop(random).astype(int)
        mirrored += red[0, 0] > red[0, -1]
        spans.append(abs(int(green[-1, 0]) - int(green[0, 0])) / 255)
    assert 15 < mirrored < 45
    assert min(spans) < 0.3
    assert max(spans) > 0.85


def test_a_photograph_smaller_than_a_crop_is_enlarged_to_it(tmp_path):
    gradient(20, 30).save(tmp_path / "a.png")
    crops = Photographs(find(str(tmp_path)), Crops(64), print)
    red, green, _ = crops.random_crop(np.random.default_rng(1)).astype(int)
    assert {abs(int(red[5, -1]) - int(red[5, 0]))} <= set(range(245, 256))
    assert abs(int(green[-1, 5]) - int(green[0, 5])) == pytest.approx(255 * 20 / 30, abs=12)


def test_the_middle_is_cut_for_validation(folder):
    crops = Photographs(find(str(folder)), Crops(40), print)
    red, green, _ = crops.centre_crop(0).astype(int)
    assert red.mean() == pytest.approx(127.5, abs=2)
    assert green[0, 0] < 8
    assert green[-1, 0] > 247


def test_a_camera_held_upright_is_respected(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the right side of what is stored is the bottom
    gradient(200, 100).save(tmp_path / "a.jpg", exif=exif, quality=95)
    red, green, _ = Photographs(find(str(tmp_path)), Crops(50), print).centre_crop(0).astype(int)
    assert red[0].mean() < red[-1].mean() - 100
    assert abs(red[:, 0].mean() - red[:, -1].mean()) < 10
    assert green[:, 0].mean() > green[:, -1].mean() + 200


def test_a_broken_file_is_told_of_once_and_left_out(folder):
    (folder / "b.jpg").write_bytes(b"\xff\xd8\xff broken")
    told = []
    some = batches(folder, notice=told.append)
    for number in range(12):
        assert some.batch(number).shape == (3, 3, 32, 32)
    some.close()
    assert len(told) == 1
    assert "b.jpg" in told[0]


def test_a_photograph_that_memory_does_not_hold_ends_the_training(folder, monkeypatch):
    """Without it, the batches would be others."""

    def no_room(*words):
        raise MemoryError

    monkeypatch.setattr(photographs, "_decode", no_room)
    some = batches(folder, notice=lambda line: None)
    with pytest.raises(OptionError, match="not enough memory to load this image"):
        some.batch(0)
    some.close()


def test_a_folder_of_broken_files_ends_the_training(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"nothing")
    some = batches(tmp_path, notice=lambda line: None)
    with pytest.raises(FormatError, match="none of the other 1 photographs can"):
        some.batch(0)
    some.close()


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (2, [0, 1]), (3, [2]), (10, [9]), (11, [0, 10]), (24, [3, 13, 23])]
)
def test_every_tenth_photograph_is_for_validation(tmp_path, count, kept):
    paths = [tmp_path / f"{number}.png" for number in range(count)]
    train, validation = split(paths)
    assert validation == [paths[number] for number in kept]
    assert train == (paths if count <= 2 else [path for path in paths if path not in validation])
