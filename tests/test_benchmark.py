"""tools/benchmark.py: it measures the same objective three ways; how fast they are is for quiet machines to say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from legacy_style import engine, loadcaffe, model_files
from legacy_style.objective import Objective

TOOLS = str(Path(__file__).parents[1] / "tools")


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, TOOLS)
    try:
        yield importlib.import_module("benchmark")  # its process for the plain program needs the folder too
    finally:
        sys.path.remove(TOOLS)


@pytest.fixture(autouse=True)
def _allocator(monkeypatch):
    """That of the other tests."""
    monkeypatch.setattr(engine, "set_up_cpu", lambda: None)


def test_the_plain_program_computes_the_same_objective(benchmark):
    with torch.no_grad():
        content, style = benchmark._images(48, 64)
        objective = Objective(benchmark._network(None))
        objective.capture(content, content=True)
        objective.capture(style, content=False)
        content_losses, style_losses, grad = objective(content + style)
    chain, _ = loadcaffe.modules(model_files.load(model_files.bundled()))
    image = (content + style).requires_grad_()
    total = benchmark.Plain(chain, content, style)(image)
    total.backward()
    # Its loss counts the total variation too, which the original never did.
    across, down = (image.detach().double().diff(dim=axis).square().sum() for axis in (3, 2))
    total = total.item() - 1e-3 / 2 * (across + down).item()
    assert sum(content_losses) + sum(style_losses) == pytest.approx(total, rel=1e-4)
    # The original leaves the last row and column out of the total variation.
    part = (slice(None), slice(None), slice(None, -2), slice(None, -2))
    assert (grad[part] - image.grad[part]).norm() < 1e-3 * grad[part].norm()


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_each_of_the_three_is_timed(optimizer, benchmark):
    arguments = ["speed", "--size", "64", "--rounds", "2", "--optimizer", optimizer, "--json"]
    result = CliRunner().invoke(benchmark.main, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["size"] == "64x48"
    assert found["gflop"] == pytest.approx(226.0 / 64, rel=0.02)
    assert set(found["seconds"]) == {"ours", "plain", "convolutions"}
    assert all(seconds > 0 for seconds in found["seconds"].values())


def test_bfloat16_is_timed_where_there_is_fast_bfloat16_and_refused_elsewhere(benchmark, monkeypatch):
    arguments = ["precision", "--size", "64", "--rounds", "1", "--json"]
    monkeypatch.setattr(engine, "_has_fast_bfloat16", lambda: False)
    result = CliRunner().invoke(benchmark.main, arguments)
    assert result.exit_code == 1
    assert "this processor has no instructions for bfloat16" in result.output
    monkeypatch.setattr(engine, "_has_fast_bfloat16", lambda: True)
    found = json.loads(CliRunner().invoke(benchmark.main, arguments, catch_exceptions=False).stdout)
    assert set(found["seconds"]) == {"float32", "bfloat16"}
    assert found["seconds"]["float32"] != found["seconds"]["bfloat16"]
    assert found["times as fast in bfloat16"] > 0
