"""The tolerances themselves: other correct processors stay within them, and small mistakes do not."""

import json

import expectations
import pytest
import spread
import torch
import trace_stages
import video_recordings
from other_processor import OtherProcessor
from recorded_runs import recorded
from recordings import RECORDED, SHIPPED, needs_shared
from torch.nn import functional

from legacy_style.engine import losses
from legacy_style.torch7 import image, nn, optim

SOME_RUNS = ["adam_40", "size_tiny", "one_pixel", "wc_lbfgs_40", "wc_styles2", "m_nin", "init_image"]
SOME_TRACES = ["adam_40", "base_40", "odd2", "wc_lbfgs_40", "m_caffenet", "norm_grad"]


# The stand-in for another processor.


def computed(x, weight):
    """Something of everything that a run computes, whose sums may be in any order."""
    y = functional.conv2d(x, weight, padding=1)
    flat = y.flatten(2)[0]
    gram = flat @ flat.T
    pooled = functional.avg_pool2d(y, 2)
    grad = torch.ops.aten.convolution_backward(
        y, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]
    product = torch.zeros(3, 4).addmm_(flat[:3], flat[:4].T, alpha=0.5)
    vector = flat.flatten()
    return [y, gram, pooled, grad, product, vector.dot(vector), vector.abs().sum(), y.sum((2, 3)), y.mean()]


@pytest.mark.parametrize("seed", [1, 2])
def test_another_processor_trains_with_the_same_gradients_up_to_roundings(seed):
    """Convolutions and transposed ones, of as many channels in as out and of others, through autograd."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 12, 8, 10, generator=random, requires_grad=True)
    down, up = (torch.randn(12, 8, 3, 3, generator=random, requires_grad=True) for _ in range(2))

    def gradients():
        y = functional.conv_transpose2d(x, up, stride=2, padding=1, output_padding=1)
        z = functional.conv2d(y, down, padding=1)
        return [y, z, *torch.autograd.grad(z.square().mean(), (x, up, down))]

    exact = gradients()
    with OtherProcessor(seed):
        one, same = gradients(), gradients()
    for number, (ours, again, theirs) in enumerate(zip(one, same, exact, strict=True)):
        assert torch.equal(ours, again)
        assert 1e-8 < ((ours - theirs).norm() / theirs.norm()).item() < 3e-6, number


@pytest.fixture
def operands():
    random = torch.Generator().manual_seed(1)
    return torch.randn(1, 16, 24, 20, generator=random), torch.randn(8, 16, 3, 3, generator=random)


@pytest.mark.parametrize("seed", [1, 2])
def test_another_processor_differs_by_roundings(seed, operands):
    exact = computed(*operands)
    with OtherProcessor(seed):
        ours = computed(*operands)
    changed = 0
    for number, (one, other) in enumerate(zip(exact, ours, strict=True)):
        distance = ((one - other).norm() / one.norm()).item()
        assert distance < 3e-6, number  # the mean is one of positive and negative values
        changed += distance > 0
    assert changed >= 6
    assert 5e-8 < ((exact[0] - ours[0]).norm() / exact[0].norm()).item() < 5e-7


def test_another_processor_gives_equal_results_for_equal_inputs(operands):
    with OtherProcessor(1):
        one, other = computed(*operands), computed(*operands)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_roundings_count_as_often_as_asked_for(operands):
    exact = computed(*operands)[0]
    apart = []
    for times in (1, 8, -8):
        with OtherProcessor(1, times):
            apart.append(computed(*operands)[0] - exact)
    assert (apart[1] / 8 - apart[0]).norm() < 0.2 * apart[0].norm()
    assert (apart[2] + apart[1]).norm() < 0.2 * apart[1].norm()


# Other processors are within the tolerances.


@needs_shared
@pytest.mark.parametrize("name", SOME_RUNS)
def test_a_run_on_another_processor_is_as_recorded(name, tmp_path):
    with OtherProcessor(11, 2):
        assert not expectations.replay(recorded(RECORDED)[name], tmp_path)


@needs_shared
@pytest.mark.parametrize("name", SOME_TRACES)
def test_a_trace_on_another_processor_is_as_recorded(name, tmp_path):
    with OtherProcessor(12, 2):
        assert not trace_stages.differences(trace_stages.recorded(RECORDED)[name], tmp_path)


@needs_shared
def test_every_recording_has_been_measured():
    measured = set(json.loads(spread.SPREAD.read_text()))
    runs = {f"run:{name}" for name, run in recorded(RECORDED).items() if expectations.compares_losses(run)}
    traces = {f"trace:{name}" for name in trace_stages.recorded(RECORDED) if name not in trace_stages.REFUSED}
    assert measured == runs | traces


def test_enough_is_compared():
    """So that a new measurement cannot quietly let everything pass."""
    measured = json.loads(spread.SPREAD.read_text())
    runs = [spread.of_run(name[4:]) for name in measured if name.startswith("run:")]
    traces = [spread.of_trace(name[6:]) for name in measured if name.startswith("trace:")]
    evaluations = [each for trace in traces for each in trace.evaluations.values()]
    assert sum(len(run.losses) for run in runs) > 0.3 * sum(run.printed for run in runs)
    assert sum(each.gradient < 1e-4 for each in evaluations) > 0.6 * len(evaluations)
    assert max(each.losses for each in evaluations) < 1e-2


@needs_shared
def test_every_trace_of_a_video_has_been_measured():
    measured = set(json.loads(spread.VIDEO_SPREAD.read_text()))
    runs = {f"run:{name}" for name in video_recordings.MEASURED}
    assert measured == runs | {f"trace:{name}" for name in video_recordings.traces()}


def test_enough_of_the_videos_is_compared():
    measured = json.loads(spread.VIDEO_SPREAD.read_text())
    names = [name[6:] for name in measured if name.startswith("trace:")]
    traces = [spread.of_video_trace(name) for name in names]
    evaluations = sum(len(measured[f"trace:{name}"]["losses"]) for name in names)
    assert sum(len(trace.losses) for trace in traces) > 0.5 * evaluations
    assert sum(each < 1e-4 for trace in traces for each in trace.losses.values()) > 0.4 * evaluations
    gradients = [each for trace in traces for each in trace.gradients.values()]
    assert sum(each < 1e-4 for each in gradients) > 0.8 * len(gradients)
    assert sum(len(trace.images) for trace in traces) >= 15
    runs = [spread.of_video_run(name) for name in video_recordings.MEASURED]
    assert sum(len(run.losses) for run in runs) > 0.9 * sum(run.printed for run in runs)
    assert sum(len(run.images) for run in runs) >= 8


# Mistakes of a thousandth are not, nor is a value rounded that the original truncates.


def strength(kind, monkeypatch):
    """Multiply the strength of a loss by 1.001."""
    right = kind.__init__

    def wrong(self, *args, **more):
        right(self, *args, **more)
        self.strength *= 1.001

    monkeypatch.setattr(kind, "__init__", wrong)


def scaled(owner, name, monkeypatch):
    """Multiply what a function returns by 1.001."""
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **more: right(*args, **more) * 1.001)


MISTAKES = {
    "tv strength": lambda patch: strength(losses.TVLoss, patch),
    "content strength": lambda patch: strength(losses.ContentLoss, patch),
    "style strength": lambda patch: strength(losses.StyleLoss, patch),
    "average pooling": lambda patch: scaled(nn.SpatialAveragePooling, "forward", patch),
    "gradient of average pooling": lambda patch: scaled(nn.SpatialAveragePooling, "backward", patch),
    "max pooling": lambda patch: scaled(nn.SpatialMaxPooling, "forward", patch),
    "gradient of max pooling": lambda patch: scaled(nn.SpatialMaxPooling, "backward", patch),
    "gradient of a convolution": lambda patch: scaled(nn.SpatialConvolution, "backward", patch),
}


@pytest.mark.parametrize(
    ("mistake", "root", "name", "stage"),
    [
        pytest.param("tv strength", RECORDED, "tv100_adam", "gradient", marks=needs_shared),
        pytest.param("tv strength", RECORDED, "tv1", "gradient", marks=needs_shared),
        ("content strength", SHIPPED, "wc_lbfgs", "losses"),
        ("style strength", SHIPPED, "wc_lbfgs", "losses"),
        ("average pooling", SHIPPED, "wc_lbfgs", "losses"),
        ("gradient of average pooling", SHIPPED, "wc_lbfgs", "gradient"),
        pytest.param("max pooling", RECORDED, "init_image", "feature maps", marks=needs_shared),
        ("gradient of max pooling", SHIPPED, "m_caffenet_k2", "gradient"),
        ("gradient of a convolution", SHIPPED, "wc_norm", "gradient"),
    ],
)
def test_a_small_mistake_in_a_trace_is_seen(mistake, root, name, stage, monkeypatch, tmp_path):
    MISTAKES[mistake](monkeypatch)
    found = trace_stages.differences(trace_stages.recorded(root)[name], tmp_path)
    assert stage in {each.stage for each in found}


@needs_shared
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_small_mistake_changes_a_run(mistake, monkeypatch, tmp_path):
    """The same mistakes through the whole program: what it prints and saves after some iterations."""
    name = {"tv strength": "tv100_adam", "max pooling": "adam_init_image"}.get(mistake, "wc_adam")
    name = "adam_init_image" if "max" in mistake else name
    MISTAKES[mistake](monkeypatch)
    assert expectations.replay(recorded(RECORDED)[name], tmp_path)


@needs_shared
def test_a_wrong_curvature_changes_a_run(monkeypatch, tmp_path):
    right = optim._remember_pair

    def wrong(state, *args):
        right(state, *args)
        state.h_diag *= 1.001

    monkeypatch.setattr(optim, "_remember_pair", wrong)
    assert expectations.replay(recorded(RECORDED)["wc_lbfgs"], tmp_path)


@needs_shared
def test_a_wrong_decay_changes_a_run(monkeypatch, tmp_path):
    right = optim.adam
    monkeypatch.setattr(optim, "adam", lambda *args, **more: right(*args, **more, beta2=0.998))
    assert expectations.replay(recorded(RECORDED)["wc_adam"], tmp_path)


@needs_shared
def test_a_value_that_is_rounded_changes_an_image(monkeypatch, tmp_path):
    right = image.save
    monkeypatch.setattr(image, "save", lambda name, rgb: right(name, rgb + 0.5 / 255))
    found = expectations.replay(recorded(RECORDED)["wc_adam"], tmp_path)
    assert {each.stage for each in found} == {"pixels"}
