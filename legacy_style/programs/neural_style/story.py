"""neural_style.lua's main(), as a story in small functions: load, build, capture, initialise, optimise, save.

Ports neural_style.lua 07c4b82. Surprises, all the original's: `-num_iterations N` evaluates N times and throws the last
update away; printing and saving happen inside the evaluation, so `Iteration t` and its file show the image after t-1
updates; `-learning_rate` is Adam's alone; the generator is seeded after the targets are captured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from legacy_style.engine import checkpoint, loadcaffe, machine, network
from legacy_style.engine import sizes as shapes
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.memory import Plan
from legacy_style.engine.network import Network
from legacy_style.engine.optimise import Finished, Losses, OnProgress, Optimisation, Progress
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes import group as distributed
from legacy_style.engine.processes import parts
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session, weights_digest
from legacy_style.errors import DivergenceError, LegacyStyleError, OptionError
from legacy_style.formats import model_files
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs.neural_style import pixels
from legacy_style.programs.neural_style import record as metadata
from legacy_style.programs.neural_style.building import build, check_layers
from legacy_style.programs.neural_style.devices import choose_devices, own_options
from legacy_style.programs.neural_style.options import Options, as_words
from legacy_style.programs.neural_style.output import Array, Interrupted, Log, Output, Result, build_filename
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7.cmdline import split_list, tonumber

__all__ = ["Interrupted", "Losses", "Progress", "Result", "build_filename", "stylize"]


def _ignore(line: str) -> None:
    pass


def stylize(
    options: Options,
    *,
    log: Log = _ignore,
    notice: Log = _ignore,
    on_progress: OnProgress | None = None,
    save: bool = True,
) -> Result:
    """Run neural_style.lua with `options`.

    `log` takes each line that the original prints, `notice` remarks of ours, both without line end. With `save`, files
    are written as the original writes them. Raises the errors of `legacy_style.errors`, and Interrupted where a
    KeyboardInterrupt comes during the optimisation, after the image of the last evaluation was saved; where none was
    to be saved, that KeyboardInterrupt itself.
    Where torchrun has started several processes, they share the image; the first one alone reads images, logs, and
    saves, and the others return what they have of the result.
    """
    with torch.no_grad(), distributed.joined() as ranks:
        if ranks.rank > 0:
            log, notice, on_progress = _ignore, _ignore, None
        given = options
        options = own_options(options, ranks)
        check(options, save and ranks.rank == 0)
        if save and not (options.num_iterations >= 1 and options.num_iterations % 1 == 0):
            notice(
                f"-num_iterations {options.num_iterations:.14g} is no whole number of at least 1, so that"
                f" {options.output_image} will not be written, as in the original"
            )
        devices, gpus = choose_devices(options, notice)
        precision = machine.dtype(options.precision, devices)
        ranks.use(devices[0])
        chain = load_chain(options, log, notice)
        images = share_images(options, ranks, notice)
        net = build_network(options, chain, log)
        network.place(net, devices, options.multigpu_strategy, gpus)
        check_sizes(net, images)
        parts.check(net, images.content.shape[2], images.content.shape[3], ranks)
        saved = distributed.read_together(ranks, options.resume) if options.resume else None
        inputs = digests(net, images) if options.checkpoint or saved else {}
        if saved:
            options = replace(options, tile=options.tile or saved["options"].get("tile", 0))
            checkpoint.check_same(options.resume, saved, binding(options), vars(Options), inputs)
        optimizer = make_optimizer(options, log, ranks)
        options = lay_out(options, net, images, notice, ranks, resumed=bool(saved))
        session = capture(net, images, options, log, ranks)
        start = initial_image(options, images, session)
        output = Output(
            options, colors=images.colors, log=log, on_progress=on_progress, save=save, ranks=ranks
        )
        del images  # for a large image, a good part of the memory
        run = session.optimisation(
            start,
            optimizer,
            precision=precision,
            checkpoint=Checkpoint(options.checkpoint, output.is_due, binding(options), inputs)
            if options.checkpoint
            else None,
            on_losses=output.print_losses,
            on_progress=output.report,
        )
        if saved:
            run.resume(options.resume, saved)
        finished = optimise(run, output, options)
        result = Result(output.picture(finished.image), finished.losses)
        if options.metadata and ranks.rank == 0 and ranks.saved == options.output_image:
            keep_record(given, result, time.monotonic() - run.began)
        return result


def make_optimizer(options: Options, log: Log, ranks: Ranks) -> Lbfgs | Adam:
    if options.optimizer == "adam":
        return Adam(options.num_iterations, options.learning_rate)
    correction = options.lbfgs_num_correction
    return Lbfgs(
        options.num_iterations, int(min(correction, 2**31)) if correction > 0 else 100, log=log, ranks=ranks
    )


def optimise(run: Optimisation, output: Output, options: Options) -> Finished:
    """Run to the end; where it ends early, save what there is, the image first, and say where that is."""
    output.log(f"Running optimization with {'ADAM' if options.optimizer == 'adam' else 'L-BFGS'}\t")
    try:
        return run.run()
    except KeyboardInterrupt:
        # Of several processes, the others are not where this one is: together they can save nothing more.
        if not output.save or run.evaluated is None or output.ranks.size > 1:
            raise
        name = output.save_last(len(run.losses), run.image())
        run.save_checkpoint()
        raise Interrupted(name) from None
    except DivergenceError as error:
        saved = ""
        if output.save and run.evaluated is not None:
            name = output.save_last(len(run.losses), run.image())
            saved = f" The image of iteration {len(run.losses)} is in {name}."
        raise DivergenceError(
            f"{error}{saved} Likely causes: a weight or a -learning_rate that is far too large, or, with L-BFGS, a step"
            " that went astray: try smaller weights, -optimizer adam, or another -seed"
        ) from error


# These may differ between a run and its continuation: they change what is written and when, never the picture; or they
# name files, of which there are digests.
_FREE = {
    *("print_iter", "save_iter", "output_image", "checkpoint", "resume", "metadata", "max_pixels"),
    *("content_image", "style_image", "init_image", "model_file", "proto_file", "num_iterations"),
}


def binding(options: Options) -> dict[str, str | float | bool]:
    """The options that a continuation must have the same."""
    return {each.name: getattr(options, each.name) for each in fields(options) if each.name not in _FREE}


def keep_record(options: Options, result: Result, seconds: float) -> None:
    """Write --metadata: how the final image was made, beside it and, where it is a PNG, into it."""
    record = metadata.describe(
        options,
        command=["python", "-m", "legacy_style", *as_words(options)],
        model=model_path(options),
        losses=result.losses,
        inputs=input_files(options),
        seconds=seconds,
    )
    metadata.attach(options.output_image, record)


# ---- before anything is loaded


def check(options: Options, save: bool = True) -> None:
    """Raise OptionError for what would fail later, after work that would be lost."""
    if options.init not in ("random", "image"):
        raise OptionError(f'Invalid init type: -init is "{options.init}"; give random or image')
    if options.optimizer not in ("lbfgs", "adam"):
        raise OptionError(f'Unrecognized optimizer "{options.optimizer}"; give -optimizer lbfgs or adam')
    if not math.isfinite(options.image_size * options.style_scale):
        raise OptionError("-image_size and -style_scale must be finite numbers, for example -image_size 512")
    styles = split_list(options.style_image)
    if not styles or "" in styles:
        raise OptionError(
            f"-style_image {options.style_image!r} has an empty element; give file names with commas between"
        )
    blend_weights(options)
    if save:
        torch_image.check_can_save(options.output_image)
        torch_image.check_can_save(build_filename(options.output_image, 1))
    if options.checkpoint:
        checkpoint.check_can_write(options.checkpoint)


def blend_weights(options: Options) -> list[float]:
    """One weight per style image, of sum 1; raises OptionError where they are not as many or cancel out."""
    count = len(split_list(options.style_image))
    if options.style_blend_weights == "nil":
        weights = [1.0] * count
    else:
        parts = split_list(options.style_blend_weights)
        if len(parts) != count:
            raise OptionError(
                "-style_blend_weights and -style_images must have the same number of elements:"
                f" there are {len(parts)} weights for {count} images"
            )
        numbers = [tonumber(part) for part in parts]
        weights = [number for number in numbers if number is not None]
        if len(weights) < count:
            raise OptionError(
                f"-style_blend_weights {options.style_blend_weights!r} are not all numbers; give for example 1,3"
            )
    total = sum(weights)
    if total == 0 or not math.isfinite(total):
        raise OptionError(
            f"-style_blend_weights {options.style_blend_weights} have the sum {total}, which nothing can be divided by"
        )
    return [weight / total for weight in weights]


# ---- the model


def model_path(options: Options) -> str:
    """`-model_file`; the bundled VGG-16 where none was named and the default VGG-19 is not there."""
    named = options.is_explicit("model_file") or Path(options.model_file).exists()
    return options.model_file if named else str(model_files.bundled())


def load_model(options: Options, notice: Log) -> NetParameter:
    """The model at `model_path`; says so where that is not the one of `-model_file`."""
    path = model_path(options)
    if path != options.model_file:
        notice(
            f"No {options.model_file} here: using the bundled VGG-16 instead"
            " (legacy-style models get fetches VGG-19, -model_file names another model)"
        )
    return model_files.load(path, matconvnet_orientation=options.matconvnet_orientation)


def load_chain(options: Options, log: Log, notice: Log) -> list[loadcaffe.Module]:
    """The model's layers, not built yet; prints what loadcaffe prints."""
    try:
        net = load_model(options, notice)
    except OSError as error:
        log(f"Couldn't load {options.model_file}")
        raise OptionError(
            f"{options.model_file}: {error.strerror}; give -model_file a file that is there, or leave it out for the"
            " bundled network"
        ) from error
    except LegacyStyleError:
        log(f"Couldn't load {options.model_file}")
        raise
    log(f"Successfully loaded {net.path or options.model_file}")
    content, style = split_list(options.content_layers), split_list(options.style_layers)
    check_layers(loadcaffe.layer_names(net), content, style)
    chain, lines = loadcaffe.modules(net, [*content, *style])
    for line in lines:
        log(line)
    return chain


def list_layers(options: Options) -> list[str]:
    """The names of the model's layers, in network order, each of which -content_layers and -style_layers may name."""
    return loadcaffe.usable_names(load_model(options, _ignore))


def build_network(options: Options, chain: Sequence[loadcaffe.Module], log: Log) -> Network:
    return build(
        chain,
        split_list(options.content_layers),
        split_list(options.style_layers),
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        pooling=options.pooling,
        normalize=options.normalize_gradients,
        log=log,
    )


# ---- the images


@dataclass
class Images:
    """The loaded images. `content`, `styles`, `init`: in Caffe units, (1, 3, H, W) float32; `colors`: the scaled
    content in RGB, kept where -original_colors needs it.
    """

    content: Tensor
    styles: list[Tensor]
    init: Tensor | None
    colors: Array | None


def input_files(options: Options) -> list[str]:
    """The images that decide on the result."""
    init = [options.init_image] if options.init == "image" and options.init_image else []
    return [options.content_image, *split_list(options.style_image), *init]


def load_images(options: Options, notice: Log = _ignore) -> Images:
    """Load and scale the content image, the style images and the init image, in the original's order."""

    def load(path: str) -> Array:
        return torch_image.load(
            path, max_pixels=options.max_pixels, exif_rotate=options.exif_rotate, notice=notice
        )

    content = torch_image.scale(load(options.content_image), options.image_size)
    style_size = math.ceil(options.style_scale * options.image_size)
    styles = [
        _caffe_units(torch_image.scale(load(path), style_size)) for path in split_list(options.style_image)
    ]
    init = None
    if options.init_image != "":
        loaded = load(options.init_image)
        if options.init == "image":
            init = _caffe_units(torch_image.scale_to(loaded, content.shape[2], content.shape[1]))
    return Images(_caffe_units(content), styles, init, content if options.original_colors == 1 else None)


def share_images(options: Options, ranks: Ranks, notice: Log = _ignore) -> Images:
    """The images in the first process; in the others tensors that have but their sizes (device "meta")."""
    images = load_images(options, notice) if ranks.rank == 0 else None
    known = [] if images is None else [images.content, *images.styles, images.init]
    sizes = ranks.told([n for image in known if image is not None for n in image.shape[2:]])
    if images is not None:
        return images
    content, *more = (
        torch.empty((1, 3, int(height), int(width)), device="meta")
        for height, width in zip(sizes[::2], sizes[1::2], strict=True)
    )
    count = len(split_list(options.style_image))
    return Images(content, more[:count], more[count] if len(more) > count else None, None)


def _caffe_units(rgb: Array) -> Tensor:
    return torch.from_numpy(pixels.preprocess(rgb).astype(np.float32)).unsqueeze(0)


def check_sizes(net: Network, images: Images) -> None:
    """Raise OptionError where an image has a size that a layer, or the total variation, cannot take."""
    for what, image in (("content", images.content), *(("style", style) for style in images.styles)):
        shapes.check(net, what, image.shape[2], image.shape[3])
    if net.image_losses and min(images.content.shape[2:]) < 2:
        raise OptionError(
            "-tv_weight needs an image of at least 2x2 pixels; give a larger -image_size, or -tv_weight 0"
        )


def make_plan(options: Options, net: Network, images: Images, ranks: Ranks) -> Plan:
    """What the run will need in this process; with tiles where its part does not fit in one piece."""
    vectors = make_optimizer(options, _ignore, Ranks()).vectors
    ways = ["a smaller -image_size"]
    if options.optimizer == "lbfgs" and vectors["L-BFGS's correction pairs"] > 10:
        ways.insert(0, "-lbfgs_num_correction 5 or -optimizer adam")
    # Images go once their targets are taken, before the passes that take most.
    loaded = [image for image in (images.content, *images.styles, images.init) if image is not None]
    return Session(net, ranks=ranks).plan(
        _size(images.content),
        [_size(style) for style in images.styles],
        vectors,
        ways=ways,
        images=sum(image.nbytes for image in loaded if image.device.type == "cpu"),
        tile=options.tile,
    )


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


def plan(options: Options) -> str:
    """What a run with `options` would do and need, as text; model and images are loaded, nothing is run."""
    with torch.no_grad():
        check(options, save=False)
        devices, gpus = choose_devices(options, _ignore)
        machine.dtype(options.precision, devices)  # which may refuse it
        images = load_images(options)
        net = build_network(options, load_chain(options, _ignore, _ignore), _ignore)
        network.place(net, devices, options.multigpu_strategy, gpus)
        check_sizes(net, images)
        return str(make_plan(options, net, images, Ranks()))


def lay_out(
    options: Options, net: Network, images: Images, notice: Log, ranks: Ranks, *, resumed: bool = False
) -> Options:
    """`options` with the tiles of the plan; a resumed run keeps its own. Raises OptionError where they do not fit."""
    try:
        tile = make_plan(options, net, images, ranks).tile
        fits = not resumed or tile == options.tile
    except OptionError:
        if not resumed:  # whose advice a resumed run cannot take
            raise
        fits = False
    if not fits:
        pieces = f"tiles of {options.tile:.0f} pixels" if options.tile else "one piece"
        raise OptionError(
            f"--resume {options.resume}: that run was in {pieces}, for which there is not enough memory here now;"
            " resume it where there is more"
        )
    if tile and not options.tile:
        notice(f"The image does not fit into memory in one piece: working in tiles of {tile} pixels")
    if tile:
        machine.spare_memory()
    return replace(options, tile=tile)


def digests(net: Network, images: Images) -> dict[str, str]:
    """Digests of what the options only name."""
    model = weights_digest(net)
    if images.content.device.type == "meta":  # only the first process has them
        return model
    inputs = {
        **model,
        "the content image": checkpoint.digest(images.content),
        "the style images": checkpoint.digest(*images.styles),
    }
    return inputs if images.init is None else {**inputs, "the init image": checkpoint.digest(images.init)}


def capture(net: Network, images: Images, options: Options, log: Log, ranks: Ranks | None = None) -> Session:
    """A session with the targets of content and style images."""
    session = Session(net, tile=options.tile, ranks=ranks)
    log("Capturing content targets\t")
    for line in str(net).split("\n"):
        log(line)
    session.set_content(images.content)
    for number, (style, weight) in enumerate(zip(images.styles, blend_weights(options), strict=True), 1):
        log(f"Capturing style target {number}\t")
        session.add_style(style, weight)
    return session


def initial_image(options: Options, images: Images, session: Session) -> Tensor:
    """Where the optimisation starts, (1, 3, H, W): noise of deviation 0.001 in Caffe units, or an image.

    Where processes share the session, what this one owns of the image.
    """
    if options.init == "image":
        return session.scatter(images.content if images.init is None else images.init)
    return session.noise(options.seed).mul_(0.001)
