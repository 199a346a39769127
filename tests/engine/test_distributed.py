"""legacy_style.engine.processes: several processes do what one does alone, and end together.

What one process does is the reference; that it is right is for the other tests to say.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from processes import DIED, environment, together
from recordings import SHIPPED

from legacy_style.engine import checkpoint
from legacy_style.engine.losses import ContentLoss, StyleLoss, TVLoss
from legacy_style.engine.network import Network, place
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimisers import Adam
from legacy_style.engine.processes import parts
from legacy_style.engine.processes.group import Ranks, joined, read_together
from legacy_style.engine.processes.vector_free import VectorFreeRecursion
from legacy_style.errors import LegacyStyleError, OptionError, RankError
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import read
from legacy_style.programs.neural_style.story import stylize
from legacy_style.torch7 import nn, optim
from legacy_style.torch7.random import Generator

CHECKOUT = Path(__file__).parents[2]
MODEL = SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel"
SIZES = pytest.mark.parametrize("size", [2, 3, 4])

SUMS = 1e-11
"""Relative: sums of some thousand float64 numbers in another order."""


# ---- one evaluation, in float64


def convolution(generator, inside, out, kernel=3, stride=1, pad=1):
    scale = (2 / (inside * kernel**2)) ** 0.5
    weight = torch.randn(out, inside, kernel, kernel, generator=generator, dtype=torch.float64) * scale
    bias = torch.randn(out, generator=generator, dtype=torch.float64) / 10
    return nn.SpatialConvolution("", weight, bias, stride=(stride, stride), pad=(pad, pad))


def like_vgg(normalize):
    """Losses before and behind ReLUs, on convolutions and pooling; average pooling drops windows that are not full."""
    random = torch.Generator().manual_seed(3)
    return [
        *(convolution(random, 3, 6), StyleLoss("s1", 1.0, normalize), nn.ReLU()),
        *(convolution(random, 6, 6), nn.ReLU(), StyleLoss("s2", 2.0, normalize)),
        *(nn.SpatialMaxPooling("", (2, 2), (2, 2)), convolution(random, 6, 8), nn.ReLU()),
        *(ContentLoss("c3", 5.0, normalize), nn.SpatialAveragePooling("", (2, 2), (2, 2), ceil=False)),
        *(convolution(random, 8, 8), nn.ReLU(), nn.SpatialMaxPooling("", (2, 2), (2, 2))),
        *(ContentLoss("c4", 2.0, normalize), StyleLoss("s5", 1.0, normalize)),
    ]


def like_caffenet(normalize):
    """Large unpadded kernels, so that the last part of an image owns nothing of the deepest feature maps."""
    random = torch.Generator().manual_seed(4)
    return [
        *(convolution(random, 3, 6, 11, 4, 0), nn.ReLU(), StyleLoss("s6", 1.0, normalize)),
        *(nn.SpatialMaxPooling("", (3, 3), (2, 2)), convolution(random, 6, 8, 5, 1, 0), nn.ReLU()),
        *(StyleLoss("s7", 1.0, normalize), ContentLoss("c8", 1.0, normalize)),
    ]


def build(architecture, normalize):
    net = Network(architecture(normalize), [TVLoss("tv", 0.01)])
    net.dtype = torch.float64
    place(net, [torch.device("cpu")])
    return net


def draw(sizes):
    """Content, x, and two style images of other sizes."""
    random = torch.Generator().manual_seed(1)
    (h, w), (style_h, style_w) = sizes
    shapes = ((h, w), (h, w), (style_h, style_w), (style_h + 7, style_w - 3))
    return [60 * torch.randn(1, 3, *shape, generator=random, dtype=torch.float64) for shape in shapes]


def evaluate(make, images):
    """Losses and gradient of the objective that `make` makes for an image of (height, width)."""
    content, x, *styles = images
    objective = make(*content.shape[2:])
    net = objective.network
    objective.capture(content, net.losses_from("content"))
    for style in styles:
        for loss in net.losses_from("style"):
            loss.blend_weight = 0.5
        make(*style.shape[2:]).capture(style, net.losses_from("style"))
    return objective, objective(x)


def evaluate_a_part(architecture, normalize, sizes, side):
    with torch.no_grad(), joined() as ranks:
        net = build(architecture, normalize)
        content, x, *styles = draw(sizes)
        parts.check(net, *sizes[0], ranks)
        objective = parts.objective(net, *sizes[0], side, ranks)
        if ranks.rank > 0:
            content, x, *styles = (torch.empty_like(each, device="meta") for each in (content, x, *styles))
        images = [content, objective.part.scatter(x, halo=False), *styles]
        _, (values, grad) = evaluate(
            lambda h, w: parts.objective(net, h, w, side, ranks) if (h, w) != sizes[0] else objective, images
        )
        return values, objective.gather(grad).numpy(), objective.part.layout.owned


@SIZES
@pytest.mark.parametrize(
    ("architecture", "normalize", "sizes", "side"),
    [
        (like_vgg, False, ((61, 45), (33, 70)), 0),
        (like_vgg, True, ((61, 85), (13, 20)), 16),  # a style image of two parts, and one of one
        (like_caffenet, True, ((131, 83), (60, 70)), 0),
        (like_caffenet, False, ((91, 133), (73, 64)), 32),
    ],
)
def test_losses_and_gradient_are_those_of_one_process(size, architecture, normalize, sizes, side):
    with torch.no_grad():
        net = build(architecture, normalize)
        _, (expected, grad) = evaluate(lambda h, w: Objective(net), draw(sizes))
    answers = together(size, evaluate_a_part, architecture, normalize, sizes, side)
    for values, _, owned in answers:
        assert values == answers[0][0], "not the same bits in all processes"
        assert len(owned) == size
    values, ours, _ = answers[0]
    assert values == {name: pytest.approx(value, rel=SUMS) for name, value in expected.items()}
    np.testing.assert_allclose(ours, grad.numpy(), rtol=0, atol=SUMS * np.abs(grad.numpy()).max())


# ---- who owns what


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 12])
@pytest.mark.parametrize(("height", "width"), [(97, 61), (33, 240), (64, 64)])
def test_parts_cover_the_image_once_and_hold_what_their_tiles_need(size, height, width):
    net = build(like_vgg, False)
    layout = parts.partition(net, height, width, size)
    count = np.zeros((height, width), int)
    for number, ((top, bottom), (left, right)) in enumerate(layout.owned):
        count[top:bottom, left:right] += 1
        for tile in parts.own_tiles(net, layout, number, 16):
            for axis, held in zip((tile.vertical, tile.horizontal), layout.held[number], strict=True):
                assert held[0] <= axis.held[0] and axis.held[1] <= held[1]
    assert (count == 1).all()
    assert len(layout.owned) == size


def test_parts_are_the_shape_that_holds_the_least():
    net = build(like_vgg, False)
    assert {top for (top, _), _ in parts.partition(net, 64, 64, 4).owned} == {0, 32}
    assert [columns for _, columns in parts.partition(net, 240, 33, 4).owned] == [(0, 33)] * 4
    assert [rows for rows, _ in parts.partition(net, 33, 240, 4).owned] == [(0, 33)] * 4


def test_a_thousand_parts_of_a_gigapixel_are_found_at_once_and_hold_little_twice():
    net = build(like_vgg, False)
    began = time.monotonic()
    layout = parts.partition(net, 31623, 31623, 1000)
    assert time.monotonic() - began < 20
    owned, held = (
        max((rows[1] - rows[0]) * (columns[1] - columns[0]) for rows, columns in rectangles)
        for rectangles in (layout.owned, layout.held)
    )
    assert len(layout.owned) == 1000
    assert owned < 1.03e6 and held < 1.1 * owned


# ---- the start image


def start_of(seed, height, width, entropy):
    with joined() as ranks, mock.patch("os.urandom", return_value=bytes([ranks.rank + entropy, 0, 0, 0])):
        net = build(like_vgg, False)
        part = parts.Part(ranks, parts.partition(net, height, width, ranks.size))
        return part.gather(part.noise(seed)).numpy()


@SIZES
@pytest.mark.parametrize("seed", [7, -1])
def test_the_start_image_is_the_one_that_one_process_draws(size, seed):
    whole = together(size, start_of, seed, 37, 51, 5)[0]
    drawn = Generator(7 if seed == 7 else 5).randn(3, 37, 51).astype(np.float32)
    np.testing.assert_array_equal(whole[0], drawn)


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("skipped", range(5))
def test_skipped_normals_are_passed_over(before, skipped):
    everything = Generator(5).randn(12)
    generator = Generator(5)
    np.testing.assert_array_equal(generator.randn(before), everything[:before])
    generator.skip(skipped)
    np.testing.assert_array_equal(generator.randn(4), everything[before + skipped :][:4])


# ---- L-BFGS


def well(x):
    """Sixteen quartic valleys across a quadratic bowl."""
    random = np.random.RandomState(0)
    across = torch.from_numpy(random.randn(16, x.numel())).to(x.dtype) / x.numel() ** 0.5
    bowl = torch.from_numpy(0.1 + random.rand(x.numel())).to(x.dtype)
    r = across @ x - 1
    return r.pow(4).sum().item() + (bowl * x * x).sum().item(), 4 * (across.T @ r**3) + 2 * bowl * x


def descend(recursion, n_correction, feval=well):
    x = torch.from_numpy(np.random.RandomState(1).randn(3000))
    values = optim.lbfgs(
        feval, x, max_iter=30, tol_fun=-1, tol_x=-1, n_correction=n_correction, recursion=recursion
    )
    return x.numpy(), values


@pytest.mark.parametrize("n_correction", [1, 5, 100])
def test_the_compact_recursion_is_the_two_loop_recursion(n_correction):
    x, values = descend(None, n_correction)
    ours, our_values = descend(VectorFreeRecursion(Ranks()), n_correction)
    np.testing.assert_allclose(our_values, values, rtol=1e-8)
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-8)
    assert values[-1] < values[0] / 100


def test_the_compact_recursion_does_without_pairs_that_are_not_kept():
    def flat(x):
        """Straight down: y.s is 0, so that no pair is kept."""
        return x.sum().item(), torch.ones_like(x)

    np.testing.assert_array_equal(
        descend(VectorFreeRecursion(Ranks()), 5, flat)[0], descend(None, 5, flat)[0]
    )


def descend_together():
    with joined() as ranks:
        own = slice(1000 * ranks.rank, 1000 * (ranks.rank + 1))

        def feval(x):
            whole = torch.zeros(3000, dtype=x.dtype)
            whole[own] = x
            (whole,) = ranks.all_reduce([whole])
            f, g = well(whole)
            return f, g[own]

        x = torch.from_numpy(np.random.RandomState(1).randn(3000))[own]
        optim.lbfgs(
            feval,
            x,
            max_iter=30,
            tol_fun=-1,
            tol_x=-1,
            total=ranks.all_reduce_numbers,
            recursion=VectorFreeRecursion(ranks),
        )
        return x.numpy()


def test_lbfgs_of_a_vector_in_three_processes():
    np.testing.assert_allclose(
        np.concatenate(together(3, descend_together)), descend(None, 100)[0], rtol=0, atol=1e-8
    )


# ---- whole runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Waves in three colours: a content image of 72x54, and two style images."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (width, height) in enumerate([(72, 54), (60, 41), (33, 64)]):
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / (3 + number) + phase) * np.cos(y / (5 + phase)) for phase in range(3)]
        Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(folder / f"{number}.png")
    return folder


def options(pictures, output, **more):
    given = {
        "content_image": str(pictures / "0.png"),
        "style_image": f"{pictures / '1.png'},{pictures / '2.png'}",
        "style_blend_weights": "2,1",
        "output_image": str(output),
        "model_file": str(MODEL),
        "gpu": "-1",
        "image_size": 72.0,
        "num_iterations": 6.0,
        "print_iter": 1.0,
        "save_iter": 3.0,
        "seed": 5.0,
        "pooling": "avg",  # under max pooling, noise makes every rounding a step of its own
        **more,
    }
    return Options(**given)


def run(given, stop=0):
    """stylize in this process: its result and its lines; broken off after `stop` evaluations."""
    lines = []

    def on_progress(progress):
        if progress.iteration == stop:
            raise OSError(28, "as if the disk were full")

    result = stylize(given, log=lines.append, notice=lines.append, on_progress=on_progress)
    return result.image, [(*each.content, *each.style, each.total) for each in result.losses], lines


@pytest.mark.parametrize(
    ("size", "more"),
    [
        (2, {"optimizer": "adam", "normalize_gradients": True, "init": "image", "tv_weight": 0.1}),
        (2, {"style_scale": 0.5, "tile": 32}),
        (3, {"original_colors": 1.0}),
        (3, {"optimizer": "adam", "content_layers": "relu2_2,conv3_1", "style_layers": "pool1,relu2_1"}),
        (4, {"lbfgs_num_correction": 3.0}),
        (4, {"content_layers": "", "style_layers": "conv1_1,relu4_1", "tv_weight": 0.0}),
    ],
    ids=str,
)
def test_a_run_of_several_processes_is_the_run_of_one(pictures, tmp_path, size, more):
    image, losses, lines = run(options(pictures, tmp_path / "one.png", **more))
    answers = together(size, run, options(pictures, tmp_path / "several.png", **more))
    shared, shared_losses, shared_lines = answers[0]
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-5)
    # Adam divides by the size of gradients that are next to nothing, where a rounding counts.
    assert np.abs(shared - image).mean() < 1e-6 and np.abs(shared - image).max() < 2e-3
    assert [re.sub(r"\S+\t$", "", line) for line in shared_lines] == [
        re.sub(r"\S+\t$", "", line) for line in lines
    ]
    assert [answer[2] for answer in answers[1:]] == [[]] * (size - 1), "only the first process speaks"
    for name in ("_3.png", ".png"):
        ours, theirs = (np.int16(Image.open(tmp_path / f"{which}{name}")) for which in ("several", "one"))
        assert np.abs(ours - theirs).max() <= 1
    assert len(list(tmp_path.iterdir())) == 4


def test_a_checkpoint_of_several_processes_goes_on_bit_for_bit(pictures, tmp_path):
    file = str(tmp_path / "state")
    whole = together(2, run, options(pictures, tmp_path / "whole.png"))
    given = options(pictures, tmp_path / "broken.png", checkpoint=file)
    assert together(2, ending, run, given, 5)[0][0] == "OSError"
    assert sorted(path.name for path in tmp_path.glob("state*")) == ["state.0of2", "state.1of2"]
    resumed = together(2, run, options(pictures, tmp_path / "broken.png", resume=file))
    for (image, losses, _), (same_image, same_losses, _) in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(image, same_image)
        assert losses == same_losses


def ending(function, *arguments):
    """The kind and text of the error that `function` ends with in this process."""
    try:
        function(*arguments)
    except BaseException as error:
        return type(error).__name__, str(error)
    return "", ""


def read_part(path, written):
    """Write these parts of a checkpoint, by rank; the iteration of the one that is then read."""
    with joined() as ranks:
        for suffix, calls in written[ranks.rank].items():
            name = f"{path}.{ranks.rank}of{ranks.size}{suffix}"
            content = {"options": {}, "inputs": {}, "x": torch.zeros(1, 3, 2, 2), "calls": calls}
            losses = [((1.0,), (2.0,), 3.0, ())] * calls
            checkpoint.write(name, {**content, "losses": losses, "optimizer": Adam(5, 1.0).pack()})
        return read_together(ranks, f"{path}.{ranks.rank}of{ranks.size}")["calls"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([{"": 2, ".new": 4}, {"": 2}], 2),  # killed while some were still writing
        ([{"": 4}, {"": 2, ".new": 4}], 4),  # killed while some were still renaming
        ([{".new": 4}, {".new": 4}], 4),
        ([{"": 2, ".new": 1}, {"": 2}], 2),  # left by a run before
    ],
)
def test_the_latest_checkpoint_that_all_processes_have_is_read(tmp_path, written, read):
    assert together(2, read_part, tmp_path / "state", written) == [read, read]


def test_parts_of_different_checkpoints_are_refused(tmp_path):
    kind, text = max(together(2, ending, read_part, tmp_path / "state", [{"": 2}, {"": 4}]))
    assert kind == "OptionError" and "its parts are not of one run: this one is of iteration 4" in text


# ---- how it ends


def lose(rank, how):
    """A process dies, hangs, or is told to end, while the others wait for it."""
    with mock.patch.dict(os.environ, LEGACY_STYLE_TIMEOUT="4"), joined() as ranks:
        ranks.all_reduce([torch.ones(3)])
        if ranks.rank == rank:
            if how == "hang":
                time.sleep(8)
            elif how == "interrupt":
                raise KeyboardInterrupt
            else:
                os.kill(os.getpid(), how)
        ranks.all_reduce([torch.ones(3)])
        ranks.barrier()


@pytest.mark.parametrize(
    ("size", "rank", "how"), [(2, 0, signal.SIGKILL), (4, 2, signal.SIGKILL), (3, 1, "hang")]
)
def test_where_a_process_dies_or_hangs_every_other_one_says_so(size, rank, how):
    answers = together(size, ending, lose, rank, how)
    others = [answer for number, answer in enumerate(answers) if number != rank]
    assert {kind for kind, _ in others} == {"RankError"}
    assert answers[rank] == DIED or how == "hang"
    for _, text in others:
        assert text.startswith("a connection between the processes of this run broke (")
        assert "LEGACY_STYLE_TIMEOUT=8" in text


def test_an_interrupt_of_one_process_ends_all():
    answers = together(3, ending, lose, 1, "interrupt")
    assert [kind for kind, _ in answers] == ["RankError", "KeyboardInterrupt", "RankError"]


def raise_everywhere():
    with joined() as ranks:
        ranks.barrier()
        raise LegacyStyleError(f"process {ranks.rank}")


def test_every_process_has_its_own_error():
    assert together(3, ending, raise_everywhere) == [("LegacyStyleError", f"process {n}") for n in range(3)]


def torchrun(size, *words, **keywords):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size)]
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "-m", "legacy_style", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        **keywords,
    )


def words(given):
    names = (
        "content_image",
        "style_image",
        "output_image",
        "model_file",
        "gpu",
        "image_size",
        "seed",
        "pooling",
    )
    names += ("num_iterations", "print_iter", "save_iter")
    return [word for name in names for word in (f"-{name}", str(getattr(given, name)).removesuffix(".0"))]


def test_under_torchrun_a_killed_process_ends_the_run_in_seconds(pictures, tmp_path):
    given = options(pictures, tmp_path / "out.png", num_iterations=10000.0, save_iter=1.0)
    with torchrun(2, *words(given)) as program:
        for line in program.stdout:
            if line.startswith("Iteration 4 "):
                break
        (victim,) = (pid for pid in children(program.pid) if "RANK=1" in variables(pid))
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        _, stderr = program.communicate(timeout=60)
        assert time.monotonic() - began < 40
    assert program.returncode != 0
    (said,) = [line for line in stderr.splitlines() if line.startswith("neural_style: ")]
    assert said.startswith("neural_style: process 0: ")  # that a connection broke, or torchrun's SIGTERM
    saved = Path(re.search(r"; the last image that was saved is (\S+)\.png$", said)[1] + ".png")
    with Image.open(saved) as image:
        image.load()


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def variables(pid):
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


# ---- command lines that cannot be


@pytest.mark.parametrize(
    ("size", "more", "message"),
    [
        (
            4,
            {"image_size": 40.0},
            "an image of 40x30 cannot be cut for 4 processes: parts begin at multiples of 16",
        ),
        (2, {"multigpu_strategy": "3"}, "-multigpu_strategy splits the layers of one process"),
        (2, {"optimizer": "sgd"}, 'Unrecognized optimizer "sgd"'),
        (2, {"content_image": "nope.png"}, "nope.png: No such file"),
    ],
)
def test_what_cannot_be_shared_is_refused(pictures, tmp_path, size, more, message):
    answers = together(size, ending, stylize, options(pictures, tmp_path / "out.png", **more))
    found = [(kind, text) for kind, text in answers if kind != "RankError"]
    assert found and all(kind == "OptionError" and message in text for kind, text in found)


def test_layers_that_see_the_whole_image_are_refused():
    layers = [*like_vgg(False), nn.GlobalPooling("pool", maximum=True), ContentLoss("deep", 1.0)]
    with pytest.raises(OptionError, match="layers that look at the whole image"):
        parts.check(Network(layers), 64, 64, Ranks(0, 2))


@pytest.mark.parametrize("seconds", ["0", "-3", "soon", "inf", "nan", ""])
def test_a_timeout_that_is_none_is_refused(monkeypatch, seconds):
    for name, value in environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEGACY_STYLE_TIMEOUT", seconds)
    with pytest.raises(OptionError, match=r"LEGACY_STYLE_TIMEOUT=.*is not a number of seconds"), joined():
        pass


def test_one_process_alone_needs_no_others(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with joined() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
    for name, value in environment(0, 1, 1).items():
        monkeypatch.setenv(name, value)
    with joined() as ranks:
        assert ranks.all_reduce_numbers([3.0]) == [3.0]
        assert ranks.broadcast([2.0]) == [2.0]
        assert ranks.minimum(1.0) == 1.0


def test_every_process_takes_the_gpu_of_its_number():
    ranks = Ranks(5, 8, 1, 4)
    assert read(Options(), ranks).gpus == (1,)
    assert read(Options(gpu="4,5,6,7"), ranks).gpus == (5,)
    assert read(Options(gpu="-1"), ranks).gpus == ()
    assert read(Options(gpu="0"), Ranks()).gpus == (0,)
    with pytest.raises(OptionError, match="-gpu 0,1 names 2 GPUs for 4 processes"):
        read(Options(gpu="0,1"), ranks)
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        pytest.raises(
            OptionError, match=r"-gpu 2 names one GPU for 4 processes on this machine; .* -gpu 0,1,2,3"
        ),
    ):
        read(Options(gpu="2"), ranks)


def test_every_process_has_files_of_its_own(tmp_path):
    state = str(tmp_path / "state")
    settings = read(Options(checkpoint=state, resume=state), Ranks(1, 2, 1, 2))
    assert settings.checkpoint == settings.resume == f"{state}.1of2"
    assert read(Options(checkpoint=state)).checkpoint == state


def test_a_process_that_never_comes_is_an_error(monkeypatch):
    for name, value in environment(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEGACY_STYLE_TIMEOUT", "1")
    with pytest.raises(RankError, match="a connection between the processes of this run broke"), joined():
        pass
