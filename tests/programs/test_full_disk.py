"""A full disk, wherever a file is written: one line that names the file and says what to do."""

import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from legacy_style import files
from legacy_style.cli import process
from legacy_style.engine import checkpoint
from legacy_style.formats import t7
from legacy_style.programs.artistic_video import consistency, flo
from legacy_style.programs.athalye import images as athalye_images
from legacy_style.programs.neural_style import record
from legacy_style.programs.video import sink, work
from legacy_style.programs.video.source import Frame, FrameSource
from legacy_style.torch7 import image

NO_SPACE = OSError(28, "No space left on device")


@pytest.fixture
def full(monkeypatch):
    """A disk on which nothing more can be written."""

    def refuse(descriptor):
        raise OSError(*NO_SPACE.args)

    monkeypatch.setattr(os, "fsync", refuse)


def attach(path: str) -> None:
    versions = {"legacy-style": "0"}
    record.attach(path, {"versions": versions, "command": []})


def film(path: str) -> None:
    """Two frames of 16x16 pixels as a video or GIF."""
    frames = [
        Frame(number, Fraction(number, 25), np.full((16, 16, 3), 90 * number, np.uint8)) for number in (0, 1)
    ]
    source = FrameSource("", 16, 16, Fraction(25), Fraction(1, 100), 2, has_sound=False)
    sink.write(path, frames, source, notice=print, until=None)


WRITERS = {
    "out.png": lambda path: image.save(path, np.zeros((3, 2, 2))),
    "theirs.png": lambda path: athalye_images.save(path, np.zeros((2, 2, 3))),
    "checkpoint": lambda path: checkpoint.write(path, {"x": torch.zeros(9)}),
    "a.flo": lambda path: flo.write(path, np.zeros((2, 2, 2), np.float32)),
    "mask.pgm": lambda path: consistency.write(path, np.zeros((2, 2), np.uint8)),
    "network.t7": lambda path: t7.write(path, {"a": 1.0}),
    "painted.jpg": attach,
    "film.mp4": film,
    "film.gif": film,
    "frames": lambda path: work.WorkFolder(path, {}, fresh=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_it_is_one_line_with_the_file_and_what_to_do(name, full, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if name == "painted.jpg":
        Path(name).write_bytes(b"\xff\xd8\xff")

    def program(interrupts):
        WRITERS[name](name)
        return 0

    assert process.run(program, "th") == 1
    err = capsys.readouterr().err
    sidecar = ".json" if name == "painted.jpg" else ""
    assert err.startswith(f"th: {name}{sidecar}: ") and err.count("\n") == 1
    assert "No space left on device; free some space" in err and "Errno" not in err
    left = [each.name for each in tmp_path.rglob("*") if each.is_file()]
    assert left == ([name] if sidecar else [])


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("painted.jpg", "frames")])
def test_a_link_stays_one_and_the_file_behind_it_keeps_its_mode(name, tmp_path):
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / name, tmp_path / name
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    WRITERS[name](str(link))
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes() != b"old"
    assert {each.name for each in tmp_path.iterdir()} == {"kept", name}
    assert [each.name for each in target.parent.iterdir()] == [name]


def test_a_folder_is_no_place_for_a_file_and_the_root_is_none():
    for place in ("/", "/tmp/", "."):
        with pytest.raises(IsADirectoryError):
            files.write_whole(place, b"content")


class Full:
    """A file on a disk without space."""

    def write(self, data):
        raise OSError(*NO_SPACE.args)

    def flush(self):
        pass


def test_what_torch_makes_of_it_is_told_by_its_cause(tmp_path):
    with (
        pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a'"),
        files.replacing(tmp_path / "a"),
    ):
        torch.save(torch.zeros(2**10), Full())


def test_another_error_of_torch_is_left_alone(tmp_path):
    with pytest.raises(RuntimeError, match="ours"), files.replacing(tmp_path / "a"):
        raise RuntimeError("ours")


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(OSError, match="other") as caught, files.replacing(tmp_path / "a"):
        raise OSError(28, "No space left on device", "other")
    assert caught.value.filename == "other"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_while_the_disk_is_full_is_one_line(number, word, full, tmp_path, monkeypatch, capsys):
    def program(interrupts):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            image.save(tmp_path / "out_3.png", np.zeros((3, 2, 2)))
        return 0

    statuses = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    process.run(program, "neural_style")
    assert statuses == [128 + number]
    err = capsys.readouterr().err
    assert err.startswith(
        f"neural_style: {word}; {tmp_path}/out_3.png: could not be written: No space left on "
    )
    assert err.count("\n") == 1
