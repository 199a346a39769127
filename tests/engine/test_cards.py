"""A GPU's memory, with a pretended one: what is planned for it, and what a run does where it is full all the same."""

from __future__ import annotations

import weakref

import pytest
import thin_networks as thin
import torch

from legacy_style.engine import cards, memory, optimisers
from legacy_style.engine.cards import Card
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimise import Conditions
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.session import Session
from legacy_style.errors import OptionError
from legacy_style.toolkit import turns

HELD = 200_000_000  # by the weights


@pytest.fixture(scope="module")
def net():
    return turns.build_network(None)


def plan(net, side, free, optimizer, host=10**12):
    return memory.make(
        net,
        side,
        side,
        [(512, 512)],
        tile=0,
        vectors=optimizer.vectors,
        ways=["a smaller -image_size"],
        resident=10**9,
        available=host,
        card=Card(HELD, free),
        may_move=True,
    )


def test_what_fits_stays_in_one_piece_and_the_plan_says_where(net):
    found = plan(net, 1024, 80 * 10**9, Lbfgs(1000))
    assert (found.tile, found.pairs_on_host) == (0, False)
    assert found.memory["the weights"] == HELD
    assert found.memory["L-BFGS's correction pairs"] == 200 * 3 * 1024**2 * 4
    assert "holes in the heap" not in found.memory
    assert "of 80.00 GB that are there on the GPU" in str(found)


def test_tiles_come_first_then_the_pairs_leave_the_gpu_then_small_tiles_come(net):
    pairs = 200 * 3 * 1024**2 * 4
    # With and without the pairs, in one piece and in tiles.
    whole, moved = (plan(net, 1024, free, Lbfgs(1000)) for free in (10**12, int(0.9 * pairs)))
    tiled = plan(net, 1024, int(0.95 * whole.peak), Lbfgs(1000))
    assert (whole.tile, whole.pairs_on_host) == (0, False)
    assert tiled.tile >= 512 and not tiled.pairs_on_host
    assert moved.pairs_on_host and moved.peak < 0.9 * pairs
    assert moved.memory["the image and its gradient"] == 3 * 3 * 1024**2 * 4


def test_pairs_that_the_computer_has_no_room_for_stay(net):
    free = int(0.9 * 200 * 3 * 1024**2 * 4)
    assert plan(net, 1024, free, Lbfgs(1000)).pairs_on_host
    with pytest.raises(OptionError, match="what makes it fit"):
        plan(net, 1024, free, Lbfgs(1000), host=2 * 10**9)


def test_what_fits_in_no_way_is_refused_with_the_ways(net):
    with pytest.raises(OptionError, match="what makes it fit: a smaller -image_size"):
        plan(net, 512, HELD, Adam(1000, 10))


def test_a_plan_for_a_gpu_asks_it(net, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: HELD)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * HELD)
    assert cards.card(torch.device("cuda")) == Card(HELD, 30 * 10**9 + 2 * HELD)


def test_what_is_chosen_is_told():
    said: list[str] = []

    def made(tile, on_host):
        return memory.Plan(1, 1, tile, 1, 1.0, 1.0, {}, None, True, on_host)

    assert memory.choose(lambda: made(512, True), 0, said.append) == made(512, True)
    assert said == [
        "The image is too large for one piece here: working in tiles of 512 pixels",
        "What the optimiser keeps does not fit onto the GPU: it is in this computer's memory, and slower",
    ]


def test_a_map_that_has_too_many_values_for_a_gpus_libraries_is_worked_in_tiles(net):
    side = int((2**31 / 64) ** 0.5)  # the largest maps have 64 channels
    assert plan(net, side, 10**12, Adam(1000, 10)).tile == 0
    assert plan(net, side + 1, 10**12, Adam(1000, 10)).tile > 0


def test_no_tile_has_too_many_values_either(net, monkeypatch):
    monkeypatch.setattr(memory, "_MOST_ON_CARD", 64 * 1000**2)
    assert plan(net, 1000, 10**12, Adam(1000, 10)).tile == 0
    assert plan(net, 3000, 10**12, Adam(1000, 10)).tile == 896


class Full:
    """A pretended GPU that has no room for images in one piece, from its evaluation `begin` on."""

    def __init__(self, monkeypatch, begin):
        self.count, self.begin = 0, begin
        for name in ("launch", "capture"):
            monkeypatch.setattr(Objective, name, self.wrap(getattr(Objective, name)))

    def wrap(self, method):
        def call(objective, *more):
            self.count += 1
            if self.count > self.begin and len(objective.tiles) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return method(objective, *more)

        return call


def session(monkeypatch):
    """A shallow network in float64, for images of 48x40 pixels in tiles of 32 or 16."""
    monkeypatch.setattr(memory, "_TILE_SIDES", (64, 32, 16))
    return Session(thin.build(thin.load("vgg19"), ["relu2_2"], ["relu1_1", "conv2_1"], dtype=torch.float64))


def run(made, optimizer, said):
    made.set_content(thin.smooth(48, 40, 1))
    made.set_styles([thin.smooth(50, 60, 2)])
    return made.run(thin.smooth(48, 40, 3), optimizer, notice=said.append)


@pytest.mark.parametrize(
    ("optimizer", "begin"),
    [
        (lambda: Adam(3, 5.0), 0),
        (lambda: Adam(3, 5.0), 1),
        (lambda: Lbfgs(6), 5),
        (lambda: Lbfgs(6, in_steps=True), 5),
    ],
    ids=["content", "style", "an evaluation", "an evaluation in steps"],
)
def test_a_gpu_that_is_full_is_worked_in_tiles_to_the_same_end(optimizer, begin, monkeypatch):
    expected, said = run(session(monkeypatch), optimizer(), []), list[str]()
    Full(monkeypatch, begin)
    ours = run(session(monkeypatch), optimizer(), said)
    assert len(ours.losses) == len(expected.losses) > 0
    for mine, right in zip(ours.losses, expected.losses, strict=True):
        assert mine.total == pytest.approx(right.total, rel=1e-6)
    assert said == (["The GPU's memory is full: going on in tiles of 32 pixels"] if begin == 5 else [])


def test_where_no_tile_is_small_enough_the_error_stands(monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    made, said = session(monkeypatch), list[str]()
    monkeypatch.setattr(Objective, "launch", never)
    with pytest.raises(torch.OutOfMemoryError):
        run(made, Adam(3, 5.0), said)
    assert said == [f"The GPU's memory is full: going on in tiles of {side} pixels" for side in (32, 16)]


@pytest.mark.parametrize("resumed", [False, True])
def test_where_pairs_have_no_room_they_are_kept_in_the_computers_memory(resumed, monkeypatch, tmp_path):
    expected, said = run(session(monkeypatch), Lbfgs(6), []), list[str]()
    saved = tmp_path / "state"
    state = Checkpoint(str(saved), lambda calls: calls == 3, {}, {})
    made = session(monkeypatch)
    made.set_content(thin.smooth(48, 40, 1))
    made.set_styles([thin.smooth(50, 60, 2)])
    made.run(thin.smooth(48, 40, 3), Lbfgs(6), checkpoint=state)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    # A GPU's way, until the image has left it.
    monkeypatch.setattr(optimisers, "_is_on_one_gpu", lambda x, ranks: not said)
    monkeypatch.setattr(optimisers, "LbfgsStep", full)
    with torch.no_grad():
        ours = made.optimisation(thin.smooth(48, 40, 3), Lbfgs(6), Conditions(notice=said.append))
        if resumed:
            ours.resume(str(saved), torch.load(saved, weights_only=True))  # float64
        finished = ours.run()
    assert finished.losses == expected.losses
    assert said == [memory.ON_HOST]


@pytest.mark.parametrize("kind", [Lbfgs, lambda count: Adam(count, 5.0)], ids=["L-BFGS", "Adam"])
def test_a_state_that_had_no_room_on_the_gpu_is_not_what_a_checkpoint_has(kind, monkeypatch, tmp_path):
    def checkpoints(name, due):
        return Checkpoint(str(tmp_path / name), lambda calls: calls == due, {}, {})

    def resumed(name, said):
        with torch.no_grad():
            conditions = Conditions(checkpoint=checkpoints(name, 6), notice=said.append)
            ours = made.optimisation(thin.smooth(48, 40, 3), kind(8), conditions)
            ours.resume(str(tmp_path / "first"), torch.load(tmp_path / "first", weights_only=True))
            ours.run()
        return torch.load(tmp_path / name, weights_only=True)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    made = session(monkeypatch)
    made.set_content(thin.smooth(48, 40, 1))
    made.set_styles([thin.smooth(50, 60, 2)])
    made.run(thin.smooth(48, 40, 3), kind(8), checkpoint=checkpoints("first", 4))
    right, said = resumed("right", []), list[str]()
    for each in (Lbfgs, Adam):
        monkeypatch.setattr(each, "_steps_on", lambda optimizer, x: not said)
    for step in (optimisers.LbfgsStep, optimisers.AdamStep):
        monkeypatch.setattr(step, "unpack", full)
    ours = resumed("ours", said)
    for name in ("x", "calls", "optimizer"):
        torch.testing.assert_close(ours[name], right[name], rtol=0, atol=0)
    assert said == [memory.ON_HOST]


def test_what_did_not_fit_is_given_back_before_the_run_goes_on(monkeypatch):
    made, said, held = session(monkeypatch), list[str](), []

    class Half:
        def __init__(self, *_):
            self.pairs = torch.zeros(3)
            held.append(weakref.ref(self.pairs))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    launch = Objective.launch

    def looked_at(*given):
        assert all(each() is None for each in held), "the error's traceback still holds it"
        return launch(*given)

    monkeypatch.setattr(optimisers, "_is_on_one_gpu", lambda x, ranks: not said)
    monkeypatch.setattr(optimisers, "LbfgsStep", Half)
    monkeypatch.setattr(Objective, "launch", looked_at)
    run(made, Lbfgs(2), said)
    assert (said, len(held)) == ([memory.ON_HOST], 1)
