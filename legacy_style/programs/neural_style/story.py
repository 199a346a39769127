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
from torch import Tensor

from legacy_style.engine import checkpoint, machine, memory, network
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.loadcaffe import Module
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Finished, Losses, Optimisation, Progress
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes import group, parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session, weights_digest
from legacy_style.errors import DivergenceError
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs.neural_style import building, pixels, record, regions, stages
from legacy_style.programs.neural_style.devices import choose_devices
from legacy_style.programs.neural_style.images import Images, finish, share_images
from legacy_style.programs.neural_style.images import check as check_images
from legacy_style.programs.neural_style.kept import KeptNetwork, style_targets
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.output import Array, Log, OnPainting, Output, Painting, Result
from legacy_style.programs.neural_style.settings import Settings, read
from legacy_style.programs.notices import once

__all__ = ["Losses", "Progress", "Result", "stylize"]


def _ignore(line: str) -> None:
    pass


def stylize(
    options: Options,
    *,
    log: Log = _ignore,
    notice: Log = _ignore,
    on_progress: OnPainting | None = None,
    on_saved: Callable[[str], None] = _ignore,
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
            log, notice, on_progress = _ignore, _ignore, None
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
        done, total, seconds = 0.0, sum(each.num_iterations for each in staged), 0.0
        for number, settings in enumerate(staged, 1):
            if saved and number < min(saved["options"].get("stage", 1), len(staged)):
                done += settings.num_iterations
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
                on_progress=on_progress and partial(_in_all, on_progress, done, total, seconds),
                on_saved=on_saved,
                save=save,
                ranks=ranks,
                stopped_image=last.output_image,
                kept=kept,
            )
            saved = None
            losses += painted.result.losses
            done += settings.num_iterations
            seconds += painted.seconds
            if painted.result.stopped:
                break
        assert painted is not None
        result = replace(painted.result, losses=losses)
        if last.metadata and ranks.rank == 0 and painted.is_saved:
            keep_record(options, last, first.inputs, result, seconds)
        return result


def _in_all(on_progress: OnPainting, done: float, total: float, seconds: float, stage: Painting) -> object:
    """Tell `on_progress` of an evaluation of one stage, counted from the beginning of the first."""
    return on_progress(
        replace(
            stage,
            iteration=stage.iteration + int(done),
            num_iterations=total,
            seconds=stage.seconds + seconds,
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
class Loaded:
    """What every stage needs: the devices, and the model's layers, not built yet."""

    devices: list[torch.device]
    chain: list[Module]


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
    log: Log = _ignore,
    notice: Log = _ignore,
    ranks: Ranks | None = None,
    kept: KeptNetwork | None = None,
) -> Loaded:
    """Choose the devices, look at the images, and read the model."""
    if ranks is None or ranks.rank == 0:  # which reads the images for all
        check_images(settings)
    devices = choose_devices(settings.gpus, notice)
    machine.dtype(settings.precision, devices)  # which may refuse it
    if ranks is not None:
        ranks.use(devices[0])
    read_chain = partial(building.load_chain, settings, log, notice)
    return Loaded(devices, kept.chain(settings, read_chain) if kept else read_chain())


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
    run = session.optimisation(
        start,
        optimizer,
        precision=precision,
        tf32=settings.precision == "tf32",
        checkpoint=Checkpoint(settings.checkpoint, output.is_due, bound, inputs)
        if settings.checkpoint
        else None,
        on_losses=output.print_losses,
        on_progress=output.report,
        notice=notice,
        on_host=chosen.pairs_on_host,
    )
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


def prepare(
    settings: Settings,
    loaded: Loaded,
    log: Log = _ignore,
    notice: Log = _ignore,
    ranks: Ranks | None = None,
    before: Array | None = None,
    ready: Network | None = None,
) -> tuple[Network, Images]:
    """The network on its devices, `ready` where it is, and the images."""
    ranks = ranks or Ranks()
    images = share_images(settings, ranks, notice, before)
    if ready is None:
        net = building.build_network(settings, loaded.chain, log)
        net.autotune = settings.autotune
        network.place(net, loaded.devices, settings.splits, [gpu + 1 for gpu in settings.gpus])
    else:
        net = ready
    building.check_sizes(net, images)
    parts.check(net, images.content.shape[2], images.content.shape[3], ranks)
    return net, images


def make_optimizer(settings: Settings, log: Log, ranks: Ranks) -> Lbfgs | Adam:
    if settings.optimizer == "adam":
        return Adam(settings.num_iterations, settings.learning_rate)
    return Lbfgs(settings.num_iterations, settings.correction, log=log, ranks=ranks)


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


def make_plan(settings: Settings, net: Network, images: Images, ranks: Ranks) -> Plan:
    """What the run will need in this process; with tiles where its part does not fit in one piece."""
    vectors = make_optimizer(settings, _ignore, Ranks()).vectors
    if images.guidance is not None:
        # The maps at the image's size, and for the losses at about twice that.
        vectors = {**vectors, "guidance maps of the regions": len(images.guidance.content) + 1}
    ways = ["a smaller -image_size"]
    if settings.optimizer == "lbfgs" and vectors["L-BFGS's correction pairs"] > 10:
        ways.insert(0, "-lbfgs_num_correction 5 or -optimizer adam")
    # Images go once their targets are taken, before the passes that take most.
    loaded = [image for image in (images.content, *images.styles, images.init) if image is not None]
    return Session(net, ranks=ranks).plan(
        _size(images.content),
        [_size(style) for style in images.styles],
        vectors,
        ways=ways,
        images=sum(image.nbytes for image in loaded if image.device.type == "cpu"),
        tile=settings.tile,
        may_move=True,
    )


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


# ---- what a command line may ask for instead of a run


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


def load_model(options: Options, notice: Log = _ignore) -> NetParameter:
    """The model that a run with `options` would read."""
    return building.load_model(read(options, save=False), notice)


# ---- targets and start


def digests(net: Network, images: Images) -> dict[str, str]:
    """Digests of what the settings only name."""
    inputs = weights_digest(net)
    if images.guidance is not None:
        guidance = images.guidance
        inputs["the regions or the mask"] = checkpoint.digest(
            guidance.content, guidance.weights, *guidance.styles
        )
    if images.content.device.type == "meta":  # only the first process has them
        return inputs
    inputs |= {
        "the content image": checkpoint.digest(images.content),
        "the style images": checkpoint.digest(*images.styles),
    }
    return inputs if images.init is None else {**inputs, "the init image": checkpoint.digest(images.init)}


def capture(
    net: Network,
    images: Images,
    settings: Settings,
    log: Log = _ignore,
    ranks: Ranks | None = None,
    *,
    tile: int = 0,
    styled: bool = False,
) -> Session:
    """A session with the targets of content and style images, in tiles of side `tile` if not 0.

    `styled`: the network has those of the style images.
    """
    session = Session(net, tile=tile, ranks=ranks)
    log("Capturing content targets\t")
    for line in str(net).split("\n"):
        log(line)
    guidance = images.guidance
    if guidance is not None:
        regions.guide(net, guidance.content, guidance.weights)
    session.set_content(images.content)
    if styled:
        return session
    for loss in net.losses_from("style"):
        loss.forget()
    for number, (style, weight) in enumerate(zip(images.styles, settings.blend_weights, strict=True), 1):
        log(f"Capturing style target {number}\t")
        if guidance is not None:
            regions.guide(net, guidance.styles[number - 1])
        session.add_style(style, weight)
    if guidance is not None:
        regions.guide(net, guidance.content)
    return session


def initial_image(settings: Settings, images: Images, session: Session) -> Tensor:
    """Where the optimisation starts, (1, 3, H, W): noise of deviation 0.001 in Caffe units, or an image.

    Where processes share the session, what this one owns of the image.
    """
    if settings.init == "image":
        return session.scatter(images.content if images.init is None else images.init)
    return session.noise(settings.seed).mul_(0.001)
