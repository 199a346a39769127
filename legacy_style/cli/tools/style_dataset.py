"""`legacy-style style-dataset`: folders of images -> the HDF5 file that `th train.lua -h5_file` reads.

Options have the names of scripts/make_style_dataset.py, whose job it does; with a dash in the place of an underscore
too.
"""

from __future__ import annotations

from functools import partial

import click

from legacy_style.cli import process


@click.command("style-dataset", short_help="Folders of images to an HDF5 file for th train.lua.")
@click.option(
    "--train_dir", "--train-dir", default="data/train2014", show_default=True, help="Images to train on."
)
@click.option(
    "--val_dir", "--val-dir", default="data/val2014", show_default=True, help="Images to validate with."
)
@click.option("--output_file", "--output-file", default="data/ms-coco-256.h5", show_default=True)
@click.option("--height", default=256, show_default=True, type=click.IntRange(1, 65535))
@click.option("--width", default=256, show_default=True, type=click.IntRange(1, 65535))
@click.option("--max_images", "--max-images", default=-1, show_default=True, help="Of each folder; -1: all.")
@click.option("--num_workers", "--num-workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--include_val", "--include-val", default=1, show_default=True, type=click.IntRange(0, 1))
@click.option(
    "--max_resize",
    "--max-resize",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Images are cropped to sides that are multiples of this first.",
)
def style_dataset(
    train_dir: str,
    val_dir: str,
    output_file: str,
    height: int,
    width: int,
    max_images: int,
    num_workers: int,
    include_val: int,
    max_resize: int,
) -> None:
    """Make the HDF5 file that `th train.lua -h5_file` reads from two folders of images.

    Images are scaled to one size without regard to their proportions, as the original did. To train on a folder
    as it is, `th train.lua --image-dir` needs no such file.
    """
    from legacy_style.programs.fast_neural_style.style_dataset import Sizes, make

    counts = make(
        output_file,
        {"train": train_dir, **({"val": val_dir} if include_val else {})},
        Sizes(height, width, max_resize),
        max_images=max_images if max_images > 0 else None,
        workers=num_workers,
        notice=partial(process.say, "legacy-style style-dataset"),
    )
    parts = " and ".join(f"{count} for {part}" for part, count in counts.items())
    process.echo(f"{output_file}: {parts}")
