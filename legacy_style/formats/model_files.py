"""Any model file -> NetParameter, recognised by its content, never by its name.

Note: a .caffemodel is the one format without a signature, so whatever is not recognisably something else
is read as one. Files that people take for models (web pages, git-lfs pointers, archives, images) are named
for what they are.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import BinaryIO

from legacy_style.errors import FormatError, IncompleteError, UnsupportedError
from legacy_style.files import reading
from legacy_style.formats import matlab, pth, safetensors, state_dict, t7, zipcheck
from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.formats.matconvnet import reader as matconvnet
from legacy_style.formats.t7 import network as t7_network

ACCEPTED = (
    "accepted are .caffemodel, MatConvNet's .mat, Torch7's .t7, a PyTorch state dict (.pth), .safetensors "
    "and NumPy's .npz"
)

# VGG-16's convolutions, in half precision: models/README.md.
BUNDLED = "vgg16_conv.pth"

# As much of a file as tells what it is: MATLAB's HDF5 files have their signature at byte 512.
_HEAD = 1024

_HDF5 = b"\x89HDF\r\n\x1a\n"

# The first bytes of files that are no models, and what they are.
_OTHERS = (
    (_HDF5, "an HDF5 file (Keras, or Caffe's .caffemodel.h5); save the network as .caffemodel"),
    (b"version https://git-lfs", "a git-lfs pointer, not the model; run `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image, not a network"),
    (b"\xff\xd8\xff", "a JPEG image, not a network"),
    (b"\x93NUMPY", "a single NumPy array (.npy); save the network's arrays with np.savez"),
    (b"%PDF", "a PDF document"),
)


def load(
    path: str | os.PathLike[str],
    file: BinaryIO | None = None,
    *,
    matconvnet_orientation: str = "hw",
    allow_torchvision: bool = False,
) -> NetParameter:
    """The network in a .caffemodel, .mat, .t7, .pth, .safetensors or .npz file, for BGR images of 0..255 less the mean.

    `file` is the one at `path` where it is open already. `matconvnet_orientation`: "hw", or "wh" to read a .mat's
    kernels transposed, as anishathalye/neural-style does. `allow_torchvision`: accept the weights that torchvision
    trained itself. Weights are read when they are asked for, as far as the format allows. Raises FormatError,
    UnsupportedError, WeightMismatchError; OSError where the file cannot be opened.
    """
    name = os.fspath(path)
    with reading(name, file) as opened:
        return _load(name, opened, matconvnet_orientation, allow_torchvision)


def _load(name: str, file: BinaryIO, orientation: str, allow_torchvision: bool) -> NetParameter:
    head = file.read(_HEAD)
    if kind := _kind_of_weights(head, name, file):
        return state_dict.read(name, kind, file, allow_torchvision=allow_torchvision)
    if matlab.is_level_5(head):
        return matconvnet.read(name, file, orientation=orientation)
    if t7.looks_like(head):
        return t7_network.read(name, file)
    _refuse_others(head, name, file)
    try:
        return caffemodel.read(name, file)
    except IncompleteError:
        raise
    except FormatError as error:
        raise FormatError(f"{error}; {ACCEPTED}") from error


def _kind_of_weights(head: bytes, name: str, file: BinaryIO) -> state_dict.Kind | None:
    if head.startswith(zipcheck.SIGNATURE):
        is_npz = any(member.endswith(".npy") for member in zipcheck.members(name, file))
        return "npz" if is_npz else "pth"
    if head.startswith(pth.LEGACY_SIGNATURE):
        return "pth"
    return "safetensors" if safetensors.is_safetensors(head) else None


def is_torch7(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of Torch7's; OSError where it cannot be opened."""
    with Path(path).open("rb") as file:
        return t7.looks_like(file.read(_HEAD))


def bundled() -> Path:
    """The network that comes with the program: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models" / BUNDLED
    return inside if inside.is_file() else package.parent / "models" / BUNDLED


def _is_tar(file: BinaryIO) -> bool:
    file.seek(0)
    return tarfile.is_tarfile(file)


def _refuse_others(head: bytes, path: str, file: BinaryIO) -> None:
    """Raise where the file is recognisably no model, with what it is and what to do."""
    if not head:
        raise FormatError(f"{path}: is empty; get the file again ({ACCEPTED})")
    if head.startswith(b"MATLAB 7.3") or head[512:].startswith(_HDF5):
        raise UnsupportedError(
            f"{path}: is a MATLAB 7.3 file, which is HDF5 and not the kind that MatConvNet published; "
            "load it in MATLAB and write it with save(..., '-v7')"
        )
    for signature, what in _OTHERS:
        if head.startswith(signature):
            raise FormatError(f"{path}: is {what} ({ACCEPTED})")
    if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsupportedError(
            f"{path}: is a Python pickle, which is not opened because it can run code ({ACCEPTED})"
        )
    if head[257:262] == b"ustar" and _is_tar(file):
        raise UnsupportedError(
            f"{path}: is a tar archive; if PyTorch 0.1 wrote it, load it there and save it again with "
            "torch.save"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        raise FormatError(
            f"{path}: is a web page, not a model; the download went wrong, so get the file again"
        )
    if not head.translate(None, bytes(range(32, 127)) + b"\t\n\r"):
        if b"layer" in head or b"input_dim" in head:
            raise FormatError(
                f"{path}: is a prototxt, which holds no weights; give the .caffemodel that belongs to it"
            )
        raise FormatError(f"{path}: is text, which begins {text[:40].decode()!r} ({ACCEPTED})")
