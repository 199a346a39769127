"""legacy_style.engine.graphs, and that evaluations and steps can be recorded, with a stand-in for CUDA graphs.

The stand-in notes every operation with the tensors that it was given, and does the same to the same tensors again: work
that reads a number, that leaves its result elsewhere, or that depends on anything but its tensors is found out as by a
CUDA graph, on any machine.
"""

from __future__ import annotations

import warnings
import weakref
from functools import partial
from itertools import pairwise

import pytest
import thin_networks as thin
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from legacy_style.engine import graphs, optimise
from legacy_style.engine.checkpoint import Checkpoint
from legacy_style.engine.graphs import WARM_UP, CudaRecorder, Repeated
from legacy_style.engine.losses import StyleLoss, TVLoss
from legacy_style.engine.network import Network
from legacy_style.engine.objective import Objective
from legacy_style.engine.optimise import Conditions
from legacy_style.engine.optimisers import Adam, Lbfgs
from legacy_style.engine.session import Session
from legacy_style.errors import DivergenceError


def storages(tree):
    """Where the memory of all tensors in there begins."""
    tensors = (each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor))
    # Kernels in oneDNN's own order have no storage that one may see.
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if not tensor.is_mkldnn}


class Tape(TorchDispatchMode):
    """Notes operations. Of tensors that were there before, and are changed, it keeps what they were."""

    def __init__(self):
        super().__init__()
        self.operations, self.made, self.before = [], set(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        chosen = [
            each
            for each in tree_flatten(args[1:])[0]
            if isinstance(each, torch.Tensor) and each.dtype == torch.bool and "aten.index" in str(function)
        ]
        if chosen or function == torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        given = list(zip(function._schema.arguments, args, strict=False))
        given += [(each, kwargs[each.name]) for each in function._schema.arguments if each.name in kwargs]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_flatten(value)[0]:
                    storage = tensor.untyped_storage()
                    if storage.data_ptr() not in self.made:
                        self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **kwargs)
        self.made |= storages(result) - storages((args, kwargs))  # the others are views
        # Aliases, because a result may be squeezed in place later.
        left = [each.detach() if isinstance(each, torch.Tensor) else each for each in tree_flatten(result)[0]]
        self.operations.append((function, args, kwargs, left))
        return result

    def replay(self):
        for function, args, kwargs, left in self.operations:
            again = function(*args, **kwargs)
            for old, new in zip(left, tree_flatten(again)[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class StandIn:
    """A `graphs.Recorder`: as that of CUDA, it leaves everything as it was."""

    def __init__(self):
        self.replays = 0

    def rehearse(self, work):
        return work(), False

    def record(self, work):
        tape = Tape()
        try:
            with tape:
                left = work()
        finally:
            for storage, content in tape.before.values():
                storage.copy_(content)

        def replay():
            self.replays += 1
            tape.replay()

        return left, replay


def test_the_stand_in_finds_what_a_graph_cannot_do():
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="not permitted"):
        StandIn().record(lambda: x.sum().item())
    with pytest.raises(RuntimeError, match="not permitted"):
        StandIn().record(lambda: x[x > 0])
    left, replay = StandIn().record(lambda: x.mul_(2).sum())
    assert x.tolist() == [1, 1, 1]
    replay()
    assert (x.tolist(), left.item()) == ([2, 2, 2], 6)


def test_work_is_done_plainly_then_recorded_once_then_replayed():
    x, done = torch.zeros(2), []
    recorder = StandIn()

    def work():
        done.append(1)
        return x.add_(1).sum()

    repeated = Repeated(work, recorder, pytest.fail)
    assert [repeated().item() for _ in range(WARM_UP + 3)] == [2.0 * i for i in range(1, WARM_UP + 4)]
    assert len(done) == WARM_UP + 1
    assert recorder.replays == 3


def test_what_cannot_be_recorded_is_done_plainly_and_told_once():
    x, said = torch.ones(2), []
    repeated = Repeated(lambda: x.add_(1).sum().item(), StandIn(), said.append)
    assert [repeated() for _ in range(5)] == [4, 6, 8, 10, 12]
    (line,) = said
    assert line.startswith(
        "No CUDA graph could be recorded, so that this run is slower: operation not permitted"
    )


def test_what_waits_for_the_device_is_not_even_tried_to_be_recorded():
    class Waiting(StandIn):
        def rehearse(self, work):
            return work(), True

        def record(self, work):
            pytest.fail("a recording that fails leaves PyTorch in disorder")

    x, said = torch.ones(2), list[str]()
    repeated = Repeated(lambda: x.add_(1).sum().item(), Waiting(), said.append)
    assert [repeated() for _ in range(5)] == [4, 6, 8, 10, 12]
    assert said == [
        "No CUDA graph could be recorded, so that this run is slower: something in it waits for the GPU, as to read a"
        " number"
    ]


def test_a_rehearsal_hears_what_waits_and_lets_all_else_be_heard(monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    recorder = CudaRecorder(torch.device("cuda"))

    def work(*words):
        for each in words:
            warnings.warn(each, UserWarning, stacklevel=1)
        return len(words)

    waits = "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp)"
    assert recorder.rehearse(lambda: work(waits)) == (1, True)
    with pytest.warns(UserWarning, match="of something else") as heard:
        assert recorder.rehearse(lambda: work(waits, "of something else")) == (2, True)
    assert len(heard) == 1
    with pytest.warns(UserWarning, match="of something else"):
        assert recorder.rehearse(lambda: work("of something else")) == (1, False)
    with pytest.raises(ZeroDivisionError):
        recorder.rehearse(lambda: 1 // 0)
    assert modes == ["default", *["warn", "default"] * 4]


class Reads:
    """How often a number is read from a tensor."""

    def __init__(self, monkeypatch):
        self.count = 0
        for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, method):
        def read(tensor, *more):
            self.count += 1
            return method(tensor, *more)

        return read


def session(**more):
    """A thin VGG-19 with its targets, in float64: the layers of a GPU, without Winograd's method."""
    net = thin.build(thin.load("vgg19"), *thin.LAYERS["vgg19"], dtype=torch.float64, **more)
    made = Session(net)
    with torch.no_grad():
        made.set_content(thin.smooth(40, 52, 1))
        made.set_styles([thin.smooth(37, 44, 2)])
    return made


OPTIMIZERS = [partial(Lbfgs, correction=5, in_steps=True), partial(Adam, learning_rate=5.0, in_steps=True)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["lbfgs", "adam"])
@pytest.mark.parametrize("normalize", [False, True])
def test_an_iteration_reads_the_device_once(optimizer, normalize, monkeypatch):
    made, counts = session(normalize=normalize), []
    reads = Reads(monkeypatch)
    made.run(thin.smooth(40, 52, 3), optimizer(9), on_losses=lambda *_: counts.append(reads.count))
    assert {after - before for before, after in pairwise(counts)} == {1}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["lbfgs", "adam"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_recorded_run_is_the_plain_run(optimizer, normalize):
    made, start = session(normalize=normalize), thin.smooth(40, 52, 3)
    plain = made.run(start, optimizer(14))
    recorder = StandIn()
    recorded = made.run(start, optimizer(14), recorder=recorder, notice=pytest.fail)
    # An evaluation is replayed from the third on; so is a step, of which L-BFGS's first is another and both last end.
    assert recorder.replays > 14 - WARM_UP
    assert recorded.losses == plain.losses
    assert torch.equal(recorded.image, plain.image)


def test_a_change_of_precision_records_anew(monkeypatch):
    monkeypatch.setattr(optimise, "FLOAT32_EVALUATIONS", 6)
    made, start = session(), thin.smooth(40, 52, 3)
    coarse = partial(made.run, start, precision=torch.bfloat16)
    recorder = StandIn()
    plain = coarse(Adam(14, 5.0, in_steps=True))
    recorded = coarse(Adam(14, 5.0, in_steps=True), recorder=recorder, notice=pytest.fail)
    assert recorder.replays == (6 - WARM_UP) + (8 - WARM_UP) + (14 - WARM_UP)
    assert recorded.losses == plain.losses


class Reading(StyleLoss):
    def accumulate(self, x, where):
        super().accumulate(x, where)
        self.seen = float(x.sum())


def test_a_loss_that_reads_the_device_is_told_and_runs():
    made = session()
    made.net.losses[0].__class__ = Reading
    said: list[str] = []
    plain = made.run(thin.smooth(40, 52, 3), Adam(6, 5.0, in_steps=True))
    told = made.run(
        thin.smooth(40, 52, 3), Adam(6, 5.0, in_steps=True), recorder=StandIn(), notice=said.append
    )
    assert len(said) == 1
    assert told.losses == plain.losses


def test_what_broke_a_recording_is_told_and_not_what_followed_from_it():
    class Broken(StandIn):
        def record(self, work):
            try:
                raise RuntimeError("a number was read")
            finally:
                raise RuntimeError("the recording is invalid")

    said: list[str] = []
    repeated = Repeated(lambda: 1, Broken(), said.append)
    assert [repeated() for _ in range(WARM_UP + 2)] == [1] * (WARM_UP + 2)
    assert said == ["No CUDA graph could be recorded, so that this run is slower: a number was read"]


def test_a_broken_recording_keeps_no_memory_while_the_work_is_done_plainly():
    held = []

    class Broken(StandIn):
        def record(self, work):
            maps = torch.zeros(3)
            held.append(weakref.ref(maps))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    repeated = Repeated(lambda: [each() for each in held], Broken(), lambda line: None)
    assert [repeated() for _ in range(WARM_UP + 1)][-1] == [None]


def test_nothing_is_recorded_on_a_cpu_in_tiles_or_on_several_devices():
    made = session()
    x = torch.zeros(1, 3, 40, 52)
    assert graphs.recorder_for(made.objective(40, 52), x) is None
    on_card = torch.empty(1, 3, 40, 52, device="meta")
    for layer in made.net.layers:
        layer.device = on_card.device
    assert graphs.recorder_for(made.objective(40, 52), on_card) is None


def told(made, optimizer, **more):
    """What a run tells of itself: losses and images in order, and the end."""
    seen = []

    def note(progress):
        seen.append((progress.iteration, progress.losses.total, progress.image()))

    finished = made.run(thin.smooth(40, 52, 3), optimizer, on_progress=note, **more)
    return seen, finished


def same(one, other):
    (seen, finished), (seen_too, finished_too) = one, other
    assert [each[:2] for each in seen] == [each[:2] for each in seen_too]
    assert all(torch.equal(mine[2], theirs[2]) for mine, theirs in zip(seen, seen_too, strict=True))
    assert torch.equal(finished.image, finished_too.image)
    assert (finished.losses, finished.stopped) == (finished_too.losses, finished_too.stopped)


def test_the_images_that_a_run_tells_are_the_caller_s_own():
    start, seen = thin.smooth(40, 52, 3), []

    def spoil(progress):
        image = progress.image()
        seen.append(image.clone())
        image.zero_()

    finished = session().run(start.clone(), OPTIMIZERS[1](3), on_progress=spoil)
    assert torch.equal(seen[0], start)
    assert torch.equal(finished.image, seen[2])
    assert not torch.equal(seen[0], seen[1]) and seen[1].any()


ITERATIONS = [1, 2, 9, 7.5]


@pytest.mark.parametrize("count", ITERATIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["lbfgs", "adam"])
def test_a_run_ahead_of_its_losses_tells_the_same(optimizer, count):
    made = session()
    plain = told(made, optimizer(count), ahead=False)
    assert len(plain[0]) >= count - 1
    same(told(made, optimizer(count), ahead=True), plain)
    same(told(made, optimizer(count), ahead=True, recorder=StandIn(), notice=pytest.fail), plain)


def test_a_run_ahead_of_its_losses_launches_before_it_reads(monkeypatch):
    order: list[str] = []
    launch, read = optimise.Objective.launch, optimise.Awaited.read
    monkeypatch.setattr(optimise.Objective, "launch", lambda *given: order.append("l") or launch(*given))
    monkeypatch.setattr(optimise.Awaited, "read", lambda awaited: order.append("r") or read(awaited))
    session().run(thin.smooth(40, 52, 3), OPTIMIZERS[0](5), ahead=True)
    assert "".join(order) == "lrllrlrlrr"
    order.clear()
    session().run(thin.smooth(40, 52, 3), Lbfgs(5, in_steps=False), ahead=True)
    assert "".join(order) == "lr" * 5, "the two loops want each loss at once"


def test_a_run_ahead_of_its_losses_prints_in_the_same_order():
    def lines(ahead, in_steps):
        said: list[object] = []
        optimizer = Lbfgs(4, log=said.append, in_steps=in_steps)
        session().run(
            thin.smooth(40, 52, 3), optimizer, ahead=ahead, on_losses=lambda number, _: said.append(number)
        )
        return said

    recorded = lines(False, in_steps=False)
    assert [each for each in recorded if isinstance(each, int)] == [1, 2, 3, 4]
    assert len(recorded) == 6
    assert lines(True, in_steps=True) == lines(False, in_steps=True) == recorded


@pytest.mark.parametrize("ahead", [False, True])
def test_what_ends_a_run_ends_it_at_the_same_evaluation(ahead, monkeypatch):
    made, after, count = session(), optimise.Optimisation, 0
    stopped = made.run(
        thin.smooth(40, 52, 3), OPTIMIZERS[1](9), ahead=ahead, on_progress=lambda now: now.iteration == 4
    )
    assert (len(stopped.losses), stopped.stopped) == (4, True)

    rises = optimise.optim.rises

    def at_the_fourth(slope, *more):
        nonlocal count
        count += 1
        return count == 4 or rises(slope, *more)

    monkeypatch.setattr(optimise.optim, "rises", at_the_fourth)
    ended = made.run(thin.smooth(40, 52, 3), OPTIMIZERS[0](9), ahead=ahead)
    assert (len(ended.losses), ended.stopped) == (4, False)
    monkeypatch.undo()

    monkeypatch.setattr(after, "_evaluation", broken_at(4, after._evaluation))
    run = made.optimisation(thin.smooth(40, 52, 3), OPTIMIZERS[1](9), Conditions(ahead=ahead))
    with torch.no_grad(), pytest.raises(DivergenceError, match="not finite any more at iteration 5"):
        run.run()
    assert len(run.losses) == 4
    assert torch.equal(run.image(), made.run(thin.smooth(40, 52, 3), OPTIMIZERS[1](4)).image)


def broken_at(number, evaluation):
    def broken(run):
        values, grad = evaluation(run)
        return (values * float("nan") if run.calls + len(run._launched) == number else values), grad

    return broken


def test_steps_are_recorded_wherever_the_network_is():
    on_card = torch.empty(0, device="meta")
    assert graphs.recorder_for_steps(on_card, 1) is None

    class OnCard:
        device = torch.device("cuda", 1)

    found = graphs.recorder_for_steps(OnCard(), 1)
    assert found is not None and found.device == OnCard.device
    assert graphs.recorder_for_steps(OnCard(), 2) is None


def test_a_start_image_may_be_a_view_of_any_kind():
    made, start = session(), thin.smooth(40, 52, 3)
    view = start.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    runs = [made.run(each, OPTIMIZERS[0](4)) for each in (start, view)]
    assert torch.equal(runs[0].image, runs[1].image)


@pytest.mark.parametrize("ahead", [None, True])
def test_a_checkpoint_is_never_of_a_later_image(ahead, tmp_path):
    made, start, saved = session(), thin.smooth(40, 52, 3), tmp_path / "state"
    kept = Checkpoint(str(saved), lambda calls: calls == 4, {}, {})
    made.run(start, OPTIMIZERS[1](6), ahead=ahead, checkpoint=kept)
    found = torch.load(saved, weights_only=True)
    assert found["calls"] == 3
    assert torch.equal(found["x"], made.run(start, OPTIMIZERS[1](4)).image)


def test_losses_without_a_value_are_read_on_the_images_device():
    values, _ = Objective(Network([], [TVLoss("tv", 1.0)])).launch(torch.empty(1, 3, 8, 8, device="meta"))
    assert (values.shape, values.device.type) == ((0,), "meta")
