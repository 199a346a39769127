"""Folders of images -> the HDF5 file that train.lua reads: the job of scripts/make_style_dataset.py.

Ports jcjohnson/fast-neural-style 813c834, scripts/make_style_dataset.py, as it ran with SciPy 0.18 and Pillow 3.3.
Images are cropped from their top left corner to sides that are multiples of `max_resize`, then scaled to one size,
bilinear, and stored as bytes, (N, 3, H, W), in /train2014/images and /val2014/images.

Deviations: images come in the order of their names, not in that of the file system; transparency is dropped; an image
that cannot be read or is smaller than `max_resize` is left out, and that is said: the original's threads died of
both, and the program then waited for ever; no image is lost to a race at the end; `max_images` makes the dataset
shorter, where the original left the rest of it black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from legacy_style import files
from legacy_style.errors import OptionError, UnsupportedError
from legacy_style.torch7 import image_files

Bytes = NDArray[np.uint8]

EXTENSIONS = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG")

_IN_FLIGHT = 64  # images that are worked on before the first of them is stored


@dataclass(frozen=True)
class Sizes:
    """What becomes of an image; all in pixels."""

    height: int = 256
    width: int = 256
    max_resize: int = 16


def make(
    output: str,
    folders: dict[str, str],
    sizes: Sizes,
    *,
    max_images: int | None,
    workers: int,
    notice: Callable[[str], None],
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Write the file; `folders` is {"train": folder, "val": folder}. Returns how many images each part has.

    Raises OptionError for a folder that does not exist and a file that cannot be written, UnsupportedError without
    h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise UnsupportedError(
            "an HDF5 file needs h5py; install it with `pip install legacy-style[train]`"
        ) from error
    found = {part: find(folder)[:max_images] for part, folder in folders.items()}
    counts = {}
    try:
        with files.replacing(output) as file, h5py.File(file.name, "w") as h5:
            for part, paths in found.items():
                shape = (len(paths), 3, sizes.height, sizes.width)
                dataset = h5.create_dataset(
                    f"{part}2014/images",
                    shape,
                    "uint8",
                    maxshape=(None, *shape[1:]),  # it is cut to the images that could be read
                    chunks=(1, *shape[1:]),  # one image is one piece of the file
                )
                stored = 0
                for image in _images(paths, sizes, workers, notice):
                    dataset[stored] = image
                    stored += 1
                    on_image()
                dataset.resize(stored, axis=0)
                counts[part] = stored
    except OSError as error:
        raise OptionError(f"{output}: could not be written: {files.reason(error)}") from error
    return counts


def find(folder: str) -> list[Path]:
    """The images in a folder, in the order of their names; raises OptionError where there is no folder."""
    root = Path(folder)
    if not root.is_dir():
        raise OptionError(f"{folder}: there is no such folder; give one that holds images")
    return sorted(path for path in root.iterdir() if path.suffix in EXTENSIONS)


def convert(path: Path, sizes: Sizes, on_turned: Callable[[str], None] = lambda said: None) -> Bytes:
    """An image as it is stored, (3, height, width). Raises ValueError, and what Pillow does, for one that cannot be.

    `on_turned` is told of an image that does not stand upright, for the original ignored that.
    """
    with Image.open(path) as opened:
        orientation = image_files.orientation_of(opened)
        array = _numbers(opened)
    if orientation != 1:
        on_turned(f"{path}: {image_files.turning(orientation)} is ignored")
    height, width = (side // sizes.max_resize * sizes.max_resize for side in array.shape[:2])
    if not height or not width:
        raise ValueError(
            f"its {array.shape[1]}x{array.shape[0]} pixels are less than the {sizes.max_resize} of --max_resize"
        )
    cropped = Image.fromarray(_bytes(np.ascontiguousarray(array[:height, :width])))
    scaled = np.asarray(cropped.resize((sizes.width, sizes.height), Image.Resampling.BILINEAR))
    planes = scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    return np.broadcast_to(planes, (3, sizes.height, sizes.width))


def _numbers(image: Image.Image) -> NDArray[Any]:
    """An image as bytes, (H, W) or (H, W, 3), or as the larger numbers, (H, W), that it has."""
    if image.mode in ("L", "RGB") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))


def _bytes(numbers: NDArray[Any]) -> Bytes:
    """Bytes as they are; other numbers between their least and greatest (scipy.misc.bytescale)."""
    if numbers.dtype == np.uint8:
        return numbers
    low, span = float(numbers.min()), float(np.ptp(numbers)) or 1.0
    return ((numbers - low) * (255 / span) + 1 / 2).astype(np.uint8)


def _images(
    paths: Sequence[Path], sizes: Sizes, workers: int, notice: Callable[[str], None]
) -> Iterator[Bytes]:
    """The images that can be read, in order; several are worked on at a time."""
    turned: list[str] = []

    def attempt(path: Path) -> Bytes | str:
        try:
            return convert(path, sizes, turned.append)
        except MemoryError as error:  # the machine's fault, not the file's
            raise OptionError(f"{path}: not enough memory to load this image; scale it down first") from error
        except Exception as error:  # whatever goes wrong in Pillow's decoders
            return f"{path}: left out: {error}"

    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(paths)
        begun = [pool.submit(attempt, path) for path in islice(waiting, _IN_FLIGHT)]
        while begun:
            result = begun.pop(0).result()
            begun += [pool.submit(attempt, path) for path in islice(waiting, 1)]
            if isinstance(result, str):
                notice(result)
            else:
                yield result
    if turned:
        more = f", and so are those of {len(turned) - 1} others" if len(turned) > 1 else ""
        notice(f"{min(turned)}, as it always was{more}; turn photographs upright before they are stored")
