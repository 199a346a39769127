"""A run of neural_style.lua as a command shows it: on the live line of a terminal, and on the page of --watch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from legacy_style.cli.batch import Place
from legacy_style.cli.process import Interrupts
from legacy_style.cli.progress import ProgressLine
from legacy_style.cli.watching import told_end
from legacy_style.files import write_whole
from legacy_style.programs.neural_style import record, story
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
            return watcher is not None and runs.follow(watcher, progress)

        def on_saved(path: str) -> None:
            nonlocal kept
            kept = self.interrupts.saved = path

        with told_end(watcher, lambda: kept):
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
        if plot:
            found = {"losses": record.losses_over_time(result.losses), "options": dataclasses.asdict(options)}
            write_whole(plot, lossplot.draw(lossplot.curves("total", found, layers=True), plot))
        return result
