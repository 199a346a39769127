"""Images are looked for before a model is loaded, in every program, and a missing example gets advice."""

import importlib
import os
import re
import shutil
import struct

import pytest
from PIL import Image

from legacy_style.errors import FormatError, OptionError
from legacy_style.formats import model_files, t7
from legacy_style.programs import examples
from legacy_style.torch7 import image_files

MISSING = os.strerror(2)


def test_an_example_of_the_original_that_is_missing_gets_advice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "-content_image {china} -style_image {ink_wash}"
    with pytest.raises(OptionError) as caught:
        examples.check(
            "-content_image", "examples/inputs/tubingen.jpg", "examples/inputs/tubingen.jpg", words
        )
    assert str(caught.value) == (
        f"examples/inputs/tubingen.jpg: {MISSING}; it is an example of the original's: give -content_image an image, or"
        f" try the examples that are here: -content_image {examples.FOLDER}/china.jpg -style_image"
        f" {examples.FOLDER}/ink_wash.jpg"
    )


def test_in_a_clone_the_examples_are_named_as_one_types_them(monkeypatch):
    monkeypatch.chdir(examples.FOLDER.parent)
    with pytest.raises(OptionError, match=r"-input_image examples/china\.jpg$"):
        examples.check("-input_image", "nope.jpg", "nope.jpg", "-input_image {china}")


def test_an_installed_package_has_no_examples_to_name(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "FOLDER", tmp_path / "none")
    with pytest.raises(OptionError, match=r"give -input_image an image$"):
        examples.check("-input_image", "nope.jpg", "nope.jpg", "-input_image {china}")


def test_another_missing_image_names_its_option(tmp_path):
    with pytest.raises(OptionError, match=f"nope.jpg: {MISSING}; give -style_image an image that is there"):
        examples.check("-style_image", str(tmp_path / "nope.jpg"), "seated.jpg", "")


def test_what_can_be_known_without_decoding_is_checked(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(FormatError, match="an empty file"):
        image_files.check(tmp_path / "empty.png")
    with pytest.raises(FormatError, match="a folder, not an image"):
        image_files.check(tmp_path)
    with pytest.raises(OptionError, match=MISSING):
        image_files.check("")
    (tmp_path / "anything.png").write_bytes(b"x")
    image_files.check(tmp_path / "anything.png")


def test_a_pipe_is_not_read_beforehand(tmp_path):
    read, write = os.pipe()
    os.write(write, b"P5 1 1 255 x")
    image_files.check(f"/dev/fd/{read}")
    assert os.read(read, 100) == b"P5 1 1 255 x"
    os.close(read)
    os.close(write)


PROGRAMS = {
    "neural_style": (["-gpu", "-1"], "-content_image {}"),
    "neural_style style": (["-gpu", "-1", "-content_image", "there.png"], "-style_image there.png,{}"),
    "neural_style init": (
        ["-gpu", "-1", "-content_image", "there.png", "-style_image", "there.png"],
        "-init_image {}",
    ),
    "fast_neural_style": (["-model", "model.t7"], "-input_image {}"),
    "slow_neural_style": (["-style_image", "there.png"], "-content_image {}"),
    "train": (["-gpu", "-1", "--image-dir", "."], "-style_image {}"),
    "artistic_video": (["-gpu", "-1", "-style_image", "there.png"], "-content_pattern {}%d"),
    "artistic_video style": (["-gpu", "-1", "-content_pattern", "frame%d.png"], "-style_image {}"),
    "artistic_video_multi_pass": (["-gpu", "-1", "-style_image", "there.png"], "-content_pattern {}%d"),
    "paper": (["reconstruct", "--content", "there.png"], "--style {}"),
    "legacy_style paint": (["paint"], "{} out.png"),
    "legacy_style convert": (["convert", "model.pth", "out.pth"], "--image {}"),
    "legacy_style normalise": (["normalise", "model.pth"], "{} out.pth"),
    "legacy_style video": (["video", "frames", "out.gif"], "--style {}"),
}


@pytest.fixture
def no_model(monkeypatch, tmp_path):
    """A folder to work in, with images, where loading any model fails the test."""

    def loaded(*args, **more):
        pytest.fail("a model was loaded before the images were looked for")

    for module, name in (
        (model_files, "load"),
        (t7, "read"),
        (importlib.import_module("legacy_style.programs.fast_neural_style.painter"), "_read"),
    ):
        monkeypatch.setattr(module, name, loaded)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("there.png")
    shutil.copy("there.png", "frame1.png")
    (tmp_path / "model.t7").write_bytes(struct.pack("<ii", 3, 1))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_image_is_found_before_a_model_is_loaded(program, no_model, capsys):
    words, missing = PROGRAMS[program]
    main = importlib.import_module(f"legacy_style.cli.{program.split()[0]}").main
    assert main([*words, *missing.format("nope").split()]) == 1
    err = capsys.readouterr().err
    assert re.search(r"^[\w -]+(\.paper)?: nope1?: .*(No such file|has 0 images)", err, re.MULTILINE), err


def test_the_first_command_that_everybody_types_says_what_to_type(no_model, capsys):
    from legacy_style.cli import neural_style

    assert neural_style.main(["-gpu", "-1", "-print_iter", "1"]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(f"neural_style: examples/inputs/tubingen.jpg: {MISSING}; ")
    assert "-content_image" in answer.err and "china.jpg" in answer.err
