"""`legacy-style benchmark processes`: what it computes for many processes is what two are counted to hand over."""

from __future__ import annotations

import tempfile
from itertools import pairwise

import pytest
import torch
from door import legacy_style
from processes import together

from legacy_style.cli.tools import scaling

ITERATIONS = 6


def measured(optimizer):
    with tempfile.TemporaryDirectory() as folder:  # each process has its own, as the command gives it
        found = scaling.measure(scaling.quick_options(96, ITERATIONS, optimizer, folder))
    return found and (found.evaluation, found.calls, found.run)


@pytest.fixture(scope="module")
def net():
    with torch.no_grad():
        return scaling.bundled_network()


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_an_evaluation_of_two_processes_takes_the_bytes_that_are_computed(optimizer, net):
    (evaluation, calls, run), nothing = together(2, measured, optimizer)
    assert nothing is None
    expected = scaling.share(net, 64, 96, 2, 1536)
    # L-BFGS, docs/scaling.md: y.s and y.y; four products a pair, of which there are as many as steps; g.d.
    vectors = 8 * (2 + 4 * (ITERATIONS - 3) + 1) if optimizer == "lbfgs" else 0
    assert evaluation == {"all-reduce": expected.summed + vectors, "halo": expected.sent}
    assert calls == {"all-reduce": 4 if optimizer == "lbfgs" else 1, "halo": 2}
    # Whole images in float32: process 0 deals out half of the content with its halo, and of what the run starts
    # from without, and of the style; it gathers the other half to save it, and again for the result.
    assert run["gather"] == 2 * (4 * 3 * 64 * 96 // 2)
    assert run["scatter"] > 3 * run["gather"] / 2


def test_sums_are_those_of_vgg_16(net):
    # By hand: products of 64, 128, 256, 512 and 512 channels, a count for each, and one number of the content loss.
    assert scaling.summed_bytes(net) == 8 * (64**2 + 128**2 + 256**2 + 2 * 512**2 + 5 + 1)


def test_the_arithmetic_of_one_piece_is_counted_as_by_hand(net):
    found = scaling.share(net, 480, 640, 1, 1536)
    # By hand: 2 * 9 * channels in * channels out at each of VGG-16's sizes, up to conv5_1, forward and backward.
    widths = {
        1: [3, 64, 64],
        2: [64, 128, 128],
        4: [128, 256, 256, 256],
        8: [256, 512, 512, 512],
        16: [512, 512],
    }
    forward = sum(
        2 * 9 * inside * out * (480 // scale) * (640 // scale)
        for scale, channels in widths.items()
        for inside, out in pairwise(channels)
    )
    assert found.flops == 2 * forward
    assert (found.tiles, found.owned, found.held, found.sent) == (1, 480 * 640, 480 * 640, 0)


def test_the_table_has_a_line_for_every_number_of_processes():
    result = legacy_style("benchmark", "processes", "table", "--megapixels", "4", "1", "4")
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["processes", "---", "1", "4"]
    assert lines[2][5:] == ["0.00", "0.00"]
    assert lines[3][6] == "4.88"


def rows(result):
    assert result.exit_code == 0, result.output
    return [[float(cell) for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()[2:]]


def test_gpus_that_are_not_there_are_planned():
    """An evaluation of 4 Mpx in one piece takes about 1.3 KB a pixel; what is computed does not depend on memory."""
    alone, two = rows(legacy_style("benchmark", "processes", "gpus", "--megapixels", "4", "1", "2"))
    assert (alone[0], alone[2], alone[6]) == (1, 1, 1)
    assert 4 < alone[4] < 8
    assert (two[0], two[2], two[6]) == (2, 1, 1)
    assert alone[4] / 2 < two[4] < 0.7 * alone[4]
    (small,) = rows(legacy_style("benchmark", "processes", "gpus", "--megapixels", "4", "--memory", "3", "1"))
    assert small[2] > 1
    assert small[4] < 3
    assert 1.5 < small[6] < 2
    assert small[5] / alone[5] == pytest.approx(small[6], rel=0.02)


def test_gpus_that_are_too_small_are_told_so():
    result = legacy_style("benchmark", "processes", "gpus", "--megapixels", "4", "--memory", "1", "2")
    assert result.exit_code == 1
    assert "what makes it fit: more GPUs; or a smaller image" in result.stderr


@pytest.mark.parametrize("command", ["table", "gpus", "alone"])
@pytest.mark.parametrize("megapixels", ["0", "-1", "inf", "nan"])
def test_an_image_that_cannot_be_is_refused(command, megapixels):
    words = [] if command == "alone" else ["1"]
    result = legacy_style("benchmark", "processes", command, "--megapixels", megapixels, *words)
    assert result.exit_code == 2
    assert "is not in the range" in result.stderr
