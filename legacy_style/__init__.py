"""legacy-style: neural_style.lua of 2015, ported faithfully to PyTorch. These names are its public API.

    from legacy_style import Options, stylize

    result = stylize(Options(content_image="photo.jpg", style_image="painting.jpg"))

Note: each name is loaded when it is first used, for PyTorch takes seconds to import, and command lines
that need no network are answered without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from legacy_style.errors import (
        ChecksumError,
        DivergenceError,
        FormatError,
        LegacyStyleError,
        OptionError,
        UnsupportedError,
        WeightMismatchError,
    )
    from legacy_style.programs.neural_style.options import Options
    from legacy_style.programs.neural_style.story import (
        Losses,
        Progress,
        Result,
        load_model,
        stylize,
    )

__version__ = "0.1.0"

__all__ = [
    "ChecksumError",
    "DivergenceError",
    "FormatError",
    "LegacyStyleError",
    "Losses",
    "OptionError",
    "Options",
    "Progress",
    "Result",
    "UnsupportedError",
    "WeightMismatchError",
    "load_model",
    "stylize",
]

_STORY = "programs.neural_style.story"

# The module of each name that is not an error.
_MODULES = {
    "Options": "programs.neural_style.options",
    **dict.fromkeys(("Losses", "Progress", "Result", "load_model", "stylize"), _STORY),
}


def __getattr__(name: str) -> object:
    """The public name, from its module; Python calls this for names that are not here yet."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
