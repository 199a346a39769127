"""The whole way of a run on a GPU, on fake tensors: tests/pretended_card.py."""

from __future__ import annotations

import functools

import pytest
import torch
from pretended_card import CARD, OTHER, place, pretend

from legacy_style.engine import cards, graphs, memory, network, optimise
from legacy_style.engine.cards import Card
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.processes.group import Ranks
from legacy_style.engine.session import Session
from legacy_style.formats import model_files
from legacy_style.programs.artistic_video.temporal import TemporalLoss
from legacy_style.programs.athalye.losses import MeanTVLoss, SeparateStyleLoss
from legacy_style.programs.neural_style import building
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.region_losses import RegionContentLoss, RegionStyleLoss
from legacy_style.programs.neural_style.settings import read
from legacy_style.programs.paper.experiments import SummedContentLoss, SummedStyleLoss

CPU = torch.device("cpu")
PRECISIONS = {
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}
OPTIMIZERS = {"adam": lambda count: Adam(count, 1.0), "lbfgs": Lbfgs}
SHALLOW = {"content_layers": "relu2_2", "style_layers": "relu1_1,relu2_1,relu3_1"}


def quiet(line):
    pass


@functools.cache
def chain():
    return building.load_chain(settings(), quiet, quiet)


def settings(**options):
    return read(Options(model_file=str(model_files.bundled()), **options), save=False)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The first evaluation is plain, the second is recorded."""
    monkeypatch.setattr(optimise, "FLOAT32_EVALUATIONS", 1)
    monkeypatch.setattr(graphs, "WARM_UP", 1)


@pytest.fixture
def watch(monkeypatch):
    return pretend(monkeypatch)


def built(**options):
    """A network as neural_style.lua builds it; outside of a Watch, for it is read from a file."""
    return building.build_network(settings(**options), chain(), quiet)


def session(net, devices=(CARD,), splits=None, height=43, width=64, tile=0, styles=1, style=None):
    place(net, devices, splits)
    made = Session(net, tile=tile)
    made.set_content(image(height, width))
    made.set_styles([image(50, 40) if style is None else style] * styles)
    return made


def image(height=43, width=64):
    return torch.empty(1, 3, height, width)


def run(watch, made, optimizer, **more):
    """An optimisation; returns the launches between the last two reports."""
    notes = []
    watch.copies.clear()
    start = image(*made._size)
    made.run(start, optimizer, on_losses=lambda *_: notes.append(watch.launches), notice=pytest.fail, **more)
    return notes[-1] - notes[-2]


def copies_of(made, optimizer):
    """All that a run may copy between the computer and the GPU: the image, each evaluation's losses, the image."""
    height, width = made._size
    losses = len(made.net.losses) * 8
    slope = 8 * isinstance(optimizer, Lbfgs)
    evaluations = [
        (CARD, CPU, losses + slope * (number > 0)) for number in range(int(optimizer.num_iterations))
    ]
    size = 3 * height * width * 4
    return [(CPU, CARD, size), *evaluations, (CARD, CPU, size)]


@pytest.mark.parametrize(
    ("precision", "optimizer", "layers"),
    [("float32", "lbfgs", {}), ("tf32", "adam", SHALLOW), ("bfloat16", "lbfgs", SHALLOW)],
    ids=PRECISIONS,
)
def test_an_iteration_is_two_graphs_and_one_copy(precision, optimizer, layers, watch):
    dtype, tf32 = PRECISIONS[precision]
    net, chosen = built(**layers), OPTIMIZERS[optimizer](5)
    with watch:
        made = session(net)
        launches = run(watch, made, chosen, precision=dtype, tf32=tf32)
    assert (watch.wrong, len(watch.graphs)) == ([], 2)
    assert watch.copies == copies_of(made, chosen)
    # The gradient to its place, the losses to theirs, the image for its losses.
    assert launches <= 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_factors_are_what_the_precision_says(precision, watch):
    dtype, tf32 = PRECISIONS[precision]
    net = built()
    with watch:
        made = session(net)
        net.compute_in(dtype, tf32=tf32)
        watch.products.clear()
        watch.names.clear()
        made.objective(43, 64).launch(image().to(CARD))
    # Of eleven ReLUs, four are done by the poolings behind them, and where numbers are split, others with that.
    assert watch.names["aten.threshold_backward.grad_input"] == (1 if precision == "float32" else 7)
    widths = {64, 128, 256, 512}
    if precision == "float32":
        widths = {3 * width for width in widths}  # its factors are split in three
    seen = {
        (shapes[1][1], dtype, rounded) for name, shapes, dtype, rounded in watch.products if "conv" in name
    }
    assert seen == {(width, dtype, precision != "bfloat16") for width in widths}
    # The first layer's are float32, and of that nothing is rounded but what is split.
    (_, (_, (_, inputs), _), *first), *others = watch.products
    assert (inputs, first) == (27, [torch.float32, False])
    grams = {(dtype, rounded) for name, _, dtype, rounded in others[:-1] if "conv" not in name}
    mixed = precision == "bfloat16" and hasattr(torch.ops.aten.bmm, "dtype")
    assert grams == {(torch.bfloat16, False) if mixed else (torch.float32, True)}


VARIANTS = {
    "average pooling": {"pooling": "avg"},
    "normalised gradients": {"normalize_gradients": True},
    "no total variation": {"tv_weight": 0},
    "losses before the ReLU": {"content_layers": "conv2_2", "style_layers": "conv1_1,pool1,relu2_1,conv3_1"},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_other_networks_are_recorded_too(options, watch):
    net, chosen = built(**{**SHALLOW, **options}), Adam(3, 1.0)
    with watch:
        made = session(net, styles=2)
        run(watch, made, chosen, precision=torch.bfloat16)
    assert (watch.wrong, len(watch.graphs)) == ([], 2)
    assert watch.copies == copies_of(made, chosen)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_losses_of_other_programs_are_recorded_too(normalize, watch):
    regions, weights = (
        RegionStyleLoss("regions", 1.0, normalize),
        RegionContentLoss("weighted", 1.0, normalize),
    )
    behind = {
        "relu1_1": [SeparateStyleLoss("separate", 1.0), SummedStyleLoss("summed", 1.0)],
        "relu2_1": [regions, weights],
        "relu2_2": [SummedContentLoss("summed content", 1.0)],
    }
    net = network.build(chain(), behind, [MeanTVLoss("tv", 1.0)])
    with watch:
        for number, criterion in enumerate(("mse", "smoothl1")):
            target, known = torch.empty(3, 43, 64, device=CARD), torch.empty(1, 43, 64, device=CARD)
            more = {"strength": 1.0, "criterion": criterion, "normalize": normalize}
            net.image_losses.append(TemporalLoss(f"temporal {number}", target, known, **more))
        # The size of the maps there; `guide` looks at what the maps hold.
        regions.maps, weights.weights = torch.empty(2, 22, 32), torch.empty(22, 32)
        regions._boxes, regions._areas = [((0, 22), (3, 20)), ((0, 9), (0, 32))], [3.0, 4.0]
        made = session(net, height=43, width=64, style=image(), styles=2)
        run(watch, made, Adam(3, 1.0))
    assert (watch.wrong, len(watch.graphs)) == ([], 2)


def test_without_triton_all_is_the_same(monkeypatch):
    watch, net, chosen = pretend(monkeypatch, triton=False), built(**SHALLOW), Adam(2, 1.0)
    with watch:
        made = session(net)
        run(watch, made, chosen)
    assert (watch.wrong, len(watch.graphs)) == ([], 2)
    assert watch.copies == copies_of(made, chosen)
    assert not any("triton" in name for name in watch.names)


def test_of_tiles_the_steps_alone_are_recorded(watch):
    net, chosen = built(**SHALLOW), Adam(2, 1.0)
    with watch:
        made = session(net, width=90, tile=48)
        assert len(made.objective(43, 90).tiles) == 2
        run(watch, made, chosen)
    assert (watch.wrong, len(watch.graphs)) == ([], 1)
    assert watch.copies == copies_of(made, chosen)


@pytest.mark.parametrize(
    ("tile", "options", "splits"), [(0, {}, (6, 7, 9)), (48, {"normalize_gradients": True}, (9,))]
)
def test_of_two_gpus_maps_go_over_and_gradients_come_back(tile, options, splits, watch):
    # In front of a pooling, of a convolution, and between a layer and its loss.
    for split in splits:
        net = built(**{**SHALLOW, **options})
        with watch:
            made = session(net, [CARD, OTHER], [split], width=90, tile=tile)
            watch.copies.clear()
            made.evaluate(image(width=90))
        assert {layer.device for layer in net.layers} == {CARD, OTHER}
        large = {each[:2] for each in watch.copies if each[2] > 8 * len(net.losses)}
        assert large == {(CPU, CARD), (CARD, OTHER), (OTHER, CARD)}


class Alone(Ranks):
    """One of two processes, to whom nobody answers."""

    def __init__(self, rank):
        super().__init__(rank, 2, rank, 2)
        self.device = CARD

    def all_reduce(self, tensors):
        return tensors

    def send(self, tensor, to):
        assert tensor.device == CPU  # images, before a run

    def receive(self, tensor, source):
        return tensor

    def exchange(self, outgoing, incoming):
        for tensor in (*outgoing.values(), *incoming.values()):
            assert tensor.device == CARD and tensor.is_contiguous()
        assert outgoing and incoming


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_share_an_image_talk_from_gpu_to_gpu(rank, watch):
    net = built(**SHALLOW)
    with watch:
        place(net)
        made = Session(net, ranks=Alone(rank))
        made.set_content(image(120, 90))
        made.set_styles([image(100, 80)])
        watch.copies.clear()
        _, grad = made.evaluate(torch.empty(1, 3, 60, 90, device=CARD))
    assert (grad.shape, grad.device, watch.copies) == ((1, 3, 60, 90), CARD, [])


def test_with_the_optimiser_in_the_computers_memory_image_and_gradient_travel(watch):
    net, chosen = built(**SHALLOW), Adam(4, 1.0)
    with watch:
        made = session(net)
        notes = []
        made.optimisation(
            image(),
            chosen,
            optimise.Conditions(on_losses=lambda *_: notes.append(watch.copies.copy())),
            on_host=True,
        ).run()
    size = image().numel() * 4
    one = notes[2][len(notes[1]) :]
    assert [each for each in one if each[2] > 8 * 4] == [(CPU, CARD, size), (CARD, CPU, size)]
    assert watch.graphs == []


def test_what_else_is_run_with_the_same_network_is_recorded_anew(watch):
    net = built(**SHALLOW)
    with watch:
        made = session(net)
        run(watch, made, Adam(2, 1.0))
        made.set_content(image(61, 70))
        run(watch, made, Adam(2, 1.0))
    assert (watch.wrong, len(watch.graphs)) == ([], 4)


def test_a_loss_that_reads_the_gpu_is_told_of_and_not_recorded(watch):
    net, said = built(**SHALLOW), []
    accumulate = net.losses[0].accumulate
    net.losses[0].accumulate = lambda x, where: accumulate(x, where) or float(x.sum())
    with watch:
        session(net).run(image(), Adam(3, 1.0), notice=said.append)
    assert len(said) == 1 and "something in it waits for the GPU" in said[0]
    assert (watch.wrong, len(watch.graphs)) == ([], 1)  # the step


def planned_and_taken(watch, optimizer, height, width, *, tile=0, style=(341, 512), **options):
    """What the plan says of a run but for the workspaces, and what it takes; in bytes."""
    net = built(**options)
    with watch:
        place(net)
        made = Session(net, tile=tile)
        planned = memory.make(
            net,
            height,
            width,
            [style],
            tile=tile,
            vectors=optimizer.vectors,
            ways=[],
            resident=0,
            available=None,
            card=Card(watch.live, 10**15),
        )
        assert planned.tile == tile
        made.set_content(image(height, width))
        made.set_styles([image(*style)])
        run(watch, made, optimizer)
    return planned.peak - cards.WORKSPACES, watch.peak


@pytest.mark.parametrize(
    ("optimizer", "height", "width"),
    [("adam", 170, 256), ("lbfgs", 341, 512), ("adam", 682, 1024), ("adam", 1365, 2048)],
)
def test_a_run_takes_what_was_planned(optimizer, height, width, watch):
    planned, taken = planned_and_taken(watch, OPTIMIZERS[optimizer](4), height, width)
    assert taken <= planned <= 1.15 * taken


def test_a_run_in_tiles_takes_what_was_planned(watch):
    planned, taken = planned_and_taken(watch, Adam(4, 1.0), 512, 900, tile=512, **SHALLOW)
    # What takes most does so at different moments, and is added up all the same.
    assert taken <= planned <= 1.3 * taken
