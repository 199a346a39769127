"""Training batches cut from a folder of photographs: `--image-dir`, which the original does not have.

Every batch is drawn from (seed, number of the batch) alone, so that a resumed run sees what an uninterrupted one
would have seen. A crop's photograph, its size, its place and whether it is mirrored are random. Photographs are
decoded by a thread in the background, a few batches ahead, scaled down as far as crops allow, and kept in memory up
to a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.fast_neural_style.values import Crops

Bytes = NDArray[np.uint8]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".webp", ".bmp", ".tif", ".tiff")

_AHEAD = 3  # batches that are prepared beforehand
_CACHE_BYTES = 2**29
_ONE_IN = 10  # photographs is kept for validation
_NEED_NO_VALIDATION = 2  # so few photographs are all trained on and validated with


def find(folder: str) -> list[Path]:
    """The photographs in a folder and in those below it, in the order of their names.

    Raises OptionError where there is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OptionError(f"--image-dir {folder}: there is no such folder; give one that holds photographs")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise OptionError(
            f"--image-dir {folder}: there are no photographs in it; files must end in one of {' '.join(EXTENSIONS)}"
        )
    return found


def split(photographs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Those to train on, and those to validate with: every tenth, counted from the last."""
    if len(photographs) <= _NEED_NO_VALIDATION:
        return list(photographs), list(photographs)
    kept = {len(photographs) - 1 - i for i in range(0, len(photographs), _ONE_IN)}
    train = [path for i, path in enumerate(photographs) if i not in kept]
    return train, [path for i, path in enumerate(photographs) if i in kept]


class Photographs:
    """Crops of photographs by their number; decoded once, then kept."""

    def __init__(self, paths: Sequence[Path], crops: Crops, notice: Callable[[str], None]) -> None:
        self.paths, self.crops, self._notice = list(paths), crops, notice
        self._cache: OrderedDict[int, Image.Image] = OrderedDict()
        self._cached_bytes = 0
        self._broken: set[int] = set()

    def random_crop(self, random: np.random.Generator) -> Bytes:
        """A square (3, size, size) of a random photograph, at a random size and place, perhaps mirrored."""
        while True:
            photograph = self._photograph(int(random.integers(len(self.paths))))
            if photograph is not None:
                break
        scale = random.uniform(self.crops.smallest, self.crops.largest)
        across, down = random.random(2)
        square = self._cut(photograph, scale, across, down)
        return square[:, :, ::-1].copy() if random.random() < 1 / 2 else square

    def centre_crop(self, number: int) -> Bytes:
        """The middle (3, size, size) of a photograph whose shorter side is scaled to `size`."""
        for offset in range(len(self.paths)):
            photograph = self._photograph((number + offset) % len(self.paths))
            if photograph is not None:
                return self._cut(photograph, 1.0, 1 / 2, 1 / 2)
        raise AssertionError("no photograph, and no error raised")

    def _cut(self, photograph: Image.Image, scale: float, across: float, down: float) -> Bytes:
        size, shorter = self.crops.size, min(photograph.size)
        # A photograph is enlarged only where it is smaller than a crop.
        side = size * shorter / max(min(size * scale, shorter), size)
        left, top = across * (photograph.width - side), down * (photograph.height - side)
        box = (left, top, min(left + side, photograph.width), min(top + side, photograph.height))
        square = photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def _photograph(self, number: int) -> Image.Image | None:
        """A decoded photograph, no larger than crops need; None for a broken file, which is told of once."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        if number in self._broken:
            self._check_some_can_be_read(number)
            return None
        try:
            photograph = _decode(self.paths[number], round(self.crops.size * self.crops.largest))
        except MemoryError as error:
            # The machine's fault, not the file's: without the photograph it would be another training.
            raise OptionError(
                f"{self.paths[number]}: not enough memory to load this image; scale it down first"
            ) from error
        except Exception as error:  # whatever goes wrong in Pillow's decoders
            self._broken.add(number)
            self._check_some_can_be_read(number)
            self._notice(f"{self.paths[number]}: left out, for it cannot be read ({error})")
            return None
        self._cache[number] = photograph
        self._cached_bytes += 3 * photograph.width * photograph.height
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= 3 * oldest.width * oldest.height
        return photograph

    def _check_some_can_be_read(self, number: int) -> None:
        if len(self._broken) == len(self.paths):
            raise FormatError(
                f"{self.paths[number]}: cannot be read, and none of the other {len(self.paths) - 1} photographs can;"
                " give another --image-dir"
            )


def _decode(path: Path, shorter: int) -> Image.Image:
    with Image.open(path) as image:
        factor = shorter / min(image.size)
        wanted = (round(image.width * factor), round(image.height * factor))
        if factor < 1:
            image.draft("RGB", wanted)  # a JPEG is decoded at a half, a quarter or an eighth of its size
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if factor >= 1:
        return upright
    longest = max(wanted)
    upright.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=None)
    return upright


class PhotographBatches:
    """Batches (N, 3, size, size) of bytes, made in the background in the order in which they are asked for."""

    def __init__(self, photographs: Photographs, batch_size: int, seed: int) -> None:
        self.photographs, self.batch_size, self.seed = photographs, batch_size, seed
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="photographs")
        self._coming: dict[int, Future[Bytes]] = {}

    def batch(self, number: int) -> Bytes:
        """The batch of that number; those after it are begun."""
        for each in range(number, number + 1 + _AHEAD):
            if each not in self._coming:
                self._coming[each] = self._worker.submit(self._make, each)
        return self._coming.pop(number).result()

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def _make(self, number: int) -> Bytes:
        random = np.random.default_rng([self.seed, number])
        return np.stack([self.photographs.random_crop(random) for _ in range(self.batch_size)])
