"""A run of neural_style.lua as a command shows it: on the live line of a terminal, and on the page of --watch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from legacy_style.cli.batch import Place
from legacy_style.cli.process import Interrupts
from legacy_style.cli.progress import ProgressLine
from legacy_style.cli.watching import Curves, plotted, told_end
from legacy_style.engine.optimise import Losses
from legacy_style.programs.neural_style import story
from legacy_style.programs.neural_style.kept import KeptNetwork
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.output import Painting, Result
from legacy_style.toolkit import lossplot
from legacy_style.watch import runs
from legacy_style.watch.watcher import Watcher

Log = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


@dataclasses.dataclass
class Easel:
    """Paints one picture after the other; `watcher` is the page, where there is one."""

    interrupts: Interrupts
    live: ProgressLine
    notice: Log
    watcher: Watcher | None
    _kept: KeptNetwork = dataclasses.field(default_factory=KeptNetwork)

    def paint_one_of(self, options: Options, place: Place) -> Result:
        """`paint` one picture of a batch."""
        return self.paint(options, place=place)

    def paint(
        self, options: Options, log: Log = _ignore, plot: str = "", place: Place | None = None
    ) -> Result:
        """Run `story.stylize`, and draw the losses into the file `plot` where that is named."""
        watcher, kept, words = self.watcher, "", f"{place}: " if place else ""
        # Of each stage: how many evaluations those before it have, and its own.
        stages: dict[tuple[int, ...], tuple[int, Sequence[Losses]]] = {}
        if watcher is not None:
            runs.begin(watcher, options, follows=place is not None)

        def tell(line: str) -> None:
            log(line)
            if watcher is not None:
                runs.say(watcher, line, words)

        def remark(line: str) -> None:
            self.notice(line)
            if watcher is not None:
                runs.say(watcher, line, words)

        def on_progress(progress: Painting) -> bool:
            self.interrupts.check()
            if place is not None:
                progress = dataclasses.replace(progress, work=place.of_all(progress.work))
            self.live.update(progress)
            if plot:
                stages[progress.work.part] = progress.iteration - len(progress.so_far), progress.so_far
            return watcher is not None and runs.follow(watcher, progress)

        def on_saved(path: str) -> None:
            nonlocal kept
            kept = self.interrupts.saved = path

        with told_end(watcher, lambda: kept), plotted(plot, lambda: _curves(options, stages), self.notice):
            result = story.stylize(
                options,
                log=tell,
                notice=remark,
                on_progress=on_progress,
                on_saved=on_saved,
                kept=self._kept,
            )
        if watcher is not None:
            runs.finish(watcher, result, f"The picture is {options.output_image}")
        return result


def _curves(options: Options, stages: Mapping[tuple[int, ...], tuple[int, Sequence[Losses]]]) -> Curves:
    """The total loss, and that of every layer, over all stages."""
    found: dict[str, list[tuple[int, float]]] = {}
    for before, every in stages.values():
        for iteration, losses in enumerate(every, before + 1):
            named = {"total": losses.total}
            for kind, layers, values in (
                ("content", options.content_layers, losses.content),
                ("style", options.style_layers, losses.style),
            ):
                named |= zip(lossplot.labels(layers, len(values), kind), values, strict=True)
            for name, loss in named.items():
                found.setdefault(name, []).append((iteration, loss))
    return found
