"""`legacy-style benchmark` measures the same objective three ways; how fast they are, quiet machines say."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from door import legacy_style

from legacy_style.engine import loadcaffe, machine, optimise
from legacy_style.engine.objective import Objective
from legacy_style.errors import UnsupportedError
from legacy_style.formats import model_files
from legacy_style.programs.fast_neural_style import shapes
from legacy_style.toolkit import card_speed, forward_speed, turns
from legacy_style.torch7 import optim


@pytest.fixture(autouse=True)
def _allocator(monkeypatch):
    """That of the other tests."""
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: None)


def test_the_plain_program_computes_the_same_objective():
    with torch.no_grad():
        content, style = turns.images(48, 64)
        objective = Objective(turns.build_network(None))
        objective.capture(content, objective.network.losses_from("content"))
        objective.capture(style, objective.network.losses_from("style"))
        values, grad = objective(content + style)
    chain, _ = loadcaffe.modules(model_files.load(model_files.bundled()))
    image = (content + style).requires_grad_()
    total = turns.Plain(chain, content, style)(image)
    total.backward()
    # Its loss counts the total variation too, which the original never did.
    across, down = (image.detach().double().diff(dim=axis).square().sum() for axis in (3, 2))
    total = total.item() - 1e-3 / 2 * (across + down).item()
    assert sum(values.values()) == pytest.approx(total, rel=1e-4)
    # The original leaves the last row and column out of the total variation.
    part = (slice(None), slice(None), slice(None, -2), slice(None, -2))
    assert (grad[part] - image.grad[part]).norm() < 1e-3 * grad[part].norm()


def test_both_collect_all_pairs_of_lbfgs_before_they_are_timed(monkeypatch):
    class Timed(Exception):
        pass

    def turn():
        raise Timed

    kept: list[Any] = []

    class Stepper(torch.optim.LBFGS):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            kept.append(self)

    monkeypatch.setattr(torch.optim, "LBFGS", Stepper)
    lbfgs = optim.lbfgs
    monkeypatch.setattr(
        optim,
        "lbfgs",
        lambda *given, **named: lbfgs(*given, **named, state=kept.append(optim.LbfgsState()) or kept[-1]),
    )
    for program in (turns._ours, turns._plain):
        with pytest.raises(Timed):
            program(turn, None, 48, 64, "lbfgs")
    ours, plain = kept
    # The last pair is formed from the first evaluation that is timed, and plain's turn ends after that.
    assert len(ours.rows) == turns._PAIRS - 1
    assert len(next(iter(plain.state.values()))["old_dirs"]) == turns._PAIRS


@pytest.fixture
def quick_starts(monkeypatch):
    """Calling it lets the processes that take turns be forked from one that has loaded PyTorch."""
    return lambda: monkeypatch.setattr(multiprocessing, "get_context", lambda kind: processes.CONTEXT)


def test_each_of_the_three_is_timed_and_tabled(quick_starts):
    arguments = ["speed", "--size", "64", "--rounds", "2", "--optimizer"]
    head, line = legacy_style("benchmark", *arguments, "lbfgs").stdout.splitlines()
    assert len(re.split("  +", head)) == len(line.split())
    assert line.split()[:2] == ["64x48", "lbfgs"]
    assert all(float(cell) > 0 for cell in line.split()[2:])
    quick_starts()
    (line,) = legacy_style("benchmark", *arguments, "adam", "--json", "--processor-time").stdout.splitlines()
    found = json.loads(line)
    assert found["optimizer"] == "adam"
    # 0.575 MFLOP a pixel forward, as much backward.
    assert found["gflop"] == pytest.approx(2 * 0.575e-3 * 64 * 48, rel=0.01)
    assert set(found["seconds"]) == {"ours", "plain", "convolutions"}
    assert found["threads"] == 1


class TwoTurns:
    """A pipe whose other end takes two turns, and then goes away."""

    def __init__(self):
        self.told = []

    def send(self, seconds):
        self.told.append(seconds)

    def recv(self):
        if len(self.told) == 2:
            raise EOFError


@pytest.mark.parametrize(("processor_time", "told"), [(True, [0.5, 0.25]), (False, [4.0, 8.0])])
def test_what_is_timed_is_the_clock_or_the_processor(processor_time, told, monkeypatch):
    """Both stand still between turns, while another program has its own."""
    threads = []
    monkeypatch.setattr(turns.time, "process_time", iter([1.0, 1.5, 2.0, 2.25]).__next__)
    monkeypatch.setattr(turns.time, "perf_counter", iter([10.0, 14.0, 20.0, 28.0]).__next__)
    monkeypatch.setattr(turns.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    pipe = TwoTurns()

    def program(turn):
        while True:
            turn()

    turns._serve(pipe, processor_time, program)
    assert pipe.told == told
    assert threads == ([1] if processor_time else [])


def test_what_a_gpu_is_asked_is_measured_on_a_cpu_as_well(monkeypatch):
    monkeypatch.setattr(card_speed, "WARM_UP", 0)
    monkeypatch.setattr(card_speed, "FLOAT32_EVALUATIONS", 0)
    monkeypatch.setattr(optimise, "FLOAT32_EVALUATIONS", 0)
    monkeypatch.setattr(turns, "_PAIRS", 3)
    # Without bfloat16, which takes minutes where a processor has no instructions for it.
    monkeypatch.setattr(card_speed, "PRECISIONS", ("float32",))
    monkeypatch.setattr(card_speed, "PLAIN", card_speed.PLAIN[:1])
    columns = ((33, "lbfgs"),)
    said = []
    figures = card_speed.measure(torch.device("cpu"), None, columns, rounds=1, log=said.append)
    assert list(figures) == [
        "ours, float32",
        "plain PyTorch, TF32, channels-last, autotuned",
        "the convolutions alone, float32",
    ]
    assert len(said) == len(figures)
    assert all(cell.milliseconds > 0 and cell.peak > 0 for (cell,) in figures.values())
    assert not torch.backends.cudnn.benchmark
    found = card_speed.as_json(figures, "a CPU", columns)
    assert json.loads(json.dumps(found)) == found
    assert found["columns"] == ["33 lbfgs"]


def test_the_table_is_the_one_of_the_page():
    figures = {
        "ours, tf32": [card_speed.Figure(1.234, 2_340_000_000), card_speed.Figure(12.34, 10**10)],
        "plain": [card_speed.Figure(8.0, 10**9), None],
    }
    assert card_speed.table(figures, ((256, "lbfgs"), (2048, "adam"))).splitlines() == [
        "| whole iteration, ms (peak, GB) | 256 L-BFGS | 2048 Adam |",
        "| --- | --- | --- |",
        "| ours, tf32 | 1.23 (2.34) | 12.3 (10.00) |",
        "| plain | 8.00 (1.00) | out of memory |",
    ]


def test_a_program_that_finds_no_memory_leaves_its_cell_empty():
    def program(*given):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert card_speed._figure(torch.device("cpu"), 1, program, 32, 48, "adam") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_table_is_refused_in_a_sentence():
    result = legacy_style("benchmark", "speed", "--device", "cuda")
    assert result.exit_code == 1
    assert result.stderr == (
        "legacy-style: --device cuda: there is no CUDA device here; leave the option out to measure the CPU\n"
    )


def test_a_gpu_has_no_processor_time():
    result = legacy_style("benchmark", "speed", "--device", "cuda", "--processor-time")
    assert result.exit_code == 1
    assert "--processor-time is for the CPU" in result.stderr


def test_bfloat16_is_timed_where_there_is_fast_bfloat16_and_refused_elsewhere(monkeypatch):
    arguments = ["precision", "--size", "64", "--rounds", "1", "--json"]
    monkeypatch.setattr(machine, "_has_fast_bfloat16", lambda: False)
    result = legacy_style("benchmark", *arguments)
    assert result.exit_code == 1
    assert "this processor has no instructions for bfloat16" in result.output
    monkeypatch.setattr(machine, "_has_fast_bfloat16", lambda: True)
    computed = []
    call = Objective.__call__
    monkeypatch.setattr(
        Objective, "__call__", lambda self, image: computed.append(self.network.dtype) or call(self, image)
    )
    found = json.loads(legacy_style("benchmark", *arguments).stdout)
    assert computed == [torch.float32, torch.bfloat16] * 2
    assert set(found["seconds"]) == {"float32", "bfloat16"}
    assert found["times as fast in bfloat16"] > 0


def test_a_pass_of_a_trained_network_is_timed_against_its_modules():
    text = legacy_style("benchmark", "forward", "--size", 48, "--rounds", 1).stdout
    assert "times as fast as plain" in text
    model = Path(__file__).parents[1] / "golden" / "t7" / "in_rs.t7"
    words = ("benchmark", "forward", "--size", 48, "--rounds", 1, "--json", "--model", model)
    result = json.loads(legacy_style(*words).stdout)
    assert set(result["seconds"]) == {"ours", "plain", "plain, channels-last"}
    assert result["times as fast as plain"] > 0


def test_a_watched_run_is_timed_against_one_that_nobody_watches():
    words = ("benchmark", "watch", "--size", 32, "--iterations", 3, "--pairs", 2)
    threads = torch.get_num_threads()
    result = json.loads(legacy_style(*words, "--json").stdout)
    assert torch.get_num_threads() == threads
    assert len(result["ratios"]) == 2
    assert min(result["ratios"]) > 0
    assert 0 < result["for the page, %"] < 100


def test_the_network_that_is_timed_has_as_many_weights_as_the_published_ones():
    network = forward_speed.default_network()
    assert sum(weights.numel() for weights in network.parameters()) == 1_679_235
    assert shapes.output_shape(network, (3, 512, 256)) == (3, 512, 256)


@pytest.mark.parametrize("command", ["speed", "precision"])
def test_a_model_that_is_none_is_refused_in_a_sentence(command, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_has_fast_bfloat16", lambda: True)
    (tmp_path / "junk").write_bytes(b"junk")
    for name in ("missing", "junk"):
        result = legacy_style("benchmark", command, "--model", tmp_path / name)
        assert result.exit_code == 1
        assert result.stderr.startswith("legacy-style: ")
        assert name in result.output


def test_a_program_that_ends_early_is_told_and_the_others_end(monkeypatch, quick_starts):
    quick_starts()
    monkeypatch.setattr(turns, "_plain", _ends)
    with pytest.raises(UnsupportedError, match="ended early"):
        turns.take_turns(1, None, 24, 32, "adam")
    assert multiprocessing.active_children() == []


def _ends(turn, *arguments):
    """A program that takes no turn."""
