"""neural_style.lua's main(), as a story in small functions: load, build, capture, initialise, optimise, save.

Ports neural_style.lua 07c4b82. Notes, all the original's: `-num_iterations N` evaluates N times and throws the last
update away; printing and saving happen inside the evaluation, so `Iteration t` and its file show the image after t-1
updates; `-learning_rate` is Adam's alone; the generator is seeded after the targets are captured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from legacy_style.engine import checkpoint, machine, memory
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.optimise import Conditions, Finished, Losses, Optimisation, Progress
from legacy_style.engine.processes import group
from legacy_style.engine.processes.group import Ranks
from legacy_style.errors import DivergenceError
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs import devices
from legacy_style.programs.neural_style import building, pixels, record, stages
from legacy_style.programs.neural_style.building import Loaded
from legacy_style.programs.neural_style.images import check as check_images
from legacy_style.programs.neural_style.images import finish
from legacy_style.programs.neural_style.kept import KeptNetwork, style_targets
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.output import Array, Log, OnPainting, Output, Painting, Result
from legacy_style.programs.neural_style.preparing import (
    capture,
    digests,
    ignore,
    initial_image,
    make_optimizer,
    make_plan,
    prepare,
)
from legacy_style.programs.neural_style.settings import Settings, read
from legacy_style.programs.notices import once
from legacy_style.programs.progress import WorkDone

__all__ = ["Losses", "Progress", "Result", "stylize"]


def stylize(
    options: Options,
    *,
    log: Log = ignore,
    notice: Log = ignore,
    on_progress: OnPainting | None = None,
    on_saved: Callable[[str], None] = ignore,
    save: bool = True,
    kept: KeptNetwork | None = None,
) -> Result:
    """Run neural_style.lua with `options`.

    `log` takes each line that the original prints, `notice` remarks of ours, both without line end. With `save`, files
    are written as the original writes them, and `on_saved` is told the name of each image; where `on_progress` ends the
    run, its image is the result. A KeyboardInterrupt during the optimisation goes on when the image of the last
    evaluation is saved. `kept` takes the network and style targets over from the run before, and leaves them for the
    next, which changes nothing in the picture; what is not done anew is not logged. Raises the errors of
    `legacy_style.errors`.
    Where torchrun has started several processes, they share the image; the first one alone reads images, logs, and
    saves, and the others return what they have of the result.
    """
    with torch.no_grad(), group.joined() as ranks:
        if ranks.rank > 0:
            log, notice, on_progress = ignore, ignore, None
        staged = _staged(options, ranks, save=save)
        first, last = staged[0], staged[-1]
        if save and not last.is_whole:
            notice(
                f"-num_iterations {last.num_iterations:.14g} is no whole number of at least 1, so that"
                f" {last.output_image} will not be written, as in the original"
            )
        if first.init_image and first.init != "image":
            notice(f"-init_image {first.init_image} is not used, as in the original, without -init image")
        if len(staged) > 1:
            notice = once(notice)  # each stage loads the same files
        saved = group.read_together(ranks, first.resume) if first.resume else None
        if ranks.size > 1:  # of which one alone knows the images
            kept = None
        loaded = load(first, log, notice, ranks, kept)
        painted: Painted | None = None
        losses: list[Losses] = []
        seconds = 0.0
        for number, settings in enumerate(staged, 1):
            if saved and number < min(saved["options"].get("stage", 1), len(staged)):
                continue
            if len(staged) > 1:
                notice(f"Stage {number} of {len(staged)}: {settings.image_size:g} pixels")
            painted = paint(
                settings,
                loaded,
                before=None if painted is None or settings.init_image else painted.image,
                saved=saved,
                log=log,
                notice=notice,
                on_progress=on_progress and partial(_in_all, on_progress, staged, number, seconds),
                on_saved=on_saved,
                save=save,
                ranks=ranks,
                stopped_image=last.output_image,
                kept=kept,
            )
            saved = None
            losses += painted.result.losses
            seconds += painted.seconds
            if painted.result.stopped:
                break
        assert painted is not None
        result = replace(painted.result, losses=losses)
        if last.metadata and ranks.rank == 0 and painted.is_saved:
            keep_record(options, last, first.inputs, result, seconds)
        return result


def _in_all(
    on_progress: OnPainting, staged: Sequence[Settings], number: int, seconds: float, painting: Painting
) -> object:
    """Tell `on_progress` of an evaluation of one stage, counted from the beginning of the first."""
    works = [stages.work(each.image_size, each.num_iterations) for each in staged]
    before, own = staged[: number - 1], staged[number - 1]
    done = sum(works[: number - 1]) + stages.work(own.image_size, painting.iteration)
    return on_progress(
        replace(
            painting,
            iteration=painting.iteration + int(sum(each.num_iterations for each in before)),
            num_iterations=sum(each.num_iterations for each in staged),
            seconds=painting.seconds + seconds,
            work=WorkDone((number,), done, sum(works)),
        )
    )


def _staged(options: Options, ranks: Ranks, *, save: bool) -> list[Settings]:
    """The settings of each stage, one where there are no --stages."""
    every = [read(each, ranks, save=save) for each in stages.split(options)]
    if len(every) > 1:
        every = [
            replace(each, binding={**each.binding, "stage": number}) for number, each in enumerate(every, 1)
        ]
        every[-1] = replace(every[-1], last_stage=len(every))
    return every


@dataclass(frozen=True)
class Painted:
    """A run, or a stage of one; `image`: the last image as it was painted, RGB in [0,1], (3, H, W).

    `is_saved`: whether its result was written.
    """

    result: Result
    image: Array
    seconds: float
    is_saved: bool


def load(
    settings: Settings,
    log: Log = ignore,
    notice: Log = ignore,
    ranks: Ranks | None = None,
    kept: KeptNetwork | None = None,
) -> Loaded:
    """Choose the devices, look at the images, and read the model."""
    if ranks is None or ranks.rank == 0:  # which reads the images for all
        check_images(settings)
    chosen = devices.choose(settings.gpus, notice)
    machine.dtype(settings.precision, chosen)  # which may refuse it
    if ranks is not None:
        ranks.use(chosen[0])
    read_chain = partial(building.load_chain, settings, log, notice)
    return Loaded(chosen, kept.chain(settings, read_chain) if kept else read_chain())


def paint(
    settings: Settings,
    loaded: Loaded,
    *,
    before: Array | None,
    saved: dict[str, Any] | None,
    log: Log,
    notice: Log,
    on_progress: OnPainting | None,
    on_saved: Callable[[str], None],
    save: bool,
    ranks: Ranks,
    stopped_image: str,
    kept: KeptNetwork | None,
) -> Painted:
    """One run with a loaded network, from the image `before` where there is one, or going on from a checkpoint.

    `stopped_image`: the file that is written where the callback ends the run.
    """
    ready, known = kept.take(settings) if kept else (None, None)
    net, images = prepare(settings, loaded, log, notice, ranks, before, ready)
    precision = machine.dtype(settings.precision, loaded.devices)
    inputs = digests(net, images) if settings.checkpoint or saved else {}
    if saved:
        tile = settings.tile or saved["options"].get("tile", 0)
        settings = replace(settings, tile=tile)
        binding = {**settings.binding, "tile": tile}
        checkpoint.check_same(settings.resume, saved, binding, vars(Options), inputs)
    optimizer = make_optimizer(settings, log, ranks)
    planned = partial(make_plan, settings, net, images, ranks)
    chosen = memory.choose(planned, settings.tile, notice, settings.resume if saved else "")
    tile = chosen.tile
    targets = style_targets(settings, images, tile) if kept else None
    styled = targets is not None and targets == known
    session = capture(net, images, settings, log, ranks, tile=tile, styled=styled)
    start = initial_image(settings, images, session)
    output = Output(
        settings,
        finish=partial(finish, settings, images.colors, images.mask),
        log=log,
        on_progress=on_progress,
        on_saved=on_saved,
        save=save,
        ranks=ranks,
    )
    del images, planned  # for a large image, a good part of the memory
    bound = {**settings.binding, "tile": tile}
    conditions = Conditions(
        precision=precision,
        tf32=settings.precision == "tf32",
        checkpoint=Checkpoint(settings.checkpoint, output.is_due, bound, inputs)
        if settings.checkpoint
        else None,
        on_losses=output.print_losses,
        on_progress=output.report,
        notice=notice,
    )
    run = session.optimisation(start, optimizer, conditions, on_host=chosen.pairs_on_host)
    if saved:
        run.resume(settings.resume, saved)
    finished = optimise(run, output, settings)
    if finished.stopped and save:
        output.write(stopped_image, finished.image)
    if kept:
        kept.keep(settings, net, targets if session.tile == tile else None)
    result = Result(output.picture(finished.image), finished.losses, finished.stopped)
    return Painted(
        result,
        pixels.deprocess(finished.image[0].numpy()),
        time.monotonic() - run.began,
        output.finished or (finished.stopped and save),
    )


def optimise(run: Optimisation, output: Output, settings: Settings) -> Finished:
    """Run to the end; where it ends early, save what there is, the image first, and say where that is."""
    output.log(f"Running optimization with {'ADAM' if settings.optimizer == 'adam' else 'L-BFGS'}\t")
    try:
        return run.run()
    except KeyboardInterrupt:
        # Of several processes, the others are not where this one is: together they can save nothing more.
        if not output.save or run.evaluated is None or output.ranks.size > 1:
            raise
        output.save_last(len(run.losses), run.image())
        run.save_checkpoint()
        raise
    except DivergenceError as error:
        saved = ""
        if output.save and run.evaluated is not None:
            name = output.save_last(len(run.losses), run.image())
            saved = f" The image of iteration {len(run.losses)} is in {name}."
        raise DivergenceError(
            f"{error}{saved} Likely causes: a weight or a -learning_rate that is far too large, or, with L-BFGS, a step"
            " that went astray: try smaller weights, -optimizer adam, or another -seed"
        ) from error


def keep_record(
    options: Options, settings: Settings, inputs: Sequence[str], result: Result, seconds: float
) -> None:
    """Write --metadata: how the final image was made, beside it and, where it is a PNG, into it."""
    described = record.describe(
        options,
        command=["python", "-m", "legacy_style", *as_words(options)],
        model=settings.model_file,
        losses=result.losses,
        inputs=inputs,
        seconds=seconds,
    )
    record.attach(settings.output_image, described)


def plan(options: Options) -> str:
    """What a run with `options` would do and need, as text; model and images are loaded, nothing is run."""
    with torch.no_grad():
        ranks, texts, loaded = Ranks(), list[str](), None
        staged = _staged(options, ranks, save=False)
        for number, settings in enumerate(staged, 1):
            loaded = loaded or load(settings)
            net, images = prepare(settings, loaded)
            text = str(make_plan(settings, net, images, ranks))
            texts.append(f"stage    {number} of {len(staged)}\n{text}" if len(staged) > 1 else text)
        return "\n".join(texts)


def list_layers(options: Options) -> list[str]:
    """The names of the model's layers, in network order, each of which -content_layers and -style_layers may name."""
    return building.layer_names(read(options, save=False))


def load_model(options: Options, notice: Log = ignore) -> NetParameter:
    """The model that a run with `options` would read."""
    return building.load_model(read(options, save=False), notice)
