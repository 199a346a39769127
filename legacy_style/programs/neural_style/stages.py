"""A large image in stages of growing size, each from the result of the one before: what chains of commands did.

`--stages 256:300,512:150,1024:60:style_scale=0.8:tile=512` names sizes, iterations, and what is different in a stage.
The scripts of neural_style.lua 07c4b82 (examples/multigpu_scripts) chain one command a size, with -init image and
-init_image naming the last result.
"""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import PurePosixPath

from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.options import Options
from legacy_style.torch7.cmdline import Value, split_list, tonumber

OF_A_STAGE = (
    *("style_scale", "tile", "precision", "optimizer", "learning_rate", "lbfgs_num_correction"),
    *("content_weight", "style_weight", "tv_weight"),
)
"""The options that a stage may have of its own."""

_FIRST, _LEAST = 300, 50
"""Iterations of stages that name none: from noise, 300 are enough; then half as many each time, these at least."""

_EXAMPLE = "give for example 256:300,512:150,1024:60:style_scale=0.8"


def split(options: Options) -> list[Options]:
    """The options of each stage, as a command of its own would have them but for what it starts from; one without
    --stages.

    Where the image of the stage before does not go through a file, -init_image is left empty. Raises OptionError.
    """
    if not options.stages:
        if options.stages_through_files:
            raise OptionError("--stages-through-files belongs to --stages, which is not given")
        return [options]
    if options.is_explicit("image_size"):
        raise OptionError("--stages names the sizes: leave -image_size out")
    if not options.num_iterations >= 1 or options.num_iterations % 1:
        raise OptionError(
            f"-num_iterations {options.num_iterations:.14g}: stages take whole numbers of at least 1"
        )
    texts = split_list(options.stages)
    first = options.num_iterations if options.is_explicit("num_iterations") else float(_FIRST)
    result: list[Options] = []
    for number, text in enumerate(texts, 1):
        changes = _stage(text)
        if "num_iterations" not in changes:
            before = result[-1].num_iterations if result else None
            changes["num_iterations"] = (
                first if before is None else max(before // 2, min(before, float(_LEAST)))
            )
        if number < len(texts):
            changes |= {"output_image": name(options.output_image, number), "metadata": False}
        if result:
            through = result[-1].output_image if options.stages_through_files else ""
            changes |= {"init": "image", "init_image": through}
        result.append(options.changed(**changes))
    return result


def work(image_size: float, iterations: float) -> float:
    """How much a stage is to do, in units that take about as long in any other of the same image: pixels evaluated."""
    return image_size**2 * iterations


def name(output_image: str, number: int) -> str:
    """What the result of a stage before the last is called: out.png -> out_stage1.png."""
    path = PurePosixPath(output_image)
    return str(path.with_name(f"{path.stem}_stage{number}{path.suffix}"))


def _stage(text: str) -> dict[str, Value]:
    """What one stage changes: `512:150:tile=256`."""
    size, *more = text.split(":")
    changes: dict[str, Value] = {"image_size": _number(text, "a size", size)}
    if more and "=" not in more[0]:
        changes["num_iterations"] = _whole(text, more.pop(0))
    for part in more:
        key, equals, value = part.partition("=")
        if not equals or key not in OF_A_STAGE:
            raise OptionError(
                f"--stages {text}: {part!r} is no option of a stage; these are: {', '.join(OF_A_STAGE)};"
                f" {_EXAMPLE}"
            )
        default = next(each.default for each in fields(Options) if each.name == key)
        changes[key] = value if isinstance(default, str) else _number(text, key, value)
    return changes


def _number(stage: str, what: str, text: str) -> float:
    number = tonumber(text)
    if number is None or not math.isfinite(number) or (what == "a size" and number < 1):
        raise OptionError(f"--stages {stage}: {text!r} is not {what}; {_EXAMPLE}")
    return number


def _whole(stage: str, text: str) -> float:
    number = _number(stage, "a number of iterations", text)
    if number < 1 or number % 1:
        raise OptionError(
            f"--stages {stage}: {text!r} is not a number of iterations of 1 or more; {_EXAMPLE}"
        )
    return number
