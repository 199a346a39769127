"""File names that hold a frame's number.

Ports manuelruder/artistic-videos 40e7447: getContentImage's string.format, getFormatedFlowFileName, build_OutFilename.
Notes: outputs are numbered from 1 whatever -start_number is; -output_folder is a plain prefix.
"""

from __future__ import annotations

import re

from legacy_style.errors import OptionError

_CONVERSION = re.compile(r"%(?:%|[-+ #0]{0,5}\d{0,2}(?:\.\d{0,2})?([A-Za-z]))")

_WHOLE = "diuoxX"
_FRACTION = "eEfFgG"


def number(pattern: str, value: int, option: str) -> str:
    """`pattern` with its one conversion (`%d`, `%04d`) replaced by `value` (Lua's string.format).

    A pattern without any stays as it is. Raises OptionError, naming `option`, where it does not work.
    """
    used = 0

    def convert(match: re.Match[str]) -> str:
        nonlocal used
        letter = match[1]
        if letter is None:
            return "%"
        used += 1
        if letter in _WHOLE + _FRACTION and used == 1:
            return match[0].replace("u", "d") % value
        if letter == "s" and used == 1:
            return match[0] % str(value)
        raise _wrong(option, pattern)

    if "%" in _CONVERSION.sub("", pattern):
        raise _wrong(option, pattern)
    return _CONVERSION.sub(convert, pattern)


def _wrong(option: str, pattern: str) -> OptionError:
    return OptionError(
        f"{option} {pattern!r} cannot hold a frame's number; give one %d, for example frame_%04d.ppm (%% is a plain %)"
    )


def between(pattern: str, source: int, current: int, option: str) -> str:
    """The name of a flow or weight file: {..} holds the number of frame `source`, [..] that of the `current` one."""
    named = re.sub(r"\{(.*?)\}", lambda match: number(match[1], source, option), pattern, flags=re.DOTALL)
    return re.sub(r"\[(.*?)\]", lambda match: number(match[1], current, option), named, flags=re.DOTALL)


def output(folder: str, image: str, formatted: str, *suffixes: int) -> str:
    """FOLDER + BASE-NUMBER.EXT, or BASE-NUMBER_SUFFIX.EXT where there is an iteration or a pass, or both.

    `image` is -output_image, whose directory is dropped; `formatted` the number by -number_format.
    """
    base = image.rpartition("/")[2]
    extension = image.rpartition(".")[2] if "." in image else "nil"
    stem = base.removesuffix(f".{extension}") if extension else base
    tail = "".join(f"_{suffix}" for suffix in suffixes)
    return f"{folder}{stem}-{formatted}{tail}.{extension}"


def initial(folder: str, formatted: str, suffix: int | None = None) -> str:
    """The name of the image that -save_init writes."""
    tail = "" if suffix is None else f"_{suffix}"
    return f"{folder}init-{formatted}{tail}.png"
