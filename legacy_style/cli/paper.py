"""`python -m legacy_style.paper`: figures 1 and 3 of the paper, each as one sheet of labelled images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from PIL import Image

from legacy_style.cli import arguments, process
from legacy_style.cli import paper_sheet as sheet_of_cells
from legacy_style.cli.paper_sheet import Cell, save
from legacy_style.cli.watching import Show, shown
from legacy_style.errors import OptionError
from legacy_style.programs.athalye import images as athalye_images
from legacy_style.programs.progress import WorkDone
from legacy_style.torch7 import image_files

if TYPE_CHECKING:
    from legacy_style.engine.loadcaffe import Module

NAME = "python -m legacy_style.paper"

_TITLES = {"reconstruct": "Figure 1: what layers know of an image", "matrix": "Figure 3: layers and ratios"}

# What a continuation of a run may have otherwise, or of which there are digests.
_FREE = {
    *("output", "network", "content", "style", "checkpoint", "resume", "print_plan", "tile", "seed"),
    *("watch", "plot"),
}

# More than any use, and far enough below the end of float32.
_LARGEST_RATIO = 1e20


def main(words: Sequence[str] | None = None) -> int:
    """Run `words`, or the process's own; returns the exit status."""
    return process.run_argparse(
        _program, words, NAME, output="--output", memory_advice="choose a smaller --image-size"
    )


def parser(*, ours: bool = True) -> argparse.ArgumentParser:
    """The two commands; images and numbers may also be named as neural_style.lua names them.

    Without `ours`, what it had before there were tiles and checkpoints.
    """
    result = arguments.Parser(
        prog=NAME,
        description="Gatys, Ecker, Bethge, A Neural Algorithm of Artistic Style (2015): its experiments.",
    )
    commands = result.add_subparsers(dest="command", required=True)
    reconstruct = commands.add_parser(
        "reconstruct",
        help="figure 1: what single layers know of an image, and growing sets of layers of a style",
    )
    reconstruct.add_argument(
        "--content-from",
        nargs="+",
        metavar="LAYER",
        help="layers to rebuild the content from (default conv1_1 … conv5_1)",
    )
    matrix = commands.add_parser(
        "matrix", help="figure 3: growing sets of style layers (rows) at growing alpha/beta (columns)"
    )
    matrix.add_argument(
        "--content-layer", default="conv4_2", help="the content's layer (default %(default)s)"
    )
    matrix.add_argument(
        "--ratios",
        nargs="+",
        type=float,
        help="alpha/beta of the columns (default 1e-5 … 1e-2)",
    )
    for command in (reconstruct, matrix):
        needed = command is matrix
        command.add_argument("--content", "-content_image", required=needed, help="the content image")
        command.add_argument("--style", "-style_image", required=needed, help="the style image")
        command.add_argument(
            "--style-up-to",
            default="conv5_1",
            metavar="LAYER",
            help="the deepest style layer (default %(default)s)",
        )
        command.add_argument("--output", "-output_image", default="paper.png", help="default %(default)s")
        command.add_argument("--network", "-model_file", help="the network (default: the bundled VGG-16)")
        command.add_argument(
            "--exif-rotate", action="store_true", help="turn photographs upright as EXIF says"
        )
        for names, default, text in (
            (("--image-size", "-image_size"), 224, "longer side of each image"),
            (("--iterations", "-num_iterations"), 200, "iterations of L-BFGS for each image"),
            (("--seed", "-seed"), None, "repeats the noise"),
        ):
            command.add_argument(
                *names, type=int, default=default, help=f"{text} (default {default or 'another each time'})"
            )
        if ours:
            arguments.add_run_options(command, "after each image that is finished")
    return result


def _program(words: Sequence[str], interrupts: process.Interrupts) -> int:
    known = parser()
    older = arguments.names(parser(ours=False))
    options = known.parse_args(list(arguments.expand(words, older, arguments.names(known))))
    athalye_images.check_can_save(options.output)
    if options.image_size < 1 or options.iterations < 1:
        raise OptionError("--image-size and --iterations must be at least 1")
    if not all(0 <= ratio <= _LARGEST_RATIO for ratio in getattr(options, "ratios", None) or ()):
        raise OptionError(f"--ratios must be numbers from 0 to {_LARGEST_RATIO:g}")
    if options.content is None and options.style is None:
        raise OptionError("give --content, --style or both")

    for image in (options.content, options.style):
        if image is not None:
            image_files.check(image)

    from legacy_style.engine import checkpoint, loadcaffe, machine
    from legacy_style.formats import model_files

    interrupts.check()
    machine.keep_freed_memory()
    if options.checkpoint:
        checkpoint.check_can_write(options.checkpoint)
    model = str(options.network or model_files.bundled())
    chain, _ = loadcaffe.modules(model_files.load(model))
    cells = _reconstruct(options) if options.command == "reconstruct" else _matrix(options)
    _check_layers(cells, [module.name for module in chain])
    if options.print_plan:
        from legacy_style.programs.paper.experiments import largest, plans

        terms = [cell.terms for cell in cells if cell.terms]
        print(largest(plans(chain, terms, _images(options)[2], options.tile)))
        return 0
    done: list[Cell] = []
    with shown(options.watch, options.plot, interrupts, partial(process.say, NAME)) as show:
        show.begin(_TITLES[options.command])
        try:
            for cell in _painted(cells, chain, model, options, show, interrupts):
                done.append(cell)
                interrupts.check()
        except KeyboardInterrupt:
            if any(cell.terms is not None for cell in done):
                save(options.output, done)
                interrupts.saved = options.output
            raise
        save(options.output, done)
        show.end(f"The sheet is {options.output}")
    return 0


def _images(
    options: argparse.Namespace,
) -> tuple[Image.Image | None, Image.Image | None, tuple[int, int]]:
    """Content and style, where there are any, and their common width and height."""
    from legacy_style.programs.paper import experiments as paper

    def load(path: str, size: int | tuple[int, int]) -> Image.Image:
        return paper.load(path, size, exif_rotate=options.exif_rotate, notice=partial(process.say, NAME))

    content = None if options.content is None else load(options.content, options.image_size)
    style = None
    if options.style is not None:
        style = load(options.style, options.image_size if content is None else content.size)
    first = content or style
    assert first is not None
    return content, style, first.size


def _painted(
    cells: Sequence[Cell],
    chain: Sequence[Module],
    model: str,
    options: argparse.Namespace,
    show: Show,
    interrupts: process.Interrupts,
) -> Iterator[Cell]:
    """The cells with their images, each as soon as it is there; the state of the sheet is kept after each.

    An image that was stopped is the last one, and not kept in the state.
    """
    from legacy_style.engine import memory
    from legacy_style.programs.paper import experiments as paper
    from legacy_style.programs.paper.state import Sheet

    content, style, size = _images(options)
    wanted = [cell.terms for cell in cells if cell.terms]
    inputs = [paper.to_network(image) for image in (content, style) if image is not None]
    values = {name.replace("_", "-"): value for name, value in vars(options).items() if name not in _FREE}
    sheet = Sheet(
        {name: str(value) if isinstance(value, list) else value for name, value in values.items()},
        model,
        inputs,
        lambda: paper.white_noise(size, options.seed),
        tile=options.tile,
        keep=options.checkpoint,
        resume=options.resume,
    )
    tile = memory.choose_tile(
        lambda: paper.largest(paper.plans(chain, wanted, size, sheet.tile)),
        sheet.tile,
        partial(process.say, NAME),
        options.resume or "",
    )
    sheet.tile = tile
    works = [each.flops for each in paper.plans(chain, wanted, size, tile)]
    finished = iter(sheet.pictures)
    most, numbers, done = paper.most_evaluations(options.iterations), count(), list[Cell]()

    def work(number: int, share: float) -> WorkDone:
        return WorkDone((number,), sum(works[:number]) + share * works[number], sum(works))

    for cell in cells:
        if cell.terms is None:
            done.append(cell._replace(image=content if cell.label == "content" else style))
            yield done[-1]
            continue
        number = next(numbers)
        x = next(finished, None)
        if x is not None:
            for evaluation, loss in enumerate(sheet.losses[number][0], 1):
                show.remember(evaluation, {cell.label: loss})
        else:
            objective = paper.build(
                chain,
                cell.terms,
                paper.to_network(content) if content is not None and cell.terms.content else None,
                paper.to_network(style) if style is not None and cell.terms.style else None,
                tile=tile,
            )
            original = content if content is not None and cell.terms.content else style

            follow = sheet_of_cells.followed(
                show,
                interrupts,
                partial(work, number),
                most,
                cell,
                done,
                original,
                options.output,
            )
            found = paper.minimise(objective, sheet.noise, options.iterations, follow)
            x, losses = found.image, found.losses
            ended = ", stopped" if found.stopped else ""
            print(f"{cell.label}: loss {losses[0]:.4g} to {min(losses):.4g}{ended}", flush=True)
            if found.stopped:
                yield cell._replace(image=paper.to_image(x))
                return
            sheet.add(x, losses)
        done.append(cell._replace(image=paper.to_image(x)))
        yield done[-1]


def _reconstruct(options: argparse.Namespace) -> list[Cell]:
    """Figure 1: a row for the content, one for the style; the original, then a to e."""
    from legacy_style.programs.paper.experiments import LAYERS, Terms, up_to

    cells: list[Cell] = []
    if options.content is not None:
        names = [name for word in options.content_from or LAYERS for name in word.split(",") if name]
        cells.append(Cell(0, 0, "content", None))
        cells += [
            Cell(0, i + 1, f"{_letter(i)}  {layer}", Terms(content=(layer,))) for i, layer in enumerate(names)
        ]
    elif options.content_from is not None:
        raise OptionError("--content-from needs --content, the image to rebuild")
    if options.style is not None:
        row = 1 if cells else 0
        cells.append(Cell(row, 0, "style", None))
        for i, layers in enumerate(up_to(options.style_up_to)):
            label = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1].removeprefix('conv')}"
            cells.append(Cell(row, i + 1, f"{_letter(i)}  {label}", Terms(style=layers)))
    return cells


def _matrix(options: argparse.Namespace) -> list[Cell]:
    """Figure 3: its letters are A to E for the rows."""
    from legacy_style.programs.paper.experiments import RATIOS, Terms, up_to

    cells = [Cell(0, 0, "content", None), Cell(0, 1, "style", None)]
    for row, layers in enumerate(up_to(options.style_up_to), 1):
        for column, ratio in enumerate(options.ratios or RATIOS):
            label = f"{_letter(row - 1).upper()}  {layers[-1]}, alpha/beta {ratio:g}"
            cells.append(Cell(row, column, label, Terms((options.content_layer,), layers, alpha=ratio)))
    return cells


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26)


def _check_layers(cells: Sequence[Cell], names: Sequence[str]) -> None:
    from legacy_style.programs.paper.experiments import rectified

    for cell in cells:
        for layer in (*cell.terms.content, *cell.terms.style) if cell.terms else ():
            if not layer.startswith("conv") or rectified(layer) not in names:
                known = [name for name in names if name.startswith("conv")]
                raise OptionError(f"{layer!r} is no layer to rebuild from; there are {', '.join(known)}")
