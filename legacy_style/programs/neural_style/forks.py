"""Command lines of other versions of neural_style.lua: what their options are here, and the whole line translated.

neural_style_seg.lua is ProGamerGov's, with martinbenson's masks; neural_style_multires.lua took a list of sizes in
-image_size, and as many iterations for each.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

from legacy_style.programs.neural_style.options import parse
from legacy_style.torch7.cmdline import UsageError, split_list

_RENAMED = {"-content_seg": "--content-regions", "-style_seg": "--style-regions", "-mask": "--mask"}
"""Options that have another name here, and the same value."""

_NEEDLESS = {"-color_codes": "leave it out: the colours are found in the maps"}
"""Options with a value that is not needed here."""

_NO_FACES = "give the face layer to -content_layers, and leave it out"
_NO_LERP = "give both images to -style_image, as a,b, and their weights to -style_blend_weights, as 1,3"
_NO_LAYER_WEIGHTS = "all layers weigh the same: choose them with {}, and their common weight with {}"

OTHER_VERSIONS: Mapping[str, str] = {
    **{word: f"use {ours}" for word, ours in _RENAMED.items()},
    **_NEEDLESS,
    "-face_layer": _NO_FACES,
    "-face_weight": _NO_FACES,
    "-style_image_lerp": _NO_LERP,
    "-style_lerp": _NO_LERP,
    "-lerp_mode": _NO_LERP,
    "-style_layer_weights": _NO_LAYER_WEIGHTS.format("-style_layers", "-style_weight"),
    "-content_layer_weights": _NO_LAYER_WEIGHTS.format("-content_layers", "-content_weight"),
    "-multidevice_strategy": "use -multigpu_strategy",
    "-normalize_weights": "leave it out, and choose -content_weight and -style_weight accordingly",
    "-disable_check": "leave it out: models are recognised by what they contain",
    "-prota_file": "use -proto_file",
}
"""Options of other versions of the program (and a misspelling found in scripts): what to use instead."""


def advice(word: str, words: Sequence[str] = ()) -> str | None:
    """What to use instead of an option that another version of the program has; None where none is known.

    With the `words` of the whole command line, also what they are here, where that can be said.
    """
    if word not in OTHER_VERSIONS:
        return None
    told = f"{word} is not an option of neural_style.lua: {OTHER_VERSIONS[word]}."
    here = translated(words)
    return f"{told} In full: th neural_style.lua {shlex.join(here)}" if words and is_served(here) else told


def is_served(words: Sequence[str]) -> bool:
    """Whether a command line parses, whatever its values are."""
    try:
        return parse(words) is not None
    except UsageError:
        return False


def translated(words: Sequence[str]) -> list[str]:
    """The words of a command line (without the script) of neural_style_seg.lua or neural_style_multires.lua for
    neural_style.lua.
    """
    result: list[str] = []
    sizes, iterations = list[str](), ["1000"]
    several = any(a == "-image_size" and "," in b for a, b in pairwise(words))
    position = 0
    while position < len(words):
        word, value = words[position], words[position + 1 : position + 2]
        if word in _RENAMED:
            result += [_RENAMED[word], *value]
        elif several and word == "-image_size":
            sizes = split_list(*value)
        elif several and word == "-num_iterations" and value:
            iterations = split_list(*value)
        elif word not in _NEEDLESS:
            result.append(word)
            position += 1
            continue
        position += 2
    if several:
        numbers = [iterations[min(i, len(iterations) - 1)] for i in range(len(sizes))]
        result += ["--stages", ",".join(map(":".join, zip(sizes, numbers, strict=True)))]
    return result
