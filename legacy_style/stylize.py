"""neural_style.lua's main(), as a story in small functions: load, build, capture, initialise, optimise, save.

Ports neural_style.lua 07c4b82. Surprises, all the original's: `-num_iterations N` evaluates N times and throws the last
update away; printing and saving happen inside the evaluation, so `Iteration t` and its file show the image after t-1
updates; `-learning_rate` is Adam's alone; the generator is seeded after the targets are captured.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style import engine, loadcaffe, model_files, network, pixels
from legacy_style.caffe.netparam import NetParameter
from legacy_style.errors import DivergenceError, LegacyStyleError, OptionError
from legacy_style.network import Network, split_list
from legacy_style.objective import Objective
from legacy_style.options import Options
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import optim
from legacy_style.torch7.cmdline import tonumber
from legacy_style.torch7.random import Generator

Log = Callable[[str], None]
Array = NDArray[np.float64]


def _ignore(line: str) -> None:
    pass


@dataclass(frozen=True)
class Losses:
    """The losses of one evaluation, weighted, as they are printed: one per layer, and their sum without TV."""

    content: tuple[float, ...]
    style: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class Progress:
    """One evaluation that is done: `iteration` of `num_iterations`, `seconds` since the optimisation began."""

    iteration: int
    num_iterations: float
    losses: Losses
    seconds: float


@dataclass(frozen=True)
class Result:
    """`image`: RGB in [0,1], (3, H, W), float64, not clamped, of the last evaluation; `losses`: of every evaluation."""

    image: Array
    losses: list[Losses] = field(default_factory=list)


class Interrupted(KeyboardInterrupt):
    """The run was interrupted; `path` is the file that holds the image of the last evaluation."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def stylize(
    options: Options,
    *,
    log: Log = _ignore,
    notice: Log = _ignore,
    on_progress: Callable[[Progress], None] | None = None,
    save: bool = True,
) -> Result:
    """Run neural_style.lua with `options`.

    `log` takes each line that the original prints, `notice` remarks of ours, both without line end. With `save`, files
    are written as the original writes them. Raises the errors of `legacy_style.errors`, and Interrupted where a
    KeyboardInterrupt comes during the optimisation, after the image of the last evaluation was saved.
    """
    with torch.no_grad():
        check(options, save)
        devices, gpus = choose_devices(options, notice)
        chain = load_chain(options, log, notice)
        images = load_images(options)
        net = build_network(options, chain, log)
        network.place(net, devices, options.multigpu_strategy, gpus)
        check_sizes(net, images)
        objective = capture(net, images, options, log)
        start = initial_image(options, images).to(devices[0])
        return _Run(options, objective, start, images, log, on_progress, save).optimise()


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


def choose_devices(options: Options, notice: Log) -> tuple[list[torch.device], list[int]]:
    """The devices that -gpu names, and their numbers counted from 1; the CPU, said once, where there is no CUDA.

    As in the original, a comma means several, and a single number means the CPU if it is -1 or less.
    """
    several = "," in options.gpu
    numbers = [tonumber(part) for part in (split_list(options.gpu) if several else [options.gpu])]
    if None in numbers or not all(math.isfinite(number) for number in numbers if number is not None):
        raise OptionError(
            f"-gpu {options.gpu!r} is not a GPU's number; give 0, or 0,1 for two, or -1 for the CPU"
        )
    gpus = [int(number + 1) for number in numbers if number is not None]
    engine.set_up_cpu()
    if not several and (numbers[0] or 0) + 1 <= 0:
        return [torch.device("cpu")], []
    if not torch.cuda.is_available():
        notice("No CUDA device here: running on the CPU (-gpu -1 says so beforehand)")
        return [torch.device("cpu")], []
    missing = [gpu - 1 for gpu in gpus if not 0 <= gpu - 1 < torch.cuda.device_count()]
    if missing:
        raise OptionError(
            f"-gpu {options.gpu}: there is no GPU {missing[0]}, only 0 to {torch.cuda.device_count() - 1}"
        )
    engine.set_up_cuda(autotune=options.cudnn_autotune and options.backend == "cudnn")
    return [torch.device("cuda", gpu - 1) for gpu in gpus], gpus


# ---- the model


def load_model(options: Options, notice: Log) -> NetParameter:
    """The model of `-model_file`; the bundled VGG-16 where none was named and the default VGG-19 is not there."""
    path = options.model_file
    if not options.is_explicit("model_file") and not os.path.exists(path):
        path = str(model_files.bundled())
        notice(
            f"No {options.model_file} here: using the bundled VGG-16 instead"
            " (python tools/download_models.py gets VGG-19, -model_file names another model)"
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
    network.check_layers(loadcaffe.layer_names(net), content, style)
    chain, lines = loadcaffe.modules(net, [*content, *style])
    for line in lines:
        log(line)
    return chain


def list_layers(options: Options) -> list[str]:
    """The names of the model's layers, in network order, each of which -content_layers and -style_layers may name."""
    return loadcaffe.layer_names(load_model(options, _ignore))


def build_network(options: Options, chain: Sequence[loadcaffe.Module], log: Log) -> Network:
    return network.build(
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
    """The loaded images. `content`, `styles`, `init`: in Caffe units, (1, 3, H, W) float32; `colors`: the scaled content
    in RGB, kept where -original_colors needs it."""

    content: Tensor
    styles: list[Tensor]
    init: Tensor | None
    colors: Array | None


def load_images(options: Options) -> Images:
    """Load and scale the content image, the style images and the init image, in the original's order."""
    content = torch_image.scale(_load(options.content_image, options), options.image_size)
    style_size = math.ceil(options.style_scale * options.image_size)
    styles = [
        _caffe_units(torch_image.scale(_load(path, options), style_size))
        for path in split_list(options.style_image)
    ]
    init = None
    if options.init_image != "":
        loaded = _load(options.init_image, options)
        if options.init == "image":
            init = _caffe_units(torch_image.scale_to(loaded, content.shape[2], content.shape[1]))
    return Images(_caffe_units(content), styles, init, content if options.original_colors == 1 else None)


def _load(path: str, options: Options) -> Array:
    return torch_image.load(path, max_pixels=options.max_pixels)


def _caffe_units(rgb: Array) -> Tensor:
    return torch.from_numpy(pixels.preprocess(rgb).astype(np.float32)).unsqueeze(0)


def check_sizes(net: Network, images: Images) -> None:
    """Raise OptionError where an image is too small for a layer, or for the total variation."""
    for what, image in (("content", images.content), *(("style", style) for style in images.styles)):
        height, width = image.shape[2:]
        for step, h, w in zip(
            net.steps, engine.sizes(net, 0, height), engine.sizes(net, 1, width), strict=True
        ):
            if min(h, w) < 1:
                name = getattr(step, "name", "")
                raise OptionError(
                    f"the {what} image is too small ({width}x{height}): nothing of it is left at layer {name};"
                    " give a larger -image_size, or layers that are less deep"
                )
    if net.tv is not None and min(images.content.shape[2:]) < 2:
        raise OptionError(
            "-tv_weight needs an image of at least 2x2 pixels; give a larger -image_size, or -tv_weight 0"
        )


def capture(net: Network, images: Images, options: Options, log: Log) -> Objective:
    """Take the targets from content and style images; returns the function to minimise."""
    objective = engine.objective(net, images.content.shape[2], images.content.shape[3], options)
    log("Capturing content targets\t")
    for line in str(net).split("\n"):
        log(line)
    objective.capture(images.content, content=True)
    for number, (style, weight) in enumerate(zip(images.styles, blend_weights(options), strict=True), 1):
        log(f"Capturing style target {number}\t")
        engine.objective(net, style.shape[2], style.shape[3], options).capture(
            style, content=False, blend_weight=weight
        )
    return objective


def initial_image(options: Options, images: Images) -> Tensor:
    """Where the optimisation starts, (1, 3, H, W): noise of deviation 0.001 in Caffe units, or an image."""
    generator = Generator(options.seed if options.seed >= 0 else None)
    if options.init == "image":
        return (images.content if images.init is None else images.init).clone()
    noise = generator.randn(*images.content.shape[1:]).astype(np.float32)
    return torch.from_numpy(noise).mul_(0.001).unsqueeze(0)


# ---- the optimisation


class _Run:
    """The optimisation's state: feval is called by the optimiser, prints, saves, and remembers."""

    def __init__(
        self,
        options: Options,
        objective: Objective,
        start: Tensor,
        images: Images,
        log: Log,
        on_progress: Callable[[Progress], None] | None,
        save: bool,
    ) -> None:
        self.options, self.objective, self.x, self.colors = options, objective, start, images.colors
        self.log, self.on_progress, self.save = log, on_progress, save
        self.calls = 0
        self.losses: list[Losses] = []
        self.evaluated = start  # the image of the last evaluation whose losses were finite
        self.began = time.monotonic()

    def optimise(self) -> Result:
        options = self.options
        try:
            if options.optimizer == "lbfgs":
                self.log("Running optimization with L-BFGS\t")
                correction = options.lbfgs_num_correction
                optim.lbfgs(
                    self.feval,
                    self.x,
                    max_iter=options.num_iterations,
                    tol_fun=-1,
                    tol_x=-1,
                    n_correction=int(correction) if correction > 0 else 100,
                    log=self.log,
                )
            else:
                self.log("Running optimization with ADAM\t")
                state = optim.AdamState()
                while state.t + 1 <= options.num_iterations:
                    optim.adam(self.feval, self.x, state, learning_rate=options.learning_rate)
        except KeyboardInterrupt:
            if not (self.save and self.losses):
                raise
            raise Interrupted(self.save_evaluated()) from None
        return Result(self.picture(), self.losses)

    def feval(self, x: Tensor) -> tuple[float, Tensor]:
        """The total loss and its gradient at x, flat; prints and saves what is due at this iteration."""
        content, style, grad = self.objective(x)
        losses = Losses(tuple(content), tuple(style), sum(content) + sum(style))
        self.calls += 1
        self.print_losses(losses)
        if not math.isfinite(losses.total):
            self.give_up()
        self.evaluated = x.clone()
        self.losses.append(losses)
        self.save_if_due()
        if self.on_progress is not None:
            seconds = time.monotonic() - self.began
            self.on_progress(Progress(self.calls, self.options.num_iterations, losses, seconds))
        return losses.total, grad.view(-1)

    def print_losses(self, losses: Losses) -> None:
        every = self.options.print_iter
        if not (every > 0 and self.calls % every == 0):
            return
        self.log(f"Iteration {self.calls} / {_lua_integer(self.options.num_iterations)}\t")
        for kind, values in (("Content", losses.content), ("Style", losses.style)):
            for number, value in enumerate(values, 1):
                self.log(f"  {kind} {number} loss: {value:f}\t")
        self.log(f"  Total loss: {losses.total:f}\t")

    def save_if_due(self) -> None:
        options, every = self.options, self.options.save_iter
        last = self.calls == options.num_iterations
        if self.save and (last or (every > 0 and self.calls % every == 0)):
            name = options.output_image if last else build_filename(options.output_image, self.calls)
            torch_image.save(name, self.picture())

    def save_evaluated(self) -> str:
        """Write the image of the last good evaluation under its intermediate name, which is returned."""
        name = build_filename(self.options.output_image, len(self.losses))
        torch_image.save(name, self.picture())
        return name

    def picture(self) -> Array:
        """The image of the last good evaluation as RGB, (3, H, W), with the content's colours where asked for."""
        image = pixels.deprocess(self.evaluated[0].cpu().numpy())
        return image if self.colors is None else pixels.original_colors(self.colors, image)

    def give_up(self) -> None:
        saved = ""
        if self.save and self.losses:
            saved = f" The image of iteration {len(self.losses)} is in {self.save_evaluated()}."
        raise DivergenceError(
            f"the loss is not finite any more at iteration {self.calls}.{saved} Likely causes: a weight or a"
            " -learning_rate that is far too large, or, with L-BFGS, a step that went astray: try smaller weights,"
            " -optimizer adam, or another -seed"
        )


def build_filename(output_image: str, iteration: int) -> str:
    """The name of an intermediate image: out.png -> ./out_100.png (neural_style.lua, build_filename).

    With the functions of `paths` that it called: the extension is what follows the last dot of the whole path, "nil" where
    there is none, and only then is it taken off the name if it is not empty.
    """
    directory, slash, base = output_image.rpartition("/")
    extension = output_image.rpartition(".")[2] if "." in output_image else "nil"
    stem = base.removesuffix(f".{extension}") if extension else base
    return f"{directory or slash or '.'}/{stem}_{iteration}.{extension}"


def _lua_integer(number: float) -> int:
    """A double as Lua's %d prints it: truncated, and C's smallest integer for what does not fit."""
    return int(number) if abs(number) < 2**63 else -(2**63)
