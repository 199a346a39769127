"""neural_style.lua's main(), as a story in small functions: load, build, capture, initialise, optimise, save.

Ports neural_style.lua 07c4b82. Notes, all the original's: `-num_iterations N` evaluates N times and throws the last
update away; printing and saving happen inside the evaluation, so `Iteration t` and its file show the image after t-1
updates; `-learning_rate` is Adam's alone; the generator is seeded after the targets are captured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from legacy_style.engine import checkpoint, machine, memory, network
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Finished, Losses, Optimisation, Progress
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes import group, parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session, weights_digest
from legacy_style.errors import DivergenceError
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs.neural_style import building, record
from legacy_style.programs.neural_style.devices import choose_devices
from legacy_style.programs.neural_style.images import Images, share_images
from legacy_style.programs.neural_style.images import check as check_images
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.output import Log, OnPainting, Output, Result
from legacy_style.programs.neural_style.settings import Settings, read

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
) -> Result:
    """Run neural_style.lua with `options`.

    `log` takes each line that the original prints, `notice` remarks of ours, both without line end. With `save`, files
    are written as the original writes them, and `on_saved` is told the name of each image; where `on_progress` ends the
    run, its image is the result. A KeyboardInterrupt during the optimisation goes on when the image of the last
    evaluation is saved. Raises the errors of `legacy_style.errors`.
    Where torchrun has started several processes, they share the image; the first one alone reads images, logs, and
    saves, and the others return what they have of the result.
    """
    with torch.no_grad(), group.joined() as ranks:
        if ranks.rank > 0:
            log, notice, on_progress = _ignore, _ignore, None
        settings = read(options, ranks, save=save)
        if save and not settings.is_whole:
            notice(
                f"-num_iterations {settings.num_iterations:.14g} is no whole number of at least 1, so that"
                f" {settings.output_image} will not be written, as in the original"
            )
        if settings.init_image and settings.init != "image":
            notice(f"-init_image {settings.init_image} is not used, as in the original, without -init image")
        net, images, precision = prepare(settings, log, notice, ranks)
        saved = group.read_together(ranks, settings.resume) if settings.resume else None
        inputs = digests(net, images) if settings.checkpoint or saved else {}
        if saved:
            tile = settings.tile or saved["options"].get("tile", 0)
            settings = replace(settings, tile=tile)
            binding = {**settings.binding, "tile": tile}
            checkpoint.check_same(settings.resume, saved, binding, vars(Options), inputs)
        optimizer = make_optimizer(settings, log, ranks)
        planned = partial(make_plan, settings, net, images, ranks)
        chosen = memory.choose(planned, settings.tile, notice, settings.resume)
        tile = chosen.tile
        session = capture(net, images, settings, log, ranks, tile=tile)
        start = initial_image(settings, images, session)
        output = Output(
            settings,
            colors=images.colors,
            log=log,
            on_progress=on_progress,
            on_saved=on_saved,
            save=save,
            ranks=ranks,
        )
        del images, planned  # for a large image, a good part of the memory
        kept = {**settings.binding, "tile": tile}
        run = session.optimisation(
            start,
            optimizer,
            precision=precision,
            tf32=settings.precision == "tf32",
            checkpoint=Checkpoint(settings.checkpoint, output.is_due, kept, inputs)
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
            output.write(settings.output_image, finished.image)
        result = Result(output.picture(finished.image), finished.losses)
        if settings.metadata and ranks.rank == 0 and output.finished:
            keep_record(options, settings, result, time.monotonic() - run.began)
        return result


def prepare(
    settings: Settings, log: Log = _ignore, notice: Log = _ignore, ranks: Ranks | None = None
) -> tuple[Network, Images, torch.dtype]:
    """The network on its devices, the images, and what the layers behind the first compute in."""
    ranks = ranks or Ranks()
    if ranks.rank == 0:  # which reads the images for all
        check_images(settings)
    devices = choose_devices(settings.gpus, notice)
    precision = machine.dtype(settings.precision, devices)
    ranks.use(devices[0])
    chain = building.load_chain(settings, log, notice)
    images = share_images(settings, ranks, notice)
    net = building.build_network(settings, chain, log)
    net.autotune = settings.autotune
    network.place(net, devices, settings.splits, [gpu + 1 for gpu in settings.gpus])
    building.check_sizes(net, images)
    parts.check(net, images.content.shape[2], images.content.shape[3], ranks)
    return net, images, precision


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


def keep_record(options: Options, settings: Settings, result: Result, seconds: float) -> None:
    """Write --metadata: how the final image was made, beside it and, where it is a PNG, into it."""
    described = record.describe(
        options,
        command=["python", "-m", "legacy_style", *as_words(options)],
        model=settings.model_file,
        losses=result.losses,
        inputs=settings.inputs,
        seconds=seconds,
    )
    record.attach(settings.output_image, described)


def make_plan(settings: Settings, net: Network, images: Images, ranks: Ranks) -> Plan:
    """What the run will need in this process; with tiles where its part does not fit in one piece."""
    vectors = make_optimizer(settings, _ignore, Ranks()).vectors
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
        settings = read(options, save=False)
        net, images, _ = prepare(settings)
        return str(make_plan(settings, net, images, Ranks()))


def list_layers(options: Options) -> list[str]:
    """The names of the model's layers, in network order, each of which -content_layers and -style_layers may name."""
    return building.layer_names(read(options, save=False))


def load_model(options: Options, notice: Log = _ignore) -> NetParameter:
    """The model that a run with `options` would read."""
    return building.load_model(read(options, save=False), notice)


# ---- targets and start


def digests(net: Network, images: Images) -> dict[str, str]:
    """Digests of what the settings only name."""
    model = weights_digest(net)
    if images.content.device.type == "meta":  # only the first process has them
        return model
    inputs = {
        **model,
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
) -> Session:
    """A session with the targets of content and style images, in tiles of side `tile` if not 0."""
    session = Session(net, tile=tile, ranks=ranks)
    log("Capturing content targets\t")
    for line in str(net).split("\n"):
        log(line)
    session.set_content(images.content)
    for number, (style, weight) in enumerate(zip(images.styles, settings.blend_weights, strict=True), 1):
        log(f"Capturing style target {number}\t")
        session.add_style(style, weight)
    return session


def initial_image(settings: Settings, images: Images, session: Session) -> Tensor:
    """Where the optimisation starts, (1, 3, H, W): noise of deviation 0.001 in Caffe units, or an image.

    Where processes share the session, what this one owns of the image.
    """
    if settings.init == "image":
        return session.scatter(images.content if images.init is None else images.init)
    return session.noise(settings.seed).mul_(0.001)
