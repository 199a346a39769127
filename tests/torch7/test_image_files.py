"""Image files that are damaged, turned, of wide gamuts or no images: what every program's loader makes of them."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from recordings import SHARED, needs_shared

from legacy_style.errors import FormatError, IncompleteError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.programs.athalye import images as athalye_images
from legacy_style.programs.paper import experiments as paper
from legacy_style.torch7 import color_profile, image, libtiff

RGB = np.random.RandomState(3).randint(0, 256, (12, 10, 3)).astype(np.uint8)

# One loader of each program; all raise the same for the same file.
DOORS: dict[str, Callable[..., Any]] = {
    "torch7": image.load,
    "athalye": lambda path, **more: athalye_images.read(str(path), "current", **more),
    "athalye 2017": lambda path, **more: athalye_images.read(str(path), "2017", **more),
    "paper": lambda path, **more: paper.load(str(path), 12, **more),
}
every_door = pytest.mark.parametrize("load", DOORS.values(), ids=DOORS)


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", check)


def png(
    *extra: bytes, rows: int = 12, depth: int = 8, height: int = 12, interlaced: int = 0, behind: bytes = b""
) -> bytes:
    """A PNG of RGB's values, its first `rows` rows alone, with chunks of one's own before the image data."""
    pixels = RGB if depth == 8 else RGB.astype(">u2") * 257
    lines = b"".join(b"\0" + row.tobytes() for row in pixels[:rows])
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 10, height, depth, 2, 0, 0, interlaced)),
            *extra,
            chunk(b"IDAT", zlib.compress(lines)),
            behind,
            chunk(b"IEND", b""),
        ]
    )


def written(tmp_path: Path, content: bytes, name: str = "image.png") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"pHYs", bytes(9), crc=1),
        chunk(b"tEXt", b"Software\0foo", crc=1),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(1 << 21))),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(1 << 26))),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1 << 21))),
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"iCCP", b"printer\0\0no zlib"),
        chunk(b"eXIf", b"MM\0*garbage"),
        chunk(b"gAMA", b"\0"),
        chunk(b"acTL", bytes(3)),
        b"".join(chunk(b"tEXt", b"a\0" + bytes(1 << 16)) for _ in range(80)),
    ],
)
@every_door
def test_a_png_opens_whatever_its_chunks_without_pixels_are(tmp_path: Path, load: Any, extra: bytes) -> None:
    said: list[str] = []
    plain = load(written(tmp_path, png()))
    for content in (png(extra), png(behind=extra)):
        np.testing.assert_array_equal(
            np.asarray(load(written(tmp_path, content), notice=said.append)), np.asarray(plain)
        )
    assert said == []


def test_pixels_are_equal_to_those_of_the_whole_file(tmp_path: Path) -> None:
    loaded = image.load(written(tmp_path, png(chunk(b"pHYs", bytes(9), crc=1))))
    np.testing.assert_array_equal((loaded * 255).round().transpose(1, 2, 0), RGB)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("rows", "missing"), [(7, 5), (11, 1), (0, 12)])
@every_door
def test_rows_that_a_png_lacks_are_counted(
    tmp_path: Path, load: Any, depth: int, rows: int, missing: int
) -> None:
    with pytest.raises(
        FormatError, match=rf"image\.png: a broken PNG \({missing} of its 12 rows are missing at its end\)"
    ):
        load(written(tmp_path, png(rows=rows, depth=depth)))


def test_an_interlaced_png_that_ends_early_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="rows are missing"):
        image.load(written(tmp_path, png(rows=11, interlaced=1)))


def plain_png(
    header: bytes, packed: bytes, *before: bytes, behind: bytes = b"", crc: int | None = None
) -> bytes:
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            *before,
            chunk(b"IHDR", header),
            chunk(b"IDAT", packed, crc),
            behind,
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("color", "size", "flags", "before", "behind", "crc", "what"),
    [
        (2, 3, (0, 0, 0), b"", b"", 7, "the checksum of its IDAT chunk is wrong"),
        (3, 1, (0, 0, 0), b"", b"", None, "its palette takes 0 bytes"),
        (3, 1, (0, 0, 0), b"", chunk(b"PLTE", bytes(30)), None, "its palette takes 0 bytes"),
        (2, 3, (1, 0, 0), b"", b"", None, "its header makes no sense"),
        (2, 3, (0, 1, 0), b"", b"", None, "its header makes no sense"),
        (2, 3, (0, 0, 2), b"", b"", None, "its header makes no sense"),
        (2, 3, (0, 0, 0), chunk(b"tEXt", b"a\0b"), b"", None, "its header makes no sense"),
    ],
)
@every_door
def test_damage_that_libpng_stops_at_is_refused(
    tmp_path: Path,
    load: Any,
    color: int,
    size: int,
    flags: tuple[int, int, int],
    before: bytes,
    behind: bytes,
    crc: int | None,
    what: str,
) -> None:
    header = struct.pack(">IIBB", 10, 12, 8, color) + bytes(flags)
    packed = zlib.compress(bytes(12 * (1 + 10 * size)))
    with pytest.raises(FormatError, match=rf"image\.png: a broken PNG \({what}"):
        load(written(tmp_path, plain_png(header, packed, before, behind=behind, crc=crc)))


def test_a_damaged_transparency_decides_nothing(tmp_path: Path) -> None:
    plain = image.load(written(tmp_path, png()))
    for transparency in (chunk(b"tRNS", b"\0"), chunk(b"tRNS", bytes(6)), chunk(b"tRNS", bytes(6), crc=1)):
        np.testing.assert_array_equal(image.load(written(tmp_path, png(transparency))), plain)


@every_door
def test_rows_that_no_strip_of_a_tiff_holds_are_missing(tmp_path: Path, load: Any) -> None:
    whole = encoded(RGB[..., 0], "TIFF")
    rows_per_strip = struct.pack("<HHII", 278, 4, 1, 12)
    assert whole.count(rows_per_strip) == 1
    cut = whole.replace(rows_per_strip, struct.pack("<HHII", 278, 4, 1, 5))
    with pytest.raises(FormatError, match=r"cut\.tif: a broken TIFF \(7 of its 12 rows are missing\)"):
        load(written(tmp_path, cut, "cut.tif"))


def test_a_height_that_nothing_stands_behind_costs_no_time_and_no_memory(tmp_path: Path) -> None:
    # One bit of the height turned: 4,194,316 rows for 12. Decoding them would take seconds and gigabytes.
    content = png(depth=16, height=12 | 1 << 22)
    with pytest.raises(FormatError, match=r"4194304 of its 4194316 rows are missing"):
        image.load(written(tmp_path, content))


def test_bombs_are_refused_before_they_are_counted(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="more than the limit of 178956970"):
        image.load(written(tmp_path, png(height=1 << 30)))


@every_door
def test_too_many_pixels_are_one_line_everywhere(tmp_path: Path, load: Any) -> None:
    content = encoded(Image.new("1", (20000, 20000)), "PNG")
    with pytest.raises(
        OptionError, match=r"image\.png: 20000x20000 is 400000000 pixels, more than the limit"
    ):
        load(written(tmp_path, content))


@every_door
@pytest.mark.parametrize("kind", ["BMP", "PPM", "GIF", "TIFF", "WEBP", "TGA", "PNG"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_file_that_ends_early_is_an_error_that_names_it(
    tmp_path: Path, load: Any, kind: str, share: float
) -> None:
    content = encoded(np.kron(RGB, np.ones((4, 4, 1), np.uint8)), kind)
    with pytest.raises(LegacyStyleError, match=r"cut\.bin: "):
        load(written(tmp_path, content[: int(len(content) * share)], "cut.bin"))


def test_a_jpeg_that_ends_early_is_completed_as_by_libjpeg_and_its_missing_rows_are_said(
    tmp_path: Path,
) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (240, 64, 3)).astype(np.uint8)
    whole = encoded(noise, "JPEG", subsampling=0)
    said: list[str] = []
    image.load(written(tmp_path, whole), notice=said.append)
    image.load(written(tmp_path, whole + bytes(100)), notice=said.append)
    image.load(written(tmp_path, whole + b"more that cameras write"), notice=said.append)
    assert said == []
    cut = image.load(written(tmp_path, whole[: len(whole) // 2]), notice=said.append)
    assert cut.shape == (3, 240, 64)
    (line,) = said
    rows = int(line.split("too early: ")[1].split()[0])
    assert 108 <= rows <= 136  # half of them, and the row of blocks that was begun
    assert "of its 240 rows are missing and come out gray; download or copy it again" in line
    gray = (cut == cut[:, -1:, :1]).all(axis=(0, 2))
    assert abs(int(gray.sum()) - rows) <= 8


def test_a_jpeg_that_ends_early_is_decoded_once_more_and_no_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (240, 64, 3)).astype(np.uint8)
    whole = encoded(noise, "JPEG", subsampling=0)
    opened: list[object] = []
    plain = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or plain(file))
    said: list[str] = []
    image.load(written(tmp_path, whole[: len(whole) // 2]), notice=said.append)
    assert (len(said), len(opened)) == (1, 2)
    opened.clear()
    image.load(written(tmp_path, whole), notice=said.append)
    assert (len(said), len(opened)) == (1, 1)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 3}])
def test_rows_of_a_jpeg_are_missing_only_where_its_data_are(tmp_path: Path, options: dict[str, int]) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    said: list[str] = []

    def remark(content: bytes) -> str:
        said.clear()
        assert image.load(written(tmp_path, content, "photo.jpg"), notice=said.append).shape[2] == 64
        return "".join(said).partition(f"{tmp_path / 'photo.jpg'}: ")[2]

    whole = encoded(noise, "JPEG", **options)
    # Only the mark of its end is gone, or half of it.
    assert remark(whole[:-2]) in (
        "",
        "the file ends too early, but none of its rows is missing; download or copy it again",
    )
    assert "rows are missing" not in remark(whole[:-1])
    assert remark(whole[:-30]).startswith("the file ends too early: some of it comes out gray or blurred; ")
    # One bit of the height turned: 192 rows for 64; and data that break off in front of the mark of the end.
    height = whole.index(b"\xff\xc0") + 5
    taller = whole[:height] + struct.pack(">H", 192) + whole[height + 2 :]
    counted = remark(taller).removeprefix("the image data end too early: ")
    assert (
        104 <= int(counted.split()[0]) <= 128
    )  # of the first blocks behind the data a few bits may be there
    assert " of its 192 rows are missing and come out gray; " in counted
    half = remark(whole[: len(whole) // 2] + b"\xff\xd9")
    assert 24 <= int(half.removeprefix("the image data end too early: ").split()[0]) <= 40
    # What is gray by itself is not missing.
    noise[32:] = 128
    assert remark(encoded(noise, "JPEG", **options)) == ""
    assert remark(encoded(np.full((64, 64, 3), 128, np.uint8), "JPEG", **options)) == ""


@pytest.mark.parametrize("load", [DOORS["athalye"], DOORS["paper"]], ids=["athalye", "paper"])
def test_where_pillow_read_the_original_a_cut_jpeg_is_an_error_with_its_name(
    tmp_path: Path, load: Any
) -> None:
    whole = encoded(np.kron(RGB, np.ones((8, 8, 1), np.uint8)), "JPEG")
    with pytest.raises(FormatError, match=r"cut\.jpg: a broken JPEG .*; save or download it again"):
        load(written(tmp_path, whole[: len(whole) // 2], "cut.jpg"))


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@every_door
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_is_said_once_and_obeyed_on_request(
    tmp_path: Path, load: Any, kind: str, orientation: int
) -> None:
    path = written(tmp_path, oriented(kind, orientation), "photo")
    said: list[str] = []
    as_it_lies = np.asarray(load(path, notice=said.append))
    (line,) = said
    assert line.startswith(f"{path}: its EXIF orientation ({orientation}: ")
    assert line.endswith("is ignored, as it always was; --exif-rotate obeys it")
    turned = np.asarray(load(path, exif_rotate=True, notice=said.append))
    assert len(said) == 1
    with Image.open(path) as picture:
        upright = encoded(ImageOps.exif_transpose(picture), "PNG")
        lying = encoded(Image.fromarray(np.asarray(picture)), "PNG")
    np.testing.assert_array_equal(turned, np.asarray(load(written(tmp_path, upright))))
    np.testing.assert_array_equal(as_it_lies, np.asarray(load(written(tmp_path, lying))))


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_an_upright_image_and_one_of_no_known_orientation_are_left_alone(
    tmp_path: Path, orientation: int
) -> None:
    said: list[str] = []
    path = written(tmp_path, oriented("JPEG", orientation))
    assert image.load(path, exif_rotate=True, notice=said.append).shape == (3, 12, 10)
    assert said == []


def test_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(tmp_path, png(chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), depth=16))
    expected = np.rot90(image.load(written(tmp_path, png(depth=16), "plain")), -1, (1, 2))
    np.testing.assert_array_equal(image.load(path, exif_rotate=True), expected)


def profile(
    colorants: Iterator[tuple[float, float, float]], title: bytes = b"Display P3", space: bytes = b"RGB "
) -> bytes:
    """An ICC profile of version 2 with these colorants, red, green, blue."""
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(title) + 1) + title + b"\0")]
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True):
        tags.append((name, b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in xyz))))
    begin = 132 + 12 * len(tags)
    table, body = b"", b""
    for name, content in tags:
        table += name + struct.pack(">II", begin + len(body), len(content))
        body += content
    head = bytes(16) + space + b"XYZ " + bytes(12) + b"acsp" + bytes(88)
    return head + struct.pack(">I", len(tags)) + table + body


# Adapted to D50, as profiles have them.
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@every_door
def test_a_wide_gamut_is_said_once(tmp_path: Path, load: Any, kind: str) -> None:
    said: list[str] = []
    load(written(tmp_path, encoded(RGB, kind, icc_profile=profile(iter(P3)))), notice=said.append)
    (line,) = said
    assert "its colour profile (Display P3) is ignored" in line
    load(written(tmp_path, encoded(RGB, kind, icc_profile=profile(iter(SRGB)))), notice=said.append)
    load(written(tmp_path, encoded(RGB, kind)), notice=said.append)
    assert len(said) == 1


def test_gamuts_are_told_by_their_colorants_or_else_by_their_names() -> None:
    assert color_profile.wide_gamut(profile(iter(ADOBE), b"whatever")) == "whatever"
    assert color_profile.wide_gamut(profile(iter(SRGB), b"Display P3")) == ""
    nothing = [(0.0, 0.0, 0.0)] * 3
    assert color_profile.wide_gamut(profile(iter(nothing), b"Adobe RGB (1998)")) == "Adobe RGB (1998)"
    assert color_profile.wide_gamut(profile(iter(nothing), b"my scanner")) == ""
    assert color_profile.wide_gamut(profile(iter(P3), space=b"CMYK")) == ""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert color_profile.wide_gamut(srgb) == ""
    # Text of version 4, in UTF-16.
    title = "Anzeige P3".encode("utf-16-be")
    mluc = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"de", b"DE", len(title), 28) + title
    assert color_profile._text(mluc) == "Anzeige P3"
    whole = profile(iter(P3))
    for length in range(len(whole)):
        color_profile.wide_gamut(whole[:length])  # whatever is missing, nothing is raised


def test_primaries_of_a_png(tmp_path: Path) -> None:
    said: list[str] = []
    image.load(written(tmp_path, png(chunk(b"cICP", bytes([9, 16, 0, 1])))), notice=said.append)
    image.load(written(tmp_path, png(chunk(b"cICP", bytes([1, 13, 0, 1])))), notice=said.append)
    (line,) = said
    assert "(ITU-R BT.2020) is ignored" in line


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(100), "a HEIC image"),
        (b"\0\0\0\x18ftypmif1" + bytes(100), "a HEIC image"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "a video"),
        (b"8BPS\0\1" + bytes(100), "a Photoshop document"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript program"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "an EPS file"),
        (b"gimp xcf v011\0", "a GIMP document"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL image"),
        (b"\xef\xbb\xbf\n <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "a web page, not an image"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
    ],
)
@every_door
def test_what_is_no_image_is_named_for_what_it_is(
    tmp_path: Path, load: Any, content: bytes, what: str
) -> None:
    path = written(tmp_path, content, "photo.jpg")
    with pytest.raises(UnsupportedError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {what}")
    assert ", which is not read here; " in str(caught.value)


@needs_shared
@every_door
def test_the_files_that_were_once_refused(load: Any) -> None:
    cases = SHARED / "cases"
    names = ("badcrc_phys.png", "badcrc_text.png", "icc2mb.png", "ztxt2mb.png")
    loaded = [np.asarray(load(cases / name)) for name in names]
    assert all(np.array_equal(each, loaded[0]) for each in loaded)
    with pytest.raises(FormatError, match="5 of its 12 rows are missing"):
        load(cases / "png16_7_of_12_rows.png")


@pytest.mark.parametrize("kind", [b"ABCD", b"CgBI", b"tE t", b"\0\1\2\3"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_chunk_that_pixels_depend_on_and_nobody_knows_is_refused_as_by_libpng(
    tmp_path: Path, kind: bytes, behind: bool
) -> None:
    content = png(behind=chunk(kind, b"xx")) if behind else png(chunk(kind, b"xx"))
    with pytest.raises(FormatError, match=r"its chunk b'.*' is needed to understand it, and is not known"):
        image.load(written(tmp_path, content))


def tiff(packed: bytes, *, bits: int = 8, compression: int = 1) -> bytes:
    """A TIFF of 17x13 gray pixels in one strip."""
    tags = {
        256: 17,
        257: 13,
        258: bits,
        259: compression,
        262: 1,
        273: 122,
        277: 1,
        278: 13,
        279: len(packed),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def test_twelve_bits_of_a_tiff_are_as_light_as_sixteen(tmp_path: Path) -> None:
    rows = np.zeros((13, 18), np.uint16)
    rows[:, :17] = np.linspace(0, 4095, 13 * 17).reshape(13, 17).round()
    first, second = rows[:, ::2], rows[:, 1::2]  # two numbers take three bytes, a row whole ones
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    stored = packed.reshape(13, 27)[:, :26].tobytes()
    loaded = image.load(written(tmp_path, tiff(stored, bits=12)))
    np.testing.assert_array_equal(loaded[0], rows[:, :17] * (1 / 4095))


def test_a_turned_tiff_has_all_its_rows(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = image.load(written(tmp_path, encoded(RGB, "TIFF", exif=exif)))
    np.testing.assert_array_equal((loaded * 255).round(), np.rot90(RGB, -1).transpose(2, 0, 1))


@every_door
@pytest.mark.parametrize(
    ("compression", "says"), [(8, "ZIPDecode"), (5, "LZW|not yet in table"), (7, "JPEG")]
)
def test_what_libtiff_says_is_the_reason_and_no_line_of_its_own(
    tmp_path: Path, load: Any, compression: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = tiff(RGB.tobytes(), compression=compression)
    with pytest.raises(FormatError, match=rf"image\.png: a broken TIFF \(.*({says})") as caught:
        load(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_each_thread_hears_its_own_libtiff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that others write to stderr meanwhile is lost, or taken for the reason of an error."""
    path = written(tmp_path, tiff(RGB.tobytes(), compression=8))

    def fail() -> None:
        with pytest.raises(OSError, match="-2"), Image.open(path) as broken:
            broken.load()

    with libtiff.heard() as lines:
        os.write(2, b"from elsewhere\n")
        other = threading.Thread(target=fail)
        other.start()
        other.join()
        assert lines == []
        fail()
        assert len(lines) == 1
        assert "ZIPDecode" in lines[0]
    told = capfd.readouterr().err
    assert told.startswith("from elsewhere\n")
    assert told.count("ZIPDecode") == 1
    fail()
    assert "ZIPDecode" in capfd.readouterr().err, "the handler before is back"


def test_threads_hear_libtiff_one_after_the_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, tiff(RGB.tobytes(), compression=8))
    said: list[str] = []

    def listen() -> None:
        with pytest.raises(FormatError) as caught:
            image.load(path)
        said.append(str(caught.value))

    with libtiff.heard():
        others = [threading.Thread(target=listen) for _ in range(3)]
        for other in others:
            other.start()
        time.sleep(0.05)
        assert said == []
    for other in others:
        other.join()
    assert len(said) == 3
    assert all("ZIPDecode" in line for line in said)
    with pytest.raises(OSError, match="-2"), Image.open(path) as broken:
        broken.load()
    assert "ZIPDecode" in capfd.readouterr().err, "the handler before all is back"


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_large_jpeg_without_data_is_refused_before_it_is_decoded(
    tmp_path: Path, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoded(RGB, "JPEG")
    at = whole.index(b"\xff\xc0") + 5
    large = whole[:at] + struct.pack(">HH", 65535, 2500) + whole[at + 4 : -2] + end
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(IncompleteError, match=r"\d+ bytes cannot hold 2500x65535 pixels"):
        image.load(written(tmp_path, large))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "I;16", "P"])
@pytest.mark.parametrize("size", [7, 300, 900])
def test_an_image_that_is_scaled_while_it_is_read_is_the_same_to_the_bit(
    tmp_path: Path, mode: str, size: int
) -> None:
    pixels = np.random.RandomState(size).randint(0, 256, (600, 300, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    stored = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 251) if mode == "I;16" else picture.convert(mode)
    )
    path = written(tmp_path, encoded(stored, "PNG"))
    whole = image.load(path)
    np.testing.assert_array_equal(image.load_scaled(path, size), image.scale(whole, size))
    smaller = image.load_scaled(path, size, enlarge=False)
    np.testing.assert_array_equal(smaller, image.scale(whole, size) if size < 600 else whole)


def test_a_large_image_that_is_scaled_down_takes_the_memory_of_its_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(Image.new("L", (3000, 3000), 99), "PNG"))
    tracemalloc.start()
    try:
        loaded = image.load_scaled(path, 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loaded.shape == (3, 100, 100)
    assert peak < 6 * 3000 * 3000  # as numbers it takes 24 bytes a pixel
