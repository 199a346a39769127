"""Where batches for training and validation come from: an HDF5 file, as in the original, or a folder of photographs.

Ports jcjohnson/fast-neural-style 813c834, fast_neural_style/DataLoader.lua. An HDF5 file has its images in
/train2014/images and /val2014/images, (N, 3, H, W) integers; for -task upsample the small images are in /train/x_F
and /val/x_F, F being -upsample_factor, and the large ones in /train/y and /val/y.

Notes: batches go through the file in its order, never shuffled; the last one of an epoch may be smaller; -max_train
shortens the epoch but not the number of epochs that is printed; the targets of -task upsample are not divided by 255
before they are preprocessed, so they are up to 65025: the original's mistake, kept. Arithmetic is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.errors import FormatError, OptionError, UnsupportedError
from legacy_style.programs.fast_neural_style import photographs
from legacy_style.programs.fast_neural_style.preprocess import Preprocessing
from legacy_style.programs.fast_neural_style.train_options import TrainingSettings

Pair = tuple[Tensor, Tensor]
"""Images x and targets y, (N, 3, H, W) float32, preprocessed; for -task style they are the same."""

Size = tuple[int, int]

_MOST_NUMBERS = 2**32  # in a batch, 16 GiB: to be told before as many photographs are cropped

_WHITE = np.float32(255)


class Batches(Protocol):
    """Batches by their number, counted from 0; a number always means the same batch."""

    per_epoch: int
    """How many iterations are printed as one epoch; 0 where there are fewer images than a batch has."""

    sizes: Sequence[tuple[Size, Size]]
    """Height and width of an image and of its target, for every kind of batch."""

    def train(self, number: int) -> Pair: ...

    def validation(self, number: int) -> Pair: ...

    def close(self) -> None: ...


def open_batches(settings: TrainingSettings, seed: int, notice: Callable[[str], None]) -> Batches:
    """The batches that the options ask for; raises OptionError, FormatError, UnsupportedError."""
    if settings.image_dir:
        return FolderBatches(settings, seed, notice)
    return Hdf5Batches(settings)


class FolderBatches:
    """Crops of the photographs in a folder."""

    def __init__(self, settings: TrainingSettings, seed: int, notice: Callable[[str], None]) -> None:
        numbers = 3.0 * settings.batch_size * settings.crops.size * settings.crops.size
        if numbers > _MOST_NUMBERS:
            raise OptionError(
                f"-batch_size {settings.batch_size:.14g} with --crop {settings.crops.size:.14g} is a batch of"
                f" {numbers:.3g} numbers; choose smaller ones"
            )
        train, validation = photographs.split(photographs.find(settings.image_dir))
        self._preprocessing, self._size = settings.preprocessing, settings.batch_size
        self._train = photographs.PhotographBatches(
            photographs.Photographs(train, settings.crops, notice), settings.batch_size, seed
        )
        self._validation = photographs.Photographs(validation, settings.crops, notice)
        self.per_epoch = len(train) // settings.batch_size
        self.sizes: Sequence[tuple[Size, Size]] = [((settings.crops.size, settings.crops.size),) * 2]

    def train(self, number: int) -> Pair:
        x = _preprocess(self._train.batch(number), self._preprocessing)
        return x, x

    def validation(self, number: int) -> Pair:
        numbers = range(number * self._size, (number + 1) * self._size)
        crops = np.stack([self._validation.centre_crop(each) for each in numbers])
        x = _preprocess(crops, self._preprocessing)
        return x, x

    def close(self) -> None:
        self._train.close()


class Hdf5Batches:
    """The images of an HDF5 file, in their order."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._path, self._file = settings.h5_file, _open(settings.h5_file)
        self._preprocessing, self._size = settings.preprocessing, settings.batch_size
        try:
            self._splits = {split: self._datasets(settings, split) for split in ("train", "val")}
        except BaseException:
            self._file.close()
            raise
        images = len(self._splits["train"][0])
        self.per_epoch = images // settings.batch_size
        self.sizes: Sequence[tuple[Size, Size]] = [
            (datasets[0].shape[2:], datasets[-1].shape[2:]) for datasets in self._splits.values()
        ]
        self._counts = {"train": images, "val": len(self._splits["val"][0])}
        if settings.max_train > 0:
            self._counts["train"] = math.ceil(min(settings.max_train, images))

    def train(self, number: int) -> Pair:
        return self._pair("train", number)

    def validation(self, number: int) -> Pair:
        return self._pair("val", number)

    def close(self) -> None:
        self._file.close()

    def _pair(self, split: str, number: int) -> Pair:
        count = self._counts[split]
        begin = number % math.ceil(count / self._size) * self._size
        end = min(begin + self._size, count)
        try:
            stored = [dataset[begin:end] for dataset in self._splits[split]]
        except OSError as error:
            raise FormatError(
                f"{self._path}: images {begin + 1} to {end} cannot be read ({error}); make the file again"
            ) from error
        x = _preprocess(stored[0], self._preprocessing)
        if len(stored) == 1:
            return x, x
        return x, torch.from_numpy(self._preprocessing.preprocess(stored[1].astype(np.float32)))

    def _datasets(self, settings: TrainingSettings, split: str) -> list[Any]:
        """The dataset of x and, for upsampling, that of y."""
        if settings.task == "style":
            names = [f"/{split}2014/images"]
        else:
            names = [f"/{split}/x_{settings.upsample_factor:.0f}", f"/{split}/y"]
        found = [self._file.get(name) for name in names]
        for name, dataset in zip(names, found, strict=True):
            shape = getattr(dataset, "shape", None)
            if shape is None:
                raise FormatError(
                    f"{settings.h5_file}: has no dataset {name}; make the file with legacy-style style-dataset, or"
                    " train on a folder with --image-dir"
                )
            if len(shape) != 4 or shape[1] != 3 or 0 in shape:
                raise FormatError(
                    f"{settings.h5_file}: {name} is {shape}, where (images, 3, height, width) is expected"
                )
            if dataset.dtype.kind not in "uif":
                raise FormatError(
                    f"{settings.h5_file}: {name} holds {dataset.dtype}, where integers are expected"
                )
        if len({len(dataset) for dataset in found}) > 1:
            counts = " and ".join(
                f"{len(dataset)} in {name}" for name, dataset in zip(names, found, strict=True)
            )
            raise FormatError(f"{settings.h5_file}: there are {counts} images, where each needs its other")
        return found


def _open(path: str) -> Any:
    """An opened HDF5 file (h5py.File)."""
    if not Path(path).is_file():
        raise OptionError(
            f"-h5_file {path}: there is no such file; make one with legacy-style style-dataset, or train on a folder of"
            " photographs with --image-dir"
        )
    try:
        import h5py
    except ImportError as error:
        raise UnsupportedError(
            f"-h5_file {path}: reading HDF5 needs h5py; install it with `pip install legacy-style[train]`, or train on"
            " a folder of photographs with --image-dir"
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path}: not an HDF5 file, or a broken one ({error})") from error


def _preprocess(values: NDArray[Any], preprocessing: Preprocessing) -> Tensor:
    """Integers of 0..255, (N, 3, H, W), as the network takes them."""
    return torch.from_numpy(preprocessing.preprocess(values.astype(np.float32) / _WHITE))
