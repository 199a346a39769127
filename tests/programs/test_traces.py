"""Every recorded trace of the original, stage by stage; and that a wrong stage is named as the first."""

import pytest
import replay
import torch
import trace_stages
from recordings import RECORDED, SHIPPED, needs_shared
from trace_stages import differences, recorded

from legacy_style.engine import losses
from legacy_style.torch7 import nn, optim, random

CASES = [
    pytest.param(root, name, id=f"{label}-{name}")
    for label, root in (("shipped", SHIPPED), ("recorded", RECORDED))
    if root.is_dir()
    for name in recorded(root)
]


@pytest.mark.parametrize(("root", "name"), CASES)
def test_every_stage_is_as_recorded(root, name, tmp_path, record_property):
    assert not differences(recorded(root)[name], tmp_path)
    record_property("held", "recorded traces of neural_style.lua, some of them twice")


@needs_shared
def test_all_49_recorded_traces_are_held():
    assert len(recorded(RECORDED)) >= 49
    assert set(trace_stages.REFUSED) <= set(recorded(RECORDED))


# Mistakes that a port could make, and the stage at which each must be found.


def stage_of(name, root, tmp_path):
    return differences(recorded(root)[name], tmp_path)[0].stage


def test_other_noise_is_found_in_the_start_image(monkeypatch, tmp_path):
    right = random.Generator.randn
    monkeypatch.setattr(random.Generator, "randn", lambda self, *shape: right(self, *shape)[::-1])
    assert stage_of("wc_lbfgs", SHIPPED, tmp_path) == "preprocessed image"


def test_a_style_loss_without_its_square_is_found_in_the_losses(monkeypatch, tmp_path):
    right = losses.gram_matrix
    monkeypatch.setattr(losses, "gram_matrix", lambda x: right(x) * 1.0001)
    assert stage_of("wc_lbfgs", SHIPPED, tmp_path) == "losses"


def test_a_missing_total_variation_is_found_in_the_gradient(monkeypatch, tmp_path):
    monkeypatch.setattr(losses.TVLoss, "backward", lambda self, x, grad, where: None)
    assert stage_of("wc_lbfgs", SHIPPED, tmp_path) == "gradient"


def test_a_gradient_of_one_layer_is_found_in_that_module(monkeypatch, tmp_path):
    right = nn.SpatialAveragePooling.backward
    monkeypatch.setattr(
        nn.SpatialAveragePooling, "backward", lambda self, x, y, grad: right(self, x, y, grad) * 1.001
    )
    first = differences(recorded(SHIPPED)["wc_lbfgs"], tmp_path)[0]
    assert first.stage == "gradient"
    assert "module_34_gradInput" in first.what  # the deepest of four poolings


def test_a_first_step_of_another_length_is_found_after_one_step(monkeypatch, tmp_path):
    monkeypatch.setattr(optim, "_l1_norm", lambda v: 1.01 * v.abs().sum().item())
    first = differences(recorded(SHIPPED)["wc_lbfgs"], tmp_path)[0]
    assert first.stage == "x after k steps"
    assert first.what.startswith("1 recorded gradients")


@needs_shared
def test_the_range_of_255_is_found_in_the_preprocessed_image(monkeypatch, tmp_path):
    right = vars(trace_stages)["load_images"]

    def wrong(options):
        images = right(options)
        images.content.mul_(255 / 256)
        return images

    monkeypatch.setattr(trace_stages, "load_images", wrong)
    assert stage_of("init_image", RECORDED, tmp_path) == "preprocessed image"


@needs_shared
def test_pooling_with_another_size_is_found_in_the_feature_maps(monkeypatch, tmp_path):
    monkeypatch.setattr(
        nn.SpatialMaxPooling, "forward", lambda self, x: torch.nn.functional.max_pool2d(x, 2) * 1.01
    )
    assert stage_of("niter1", RECORDED, tmp_path) == "feature maps"


# The command.


def test_the_command_counts_what_agrees(capsys):
    names = ["m_missing", "cli_bad_init", "trace:odd2"]
    assert replay.main([*names, "--recordings", str(SHIPPED)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == names
    assert "agrees" in lines[0]
    assert "deviates on purpose: checked before" in lines[1]
    assert lines[3] == (
        f"2 runs and 1 traces of {SHIPPED}; 3 as expected, 1 of them deviations on purpose; 0 different"
    )


def test_the_command_says_what_differs_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(losses.TVLoss, "backward", lambda self, x, grad, where: None)
    assert replay.main(["trace:wc_lbfgs", "m_missing", "--recordings", str(SHIPPED)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "DIFFERS" in lines[0]
    assert lines[1].startswith("    gradient: ")
    assert lines[-1].endswith("1 as expected, 0 of them deviations on purpose; 1 different (trace:wc_lbfgs)")


def test_the_command_knows_its_names(capsys):
    assert replay.main(["nonsense", "--recordings", str(SHIPPED)]) == 2
    assert "no recording of nonsense" in capsys.readouterr().err


def test_the_command_says_what_it_left_out(monkeypatch, capsys):
    monkeypatch.setattr(
        replay, "cases", lambda root: {"m_missing": lambda f: [], "default_1000": lambda f: []}
    )
    assert replay.main(["--recordings", str(SHIPPED)]) == 0
    assert capsys.readouterr().out.endswith("0 different; 1 left out (default_1000)\n")
