"""What neural_style.lua prints and saves during an optimisation, and under which names.

Ports neural_style.lua 07c4b82: maybe_print, maybe_save. Printing and saving happen inside the
evaluation, before the update that follows it; the last update is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine.optimise import Losses, Progress
from legacy_style.engine.processes.group import Ranks
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style.settings import Settings
from legacy_style.programs.progress import WorkDone
from legacy_style.torch7 import cmdline
from legacy_style.torch7 import image as torch_image

Log = Callable[[str], None]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """`image`: RGB in [0,1], (3, H, W), float64, not clamped, of the last evaluation; `losses`: of all.
    `stopped`: whether the callback ended the run.

    Where processes share an image, the first one has it whole, the others have what they own.
    """

    image: Array
    losses: list[Losses] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class Painting(Progress):
    """An evaluation that is done, with the picture as the program would save it.

    `picture()` is it, as in `Result`; `keep()` writes it under its intermediate name, and gives that. `work`: how far
    all stages are.
    """

    work: WorkDone
    picture: Callable[[], Array] = field(compare=False, repr=False)
    keep: Callable[[], str] = field(compare=False, repr=False)


OnPainting = Callable[[Painting], object]
"""Is called after every evaluation; the run ends where it returns something true."""


class Output:
    """Prints and saves for one run; `finish` makes of a result, RGB (3, H, W), what is saved.

    `on_saved` is told the name of every image that is written, in every process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        finish: Callable[[Array], Array],
        log: Log,
        on_progress: OnPainting | None,
        on_saved: Callable[[str], None],
        save: bool,
        ranks: Ranks,
    ) -> None:
        self.settings, self.finish, self.log = settings, finish, log
        self.on_progress, self.on_saved, self.save, self.ranks = on_progress, on_saved, save, ranks
        self.finished = False  # whether the image that was saved last is the result

    def print_losses(self, iteration: int, losses: Losses) -> None:
        every = self.settings.print_iter
        if not (every > 0 and iteration % every == 0):
            return
        self.log(f"Iteration {iteration} / {cmdline.integer(self.settings.num_iterations)}\t")
        for kind, values in (("Content", losses.content), ("Style", losses.style)):
            for number, value in enumerate(values, 1):
                self.log(f"  {kind} {number} loss: {value:f}\t")
        self.log(f"  Total loss: {losses.total:f}\t")

    def report(self, progress: Progress) -> object:
        """Save what is due after an evaluation, and tell whoever wants to know."""
        if self.save and self.is_due(progress.iteration):
            last = progress.iteration == self.settings.num_iterations
            name = self.settings.output_image if last else self.settings.intermediate(progress.iteration)
            self.write(name, progress.image())
        if self.on_progress is None:
            return None
        known = {each.name: getattr(progress, each.name) for each in fields(progress)}
        return self.on_progress(
            Painting(
                **known,
                work=WorkDone((1,), progress.iteration, progress.num_iterations),
                picture=lambda: self.picture(progress.image()),
                keep=lambda: self.save_last(progress.iteration, progress.image()),
            )
        )

    def is_due(self, iteration: int) -> bool:
        """Whether the image of this iteration is to be saved."""
        every = self.settings.save_iter
        return iteration == self.settings.num_iterations or (every > 0 and iteration % every == 0)

    def save_last(self, iteration: int, image: Tensor) -> str:
        """Write the image of an iteration under its intermediate name, which is returned."""
        name = self.settings.intermediate(iteration)
        self.write(name, image)
        return name

    def write(self, name: str, image: Tensor) -> None:
        if self.ranks.rank == 0:
            torch_image.save(name, self.picture(image))
        self.ranks.barrier()  # until it is there
        self.finished = name == self.settings.output_image
        self.on_saved(name)

    def picture(self, image: Tensor) -> Array:
        """An image in Caffe units, (1, 3, H, W), as RGB, (3, H, W), as it is saved."""
        return self.finish(pixels.deprocess(image[0].numpy()))
