"""Records of how a picture was made: beside it, inside it, and never in the way of its pixels."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from legacy_style.errors import FormatError
from legacy_style.programs.neural_style import record
from legacy_style.programs.neural_style.options import Options


@dataclass(frozen=True)
class Losses:
    content: tuple[float, ...]
    style: tuple[float, ...]
    total: float


def losses(count: int) -> list[Losses]:
    return [Losses((i + 1 / 3,), (2.0, 3.0 * i), 5 + 4 * i) for i in range(count)]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "out.png"
    levels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


def some_record(tmp_path: Path, count: int = 3) -> record.Record:
    model = tmp_path / "model.caffemodel"
    model.write_bytes(b"weights")
    return record.describe(
        Options(content_image="große katze.png"),
        command=["th", "neural_style.lua", "-content_image", "große katze.png"],
        model=model,
        losses=losses(count),
        inputs=[model],
        seconds=1.5,
    )


def test_numbers_that_json_has_not_are_text(picture: Path, tmp_path: Path) -> None:
    made = record.describe(
        Options(print_iter=math.inf, seed=-math.inf), command=[], model=picture, losses=losses(1)
    )
    sidecar = record.attach(picture, made)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    told = json.loads(sidecar.read_text(), parse_constant=refuse)
    assert (told["options"]["print_iter"], told["options"]["seed"]) == ("inf", "-inf")


def test_pixels_and_all_other_chunks_stay_byte_for_byte(picture: Path, tmp_path: Path) -> None:
    before = picture.read_bytes()
    record.attach(picture, some_record(tmp_path))
    after = picture.read_bytes()
    start = before.index(b"IDAT") - 4
    assert after.startswith(before[:start])
    assert after.endswith(before[start:])


def test_other_readers_find_the_record(picture: Path, tmp_path: Path) -> None:
    expected = np.asarray(Image.open(picture))
    made = some_record(tmp_path)
    record.attach(picture, made)
    with Image.open(picture) as image:
        assert json.loads(image.text["legacy-style"]) == made  # type: ignore[attr-defined]  # of PngImageFile
        assert image.text["Software"].startswith("legacy-style ")  # type: ignore[attr-defined]  # the same
        assert "große katze.png" in image.text["Comment"]  # type: ignore[attr-defined]  # the same
        image.load()  # checks every checksum
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_record_says_how_the_picture_was_made(tmp_path: Path) -> None:
    made = some_record(tmp_path)
    assert made["command"][0] == "th"
    assert made["options"]["content_image"] == "große katze.png"
    assert made["options"]["content_weight"] == 5
    # SHA-256 of b"weights", by coreutils' sha256sum.
    digest = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert made["model"] == {"file": "model.caffemodel", "sha256": digest}
    assert made["inputs"] == {str(tmp_path / "model.caffemodel"): digest}
    assert made["losses"] == {
        "evaluation": [1, 2, 3],
        "content": [[0.333333333], [1.33333333], [2.33333333]],
        "style": [[2, 0], [2, 3], [2, 6]],
        "total": [5, 9, 13],
    }


def test_the_sidecar_alone_without_chunks(picture: Path, tmp_path: Path) -> None:
    before = picture.read_bytes()
    made = some_record(tmp_path)
    assert record.attach(picture, made, chunks=False) == picture.with_name("out.png.json")
    assert picture.read_bytes() == before
    assert record.read(picture) == made


def test_the_chunk_serves_where_the_sidecar_was_lost(picture: Path, tmp_path: Path) -> None:
    made = some_record(tmp_path)
    record.attach(picture, made).unlink()
    assert record.read(picture) == made


def test_a_jpeg_gets_its_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "out.jpg"
    Image.new("RGB", (20, 20)).save(path)
    before = path.read_bytes()
    made = some_record(tmp_path)
    record.attach(path, made)
    assert path.read_bytes() == before
    assert record.read(path) == made


def test_the_record_of_another_picture_is_refused(picture: Path, tmp_path: Path) -> None:
    record.attach(picture, some_record(tmp_path))
    Image.new("RGB", (20, 20)).save(picture)  # as a run without --metadata would
    with pytest.raises(FormatError, match=r"out\.png\.json: the record of another picture than out\.png"):
        record.read(picture)


def test_a_picture_that_was_made_again_has_the_record_inside_it(picture: Path, tmp_path: Path) -> None:
    before = picture.read_bytes()
    old = record.attach(picture, some_record(tmp_path)).read_bytes()
    picture.write_bytes(before)
    made = some_record(tmp_path, 4)
    record.attach(picture, made).write_bytes(old)  # as if killed before the sidecar was written
    assert record.read(picture) == made


def test_a_plain_picture_has_no_record(picture: Path) -> None:
    assert record.read(picture) is None


def test_a_long_run_keeps_its_first_and_last_losses_and_stays_readable(picture: Path, tmp_path: Path) -> None:
    made = some_record(tmp_path, 12_001)
    assert made["losses"]["evaluation"][0] == 1
    assert made["losses"]["evaluation"][-1] == 12_001
    assert len(made["losses"]["total"]) <= 5001
    record.attach(picture, made)
    with Image.open(picture) as image:  # refuses text of more than 1 MiB
        assert json.loads(image.text["legacy-style"]) == made  # type: ignore[attr-defined]  # of PngImageFile


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"format": "other"}', b"\xff"])
def test_what_is_no_record_is_refused(picture: Path, text: bytes) -> None:
    record.sidecar_path(picture).write_bytes(text)
    with pytest.raises(FormatError, match=r"out\.png\.json"):
        record.read(picture)


@given(st.text(), st.integers(0, 3))
def test_any_text_goes_through_a_chunk(text: str, idats: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", b"\0" * 13)
        + chunk(b"IDAT", b"x") * (idats + 1)
        + chunk(b"IEND", b"")
    )
    assert record.read_png(record.annotate_png(png, {"legacy-style": text})) == {"legacy-style": text}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@given(st.binary(max_size=60))
def test_broken_pngs_are_refused_in_a_sentence(tail: bytes) -> None:
    data = b"\x89PNG\r\n\x1a\n" + tail
    try:
        record.annotate_png(data, {"a": "b"})
    except FormatError as error:
        assert "PNG" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"legacy-style",
        b"legacy-style\0\1\0",
        b"legacy-style\0\1\0\0\0not deflated",
        b"legacy-style\0\0\0\0\0\xff",
    ],
)
def test_a_broken_chunk_of_ours_is_refused_and_one_of_others_passed_over(body: bytes) -> None:
    def png(text: bytes) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"iTXt", text) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")

    if body.startswith(b"legacy-style\0"):
        with pytest.raises(FormatError, match="iTXt"):
            record.read_png(png(body))
    assert record.read_png(png(body.replace(b"legacy-style", b"others"))) == {}


def test_a_chunk_that_swells_without_end_is_refused() -> None:
    body = b"legacy-style\0\1\0\0\0" + zlib.compress(b" " * (record.MAX_TEXT + 1))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"iTXt", body) + chunk(b"IEND", b"")
    with pytest.raises(FormatError, match="more than"):
        record.read_png(png)


def test_what_is_no_png_is_not_annotated() -> None:
    with pytest.raises(FormatError, match="not a PNG"):
        record.annotate_png(b"GIF89a", {})
