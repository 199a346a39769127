"""Flow files and masks between the frames of a folder, for artistic_video.lua.

Ports manuelruder/artistic-videos 40e7447, makeOptFlow.sh, with its names: forward_i_j.flo, backward_j_i.flo, and
reliable_i_j.pgm beside each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from legacy_style.errors import OptionError
from legacy_style.programs.artistic_video import consistency, flo, patterns
from legacy_style.programs.video import motion
from legacy_style.programs.video.source import load_picture
from legacy_style.torch7 import image_files


def make(
    pattern: str,
    folder: str,
    start: int,
    step: int,
    command: str | None,
    *,
    exif_rotate: bool = False,
    notice: image_files.Notice | None = None,
) -> Iterator[str]:
    """Make all files between frames i and i + `step`, i from `start` on; yields each name as it is written.

    Flow files that are there are read and left; masks are written anew. `exif_rotate` turns frames upright, `notice`
    is told what is remarkable about the first one. Raises OptionError where there are no two
    frames.
    """
    estimate = motion.estimator(command)
    if step < 1:
        raise OptionError(f"STEP {step}: give how many frames lie between two, 1 or more")
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: {error.strerror}; give a folder, or a name for a new one") from error
    first = start
    while (later := Path(_name(pattern, first + step))).is_file():
        pictures = [
            load_picture(_name(pattern, first), exif_rotate, notice if first == start else None),
            load_picture(later, exif_rotate),
        ]
        if pictures[0].shape != pictures[1].shape:
            raise OptionError(
                f"{later}: not of the size of {_name(pattern, first)}; give all frames one size"
            )
        last = first + step
        flows = []
        for name, pair in (
            (f"{folder}/forward_{first}_{last}.flo", pictures),
            (f"{folder}/backward_{last}_{first}.flo", pictures[::-1]),
        ):
            if not Path(name).is_file():
                flo.write(name, estimate(*pair))
                yield name
            flows.append(flo.read(name))
        forth, back = flows
        for name, mask in (
            (f"{folder}/reliable_{last}_{first}.pgm", consistency.certainty(back, forth)),
            (f"{folder}/reliable_{first}_{last}.pgm", consistency.certainty(forth, back)),
        ):
            consistency.write(name, mask)
            yield name
        first += 1
    if first == start:
        raise OptionError(
            f"{later}: no such file; give a pattern of two frames or more, for example frame_%04d.png"
        )


def _name(pattern: str, number: int) -> str:
    name = patterns.number(pattern, number, "PATTERN")
    if name == patterns.number(pattern, number + 1, "PATTERN"):
        raise OptionError(f"{pattern}: names the same file for every frame; put a %d where the number is")
    return name
