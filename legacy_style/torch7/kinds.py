"""Files that people take for images that can be read, and what they are, told by their first bytes."""

from __future__ import annotations

from legacy_style.errors import UnsupportedError

_CONVERT = "convert it to JPEG or PNG first"

# Position, bytes, what it is, and what to do.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    *((4, b"ftyp" + brand, "a HEIC image, as telephones save them", _CONVERT)
      for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
    *((4, b"ftyp" + brand, "an AVIF image", _CONVERT) for brand in (b"avif", b"avis")),
    (4, b"ftypcrx", "a Canon raw photograph", "develop it to JPEG or PNG first"),
    (4, b"ftyp", "a video (MP4 or QuickTime)", "save one of its frames as PNG"),
    (0, b"8BPS", "a Photoshop document (PSD)", "export it as JPEG or PNG"),
    (0, b"%PDF", "a PDF document", "export its page as PNG"),
    (0, b"gimp xcf", "a GIMP document (XCF)", "export it as JPEG or PNG"),
    (0, b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", _CONVERT),
    (0, b"v/1\x01", "an OpenEXR image", _CONVERT),
    (0, b"#?RADIANCE", "a Radiance HDR image", _CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm raw photograph", "develop it to JPEG or PNG first"),
    (0, b"AT&TFORM", "a DjVu document", "export its page as PNG"),
    (0, b"<svg", "an SVG drawing", "export it as PNG"),
    (0, b"<?xml", "an XML file, perhaps an SVG drawing", "export it as PNG"),
    (0, b"<", "a web page, not an image", "the download went wrong, so get the image itself"),
    (0, b"version https://git-lfs", "a git-lfs pointer, not the image", "run `git lfs pull`"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", "save one of its frames as PNG"),
    (8, b"AVI ", "a video (AVI)", "save one of its frames as PNG"),
    (0, b"PK\x03\x04", "a zip archive or an office document", "take the image out of it"),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (0, b"Rar!", "a RAR archive", "take the image out of it"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", "take the image out of it"),
)  # fmt: skip

# These Pillow hands to other programs (Ghostscript) or to the system, which run what is in them.
_REFUSED: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%!PS", "a PostScript program", "export its page as PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file, which is a PostScript program", "export it as PNG"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)", "export it as PNG"),
    (40, b" EMF", "a Windows metafile (EMF)", "export it as PNG"),
)


def name(data: bytes) -> str:
    """What the file is and what to do with it, "" where that is not known; for what Pillow could not read."""
    return _find(data, _SIGNATURES)


def is_avif(data: bytes) -> bool:
    """Whether a file says that it is an AVIF image."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis")


def is_cut(data: bytes) -> bool:
    """Whether a file of boxes (ISO 14496-12, 4.2: size, kind, content) ends within one of them."""
    at = 0
    while at < len(data):
        header = data[at : at + 16]
        if len(header) < 8:
            return True
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # the length follows in eight bytes
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:  # up to the end of the file
            return False
        if size < 8 or at + size > len(data):
            return True
        at += size
    return False


def refuse(data: bytes, path: str) -> None:
    """Raise UnsupportedError for a file that is a program rather than pixels."""
    found = _find(data, _REFUSED)
    if found:
        raise UnsupportedError(f"{path}: {found}")


def _find(data: bytes, signatures: tuple[tuple[int, bytes, str, str], ...]) -> str:
    head = data[:512]
    if head.startswith((b"\xef\xbb\xbf", b" ", b"\t", b"\r", b"\n")):
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for position, signature, what, advice in signatures:
        if head[position : position + len(signature)] == signature:
            return f"{what}, which is not read here; {advice}"
    return ""
