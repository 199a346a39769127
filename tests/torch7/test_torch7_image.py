"""legacy_style.torch7.image against the recorded arrays and files, and against images drawn here."""

import io
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from recordings import RECORDED, both_roots, component, needs_shared

from legacy_style.errors import FormatError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.torch7 import image

RNG = np.random.RandomState(0)
GRAY = RNG.randint(0, 256, (5, 7), np.uint8)
RGB = RNG.randint(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.randint(0, 256, (5, 7), np.uint8)


def doubles(numbers, white=255):
    """(H, W) or (H, W, C) numbers as the original has them: the first three channels, gray three times."""
    channels = np.repeat(numbers[None], 3, 0) if numbers.ndim == 2 else numbers.transpose(2, 0, 1)[:3]
    return channels * (1 / white)


def encode(picture, image_format, **options):
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


@pytest.fixture
def load_bytes(tmp_path):
    def load(content, name="image.anything", **options):
        (tmp_path / name).write_bytes(content)
        return image.load(tmp_path / name, **options)

    return load


@needs_shared
def test_every_recorded_image_is_loaded_equal():
    for key, recorded in component("image_load").items():
        name = key.removeprefix("load3_")
        ours = image.load(RECORDED / "inputs" / name)
        assert ours.dtype == np.float64
        if name == "paltrns97x61.png":
            # The original read rows of RGBA as if they were RGB. We do not, and can tell that this is what
            # happened.
            with Image.open(RECORDED / "inputs" / name) as picture:
                rgba = np.asarray(picture.convert("RGBA"))
            np.testing.assert_array_equal(ours, doubles(rgba))
            height, width = rgba.shape[:2]
            ours = doubles(rgba.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3))
        np.testing.assert_array_equal(ours, recorded, err_msg=name)


@needs_shared
@pytest.mark.parametrize(
    ("refused", "same"), [("odd97x61.bmp", "odd97x61.png"), ("la97x61.png", "gray97x61.png")]
)
def test_what_the_original_refused_is_loaded(refused, same):
    inputs = RECORDED / "inputs"
    np.testing.assert_array_equal(image.load(inputs / refused), image.load(inputs / same))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_rgb(load_bytes, image_format):
    loaded = load_bytes(encode(Image.fromarray(RGB), image_format))
    np.testing.assert_array_equal(loaded, doubles(RGB))
    assert loaded.flags.c_contiguous


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_gray_becomes_three_channels(load_bytes, image_format):
    np.testing.assert_array_equal(load_bytes(encode(Image.fromarray(GRAY), image_format)), doubles(GRAY))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_alpha_is_dropped_not_blended(load_bytes, image_format):
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    np.testing.assert_array_equal(load_bytes(encode(rgba, image_format)), doubles(RGB))
    la = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])
    np.testing.assert_array_equal(load_bytes(encode(la, image_format)), doubles(GRAY))


def test_webp(load_bytes):
    np.testing.assert_array_equal(
        load_bytes(encode(Image.fromarray(RGB), "WEBP", lossless=True)), doubles(RGB)
    )


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("PNG", {"transparency": 3}),
        ("PNG", {"transparency": bytes([9, 0, 255])}),
        ("GIF", {}),
        ("GIF", {"transparency": 3}),
    ],
)
def test_palettes_give_their_colours_transparent_or_not(load_bytes, image_format, options):
    indices = GRAY % 8
    palette = RNG.randint(0, 256, (8, 3), np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(palette.tobytes())
    loaded = load_bytes(encode(picture, image_format, **options))
    np.testing.assert_array_equal(loaded, doubles(palette[indices]))


def test_gif_gives_its_first_frame(load_bytes):
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_bytes(content), doubles(GRAY))


def adam7(pixels):
    """The seven passes of an interlaced PNG (PNG specification, 8.2), without the empty ones."""
    starts = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = [pixels[y::height, x::width] for y, x, height, width in starts]
    return [part for part in passes if part.size]


def filtered(rows, pixel_bytes):
    """Rows of bytes after PNG's five filters in turn (PNG specification, 9.2)."""
    above = np.zeros(rows.shape[1], int)
    for number, row in enumerate(rows.astype(int)):
        left = np.concatenate([np.zeros(pixel_bytes, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(pixel_bytes, int), above])[: len(row)]
        distances = abs(np.stack([above - corner, left - corner, left + above - 2 * corner]))
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        predictions = [0 * row, left, above, (left + above) // 2, paeth]
        yield bytes([number % 5]) + ((row - predictions[number % 5]) % 256).astype(np.uint8).tobytes()
        above = row


def png(pixels, colour_type, bits, *, interlaced=False):
    """A PNG of `pixels`, big-endian (H, W, C), or of packed rows of bytes, (H, bytes, 1)."""
    height, width = pixels.shape[:2]
    if bits < 8:
        width = width * 8 // bits
    pixel_bytes = pixels[0, 0].nbytes
    parts = adam7(pixels) if interlaced else [pixels]
    lines = [np.frombuffer(part.tobytes(), np.uint8).reshape(len(part), -1) for part in parts]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    content = zlib.compress(b"".join(row for part in lines for row in filtered(part, pixel_bytes)))
    chunks = [(b"IHDR", header), (b"IDAT", content[:50]), (b"IDAT", content[50:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["gray", "rgb", "gray+alpha", "rgba"]
)
def test_16_bit_png_keeps_16_bits(load_bytes, colour_type, channels, interlaced):
    numbers = RNG.randint(0, 65536, (23, 17, channels)).astype(">u2")
    loaded = load_bytes(png(numbers, colour_type, 16, interlaced=interlaced))
    colours = numbers[..., :3] if channels >= 3 else numbers[..., 0]
    np.testing.assert_array_equal(loaded, doubles(colours, 65535))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_expanded_to_all_of_0_to_255(load_bytes, bits):
    packed = RNG.randint(0, 256, (6, 3, 1), np.uint8)
    per_byte = 8 // bits
    shifts = bits * np.arange(per_byte)[::-1]
    gray = ((packed >> shifts) % 2**bits).reshape(6, -1) * (255 // (2**bits - 1))
    np.testing.assert_array_equal(load_bytes(png(packed, 0, bits)), doubles(gray))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg(load_bytes, options):
    content = encode(Image.fromarray(RGB), "JPEG", **options)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(load_bytes(content), doubles(np.asarray(picture)))


def test_cmyk_jpeg_gives_the_inverted_inks(load_bytes):
    content = encode(Image.fromarray(np.dstack([RGB, ALPHA]), "CMYK"), "JPEG")
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(load_bytes(content), doubles(255 - np.asarray(picture)))


def test_exif_orientation_is_ignored(load_bytes):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = (encode(Image.fromarray(RGB), "JPEG", exif=e) for e in (exif, Image.Exif()))
    np.testing.assert_array_equal(load_bytes(turned), load_bytes(plain))


def test_kind_is_told_by_content_not_by_name(load_bytes):
    content = encode(Image.fromarray(RGB), "PNG")
    for name in ("a.jpg", "b", "c.png.bak", "d.gif"):
        np.testing.assert_array_equal(load_bytes(content, name), doubles(RGB))


def test_truncated_jpeg_is_loaded_as_pillow_loads_it_on_request(load_bytes, monkeypatch):
    content = encode(Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))), "JPEG")
    start_of_scan = content.index(b"\xff\xda") + 14
    for cut in range(start_of_scan, len(content), 37):
        loaded = load_bytes(content[:cut])
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        with monkeypatch.context() as patch, Image.open(io.BytesIO(content[:cut])) as picture:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            np.testing.assert_array_equal(loaded, doubles(np.asarray(picture)))


def test_truncated_png_is_an_error(load_bytes):
    content = encode(Image.fromarray(RGB), "PNG")
    with pytest.raises(FormatError, match=r"image\.anything: a broken PNG \(.*\); save or download it again"):
        load_bytes(content[:70])


@pytest.mark.parametrize(("mode", "white"), [("I;16", 65535), ("I", 65535), ("F", 1)])
def test_tiff_of_numbers(load_bytes, mode, white):
    numbers = (GRAY / 255 * white).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    loaded = load_bytes(encode(Image.fromarray(numbers), "TIFF"))
    np.testing.assert_array_equal(loaded, doubles(numbers, white))


@pytest.mark.parametrize("number", [70000, -1])
def test_numbers_without_a_known_white_are_not_guessed_at(load_bytes, number):
    content = encode(Image.fromarray(np.full((2, 2), number, np.int32)), "TIFF")
    with pytest.raises(UnsupportedError, match=f"go from {number} to {number}.*convert the image"):
        load_bytes(content)


def test_missing_files_are_named_as_in_the_original(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"x")
    for name, text in [
        ("nope.jpg", "nope.jpg: No such file or directory"),
        ("", ": No such file or directory"),
        ("file/nope.jpg", "file/nope.jpg: Not a directory"),
    ]:
        with pytest.raises(OptionError) as caught:
            image.load(name)
        assert str(caught.value) == f"{text}; give the name of an image that is there"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "an empty file (0 bytes), not an image; save or download it again"),
        (
            b"not an image",
            "not an image (begins with b'not an i'); give a JPEG or a PNG, or convert it to one",
        ),
        (b"\xff\xd8\xff", "a broken JPEG (its header makes no sense); save or download it again"),
        (b"\x89PNG\r\n\x1a\n", "a broken PNG (its header makes no sense); save or download it again"),
    ],
)
def test_what_is_not_an_image_is_explained(load_bytes, tmp_path, content, text):
    with pytest.raises(FormatError) as caught:
        load_bytes(content)
    assert str(caught.value) == f"{tmp_path / 'image.anything'}: {text}"


def test_folder_and_unreadable_file_are_explained(tmp_path, monkeypatch):
    with pytest.raises(FormatError, match="a folder, not an image; give the name of a file in it"):
        image.load(tmp_path)
    with pytest.raises(FormatError, match="cannot be read"):
        image.load("zero\0byte.png")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FormatError, match=r"locked\.png: cannot be read; ask its owner"):
        image.load(tmp_path / "locked.png")


def test_too_many_pixels_are_refused_before_decoding(load_bytes):
    content = encode(Image.fromarray(RGB), "PNG")
    assert load_bytes(content, max_pixels=35).shape == (3, 5, 7)
    with pytest.raises(OptionError, match=r"7x5 is 35 pixels, more than the limit of 34;.* --max-pixels 35$"):
        load_bytes(content, max_pixels=34)
    bomb = content.replace(struct.pack(">II", 7, 5), struct.pack(">II", 100_000, 100_000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    with pytest.raises(OptionError, match=r"--max-pixels 10000000000$"):
        load_bytes(bomb, max_pixels=10**9)
    with pytest.raises(OptionError, match=r"scale the image down$"):  # not every program has the option
        load_bytes(bomb)


def test_pillows_own_limit_and_warnings_neither_apply_nor_change(load_bytes, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    np.testing.assert_array_equal(load_bytes(encode(Image.fromarray(RGB), "PNG")), doubles(RGB))
    assert Image.MAX_IMAGE_PIXELS == 3


def test_running_out_of_memory_is_explained(load_bytes, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(image, "_to_double", fail)
    with pytest.raises(OptionError, match="not enough memory to load"):
        load_bytes(encode(Image.fromarray(RGB), "PNG"))


SAMPLES = [
    *(
        encode(Image.fromarray(RGB), kind)
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO")
    ),
    png(RNG.randint(0, 65536, (5, 6, 3)).astype(">u2"), 2, 16, interlaced=True),
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(0, 500),
)
@example(b"\x00" * 50, [], None)
def test_broken_files_raise_nothing_but_our_errors(tmp_path_factory, sample, changes, cut):
    content = bytearray(sample[:cut])
    for position, value in changes:
        if position < len(content):
            content[position] = value
    file = tmp_path_factory.getbasetemp() / "broken"
    file.write_bytes(content)
    try:
        loaded = image.load(file, max_pixels=10**6)
    except LegacyStyleError as error:
        assert str(error).startswith(f"{file}: ")
    else:
        assert loaded.shape[0] == 3
        assert 0 <= loaded.min() <= loaded.max() <= 1


def reproduce_scale(key, arrays, root):
    kind, rest = key.split("_", 1)
    name, size = rest.rsplit("_", 1)
    if kind == "rand":
        source = arrays["rand_src_3x11x13"]
    else:
        folder = next(folder for folder in ("inputs", "examples/inputs") if (root / folder / name).exists())
        source = image.load(root / folder / name)
    if kind == "max":
        return image.scale(source, float(size))
    width, height = map(int, size.split("x"))
    return image.scale_to(source, width, height)


@both_roots
def test_every_recorded_scaling_is_equal(root):
    arrays = component("image_scale", root)
    for key, recorded in arrays.items():
        if key != "rand_src_3x11x13":
            ours = reproduce_scale(key, arrays, root)
            np.testing.assert_array_equal(ours, recorded, err_msg=key)


@needs_shared
def test_every_recorded_size_is_equal():
    text = (RECORDED / "components" / "image_scale" / "arrays.json").read_text()
    named = re.findall(r'_([\d.]+)": "(\d+)x(\d+) -> (\d+)x(\d+) ', text)
    listed = re.findall(r"\b(\d+)x(\d+)@(\d+)=(\d+)x(\d+)", text)
    assert (len(named), len(listed)) == (22, 100)
    for size, width, height, *expected in named + [(row[2], *row[:2], *row[3:]) for row in listed]:
        assert image.scaled_size(int(width), int(height), float(size)) == tuple(map(int, expected))


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (1024, 734, 63, (63, 45)),
        (979, 734, 512, (512, 383)),
        (97, 61, 70.7, (70, 44)),
        (300, 7, 1, (1, 1)),
        (97, 61, 0, (1, 1)),
        (97, 61, -5, (1, 1)),
    ],
)
def test_size_is_truncated_and_at_least_one(width, height, size, expected):
    assert image.scaled_size(width, height, size) == expected


@pytest.mark.parametrize("size", [math.nan, math.inf, -math.inf, 1e308])
def test_size_must_be_finite(size):
    with pytest.raises(OptionError, match=r"cannot be scaled to size .* for example 512$"):
        image.scaled_size(97, 61, size)


def test_a_size_beyond_memory_is_explained():
    for side in (10**12, 10**7):
        with pytest.raises(OptionError, match=f"not enough memory for an image of {side}x{side} pixels"):
            image.scale_to(np.zeros((3, 1, 1)), side, side)


def rowcol(source, n):
    """generic/image.c, scaleLinear_rowcol, number by number."""
    f, length = np.float32, len(source)
    if n == length:
        return list(source)
    if n > length:
        scale, result = f(f(length - 1) / f(n - 1)), []
        for target in range(n - 1):
            position = f(f(target) * scale)
            i = int(position)
            part = f(position - f(i))
            after = source[min(i + 1, length - 1)]
            result.append(float(f(1) - part) * source[i] + float(part) * after)
        return [*result, source[-1]]
    scale, result, start, start_part = f(f(length) / f(n)), [], 0, f(0)
    for target in range(n):
        position = f(f(target + 1) * scale)
        end = int(position)
        end_part = f(position - f(end))
        total, weight = f(float(f(1) - start_part) * source[start]), f(f(1) - start_part)
        for i in range(start + 1, end):
            total, weight = f(float(total) + source[i]), f(weight + f(1))
        if end < length:
            total, weight = f(float(total) + float(end_part) * source[end]), f(weight + end_part)
        result.append(float(f(total / weight)))
        start, start_part = end, end_part
    return result


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_scaling_a_row_or_column_follows_the_c_code(length, n, seed):
    source = np.random.RandomState(seed).rand(length)
    expected = rowcol(source.tolist(), n)
    row = image.scale_to(np.tile(source, (3, 2, 1)), n, 2)
    column = image.scale_to(np.tile(source[:, None], (3, 1, 2)), 2, n)
    np.testing.assert_array_equal(row[1, 0], expected)
    np.testing.assert_array_equal(column[2, :, 1], expected)


@settings(deadline=None)
@given(*[st.integers(1, 40)] * 4, st.integers(0, 2**32 - 1))
def test_scaling_stays_within_the_range_of_the_source(height, width, new_height, new_width, seed):
    source = np.random.RandomState(seed).rand(3, height, width)
    scaled = image.scale_to(source, new_width, new_height)
    assert scaled.shape == (3, new_height, new_width)
    assert scaled.min() >= source.min() - 1e-6  # float32 sums
    assert scaled.max() <= source.max() + 1e-6


def test_scaling_to_the_same_size_copies():
    source = np.random.RandomState(0).rand(3, 4, 5)
    scaled = image.scale(source, 5)
    np.testing.assert_array_equal(scaled, source)
    assert not np.shares_memory(scaled, source)


def reproduce_save(file, arrays, folder):
    before = arrays[{"ramp": "ramp_in", "special": "special_in"}.get(file.stem, file.stem)]
    array = before.copy()
    image.save(folder / file.name, array)
    np.testing.assert_array_equal(array, before)
    return folder / file.name


@both_roots
def test_every_recorded_file_is_saved_equal(root, tmp_path):
    arrays = component("image_save", root)
    files = [f for f in sorted((root / "components" / "image_save").iterdir()) if f.name[:6] != "arrays"]
    assert len(files) >= 5
    for file in files:
        saved = reproduce_save(file, arrays, tmp_path)
        if file.suffix == ".png":  # compressed by another zlib, with other filters
            with Image.open(saved) as ours, Image.open(file) as recorded:
                assert ours.mode == recorded.mode == "RGB"
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(recorded), err_msg=file.name)
        else:
            assert saved.read_bytes() == file.read_bytes(), file.name

    # Ours differ from `saturate` in that NaN is replaced before the clamp; the bytes are the same.
    inputs = {"ramp_in", "special_in", *(file.stem for file in files)} - {"ramp", "special"}
    assert set(arrays) - {"ramp_in_after_save"} == inputs | {"special_after_saturate"}
    assert np.array_equal(arrays["ramp_in"], arrays.get("ramp_in_after_save", arrays["ramp_in"]))
    clamped = np.clip(arrays["special_in"], 0, 1)
    np.testing.assert_array_equal(clamped, arrays["special_after_saturate"])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saving_clamps_and_truncates(tmp_path, dtype):
    values = [-np.inf, -0.1, 0, 1.99 / 255, 254.99 / 255, 1, 1.5, np.inf, np.nan]
    image.save(tmp_path / "a.png", np.tile(np.array(values, dtype), (3, 1, 1)))
    with Image.open(tmp_path / "a.png") as saved:
        assert np.asarray(saved)[0, :, 0].tolist() == [0, 0, 0, 1, 254, 255, 255, 255, 0]


PIXELS = np.random.RandomState(2).rand(3, 4, 6)


@pytest.mark.parametrize(
    ("name", "magic"),
    [(f"a.{e}", b"\xff\xd8") for e in ("jpg", "jpeg", "JPG", "JPEG")]
    + [("a.png", b"\x89PNG"), (".PNG", b"\x89PNG"), ("a.b.ppm", b"P6"), ("a.PPM", b"P6\n6 4\n255\n")],
)
def test_extension_tells_the_format(tmp_path, name, magic):
    image.check_can_save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    image.save(tmp_path / name, PIXELS)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", "unknown image type: gif"),
        ("a.jpG", "unknown image type: jpG"),
        ("a", "unknown image type: nil"),
        ("a.", "unknown image type: nil"),
        ("a.png ", "unknown image type: nil"),
        ("a.png\n", "unknown image type: nil"),
        ("d.png/a", "unknown image type: nil"),
        ("a.pgm", "can only save 1xHxW or HxW images as PGM"),
        ("a.PGM", "can only save 1xHxW or HxW images as PGM"),
    ],
)
@pytest.mark.parametrize("function", [image.check_can_save, lambda path: image.save(path, PIXELS)])
def test_other_extensions_are_refused_in_the_words_of_the_original(tmp_path, name, words, function):
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OptionError) as caught:
        function(str(tmp_path / name))
    assert words in str(caught.value)
    assert "one of .jpg .jpeg .JPG .JPEG .png .PNG .ppm .PPM, spelled so" in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["d.png"]


def test_places_that_cannot_be_written_are_refused_beforehand(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    for name, reason in [
        ("nodir/a.png", "nodir does not exist; create it"),
        ("folder.png", "it is a folder; add a file name"),
        ("x" * 300 + ".png", "name too long"),
        ("zero\0byte.png", "choose another name"),
    ]:
        with pytest.raises(OptionError, match=f"could not be opened for writing: .*{reason}"):
            image.check_can_save(tmp_path / name)
    (tmp_path / "old.png").write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "old.png")
    with pytest.raises(OptionError, match="the file exists and is not writable"):
        image.check_can_save(tmp_path / "old.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OptionError, match=re.escape(f"the folder {tmp_path} is not writable")):
        image.check_can_save(tmp_path / "a.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.png", "old.png"]


def test_a_relative_name_means_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image.check_can_save("a.png")
    image.save("a.png", PIXELS)
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("method", ["replace", "open"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, method):
    (tmp_path / "a.png").write_bytes(b"old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, method, fail)
    with pytest.raises(OptionError, match=r"a\.png: could not be written: No space left on device"):
        image.save(tmp_path / "a.png", PIXELS)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_permissions_are_those_of_a_plain_write(tmp_path):
    mask = os.umask(0o027)
    try:
        image.save(tmp_path / "new.png", PIXELS)
        (tmp_path / "old.png").write_bytes(b"old")
        (tmp_path / "old.png").chmod(0o604)
        image.save(tmp_path / "old.png", PIXELS)
    finally:
        os.umask(mask)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "old.png").stat().st_mode & 0o777 == 0o604


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("target.png")
    image.save(tmp_path / "link.png", PIXELS)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "target.png").read_bytes().startswith(b"\x89PNG")


def test_a_device_is_written_to_not_replaced(tmp_path):
    (tmp_path / "link.png").symlink_to(os.devnull)
    image.check_can_save(tmp_path / "link.png")
    image.save(tmp_path / "link.png", PIXELS)
    assert Path(os.devnull).is_char_device()


def test_an_image_too_large_for_jpeg_is_explained(tmp_path):
    with pytest.raises(OptionError, match=r"a\.jpg: could not be written"):
        image.save(tmp_path / "a.jpg", np.zeros((3, 1, 70000)))
    assert list(tmp_path.iterdir()) == []


def test_loading_a_saved_image_gives_the_truncated_bytes(tmp_path):
    image.save(tmp_path / "a.png", PIXELS)
    np.testing.assert_array_equal(image.load(tmp_path / "a.png"), np.floor(PIXELS * 255) * (1 / 255))
