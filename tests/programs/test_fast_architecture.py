"""Architecture strings of train.lua: networks, first weights, printouts, and strings that describe none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recordings import SHARED, needs_shared
from training_runs import RECORDED, recorded, seeded

from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style import printout
from legacy_style.programs.fast_neural_style.architecture import build
from legacy_style.programs.fast_neural_style.shapes import output_shape
from legacy_style.programs.fast_neural_style.train_options import parse, settings
from legacy_style.programs.fast_neural_style.values import Architecture

FIRST = "tests/golden/fast_neural_style/training/first_parameters.npz"
RECORDED_NETWORKS = {
    "t_tv": Architecture("c9s1-4,R4,c9s1-3", "reflect"),
    "t_upsample": Architecture("c9s1-8,R8,u8,u8,c9s1-3", "zero"),
}


@pytest.mark.parametrize("name", RECORDED_NETWORKS)
def test_first_weights_are_those_of_the_recording_to_the_last_bit(name, request):
    model = build(RECORDED_NETWORKS[name], seeded())
    ours = torch.cat([each.detach().flatten() for each in model.parameters()]).numpy()
    with np.load(request.config.rootpath / FIRST) as archive:
        np.testing.assert_array_equal(ours, archive[name])


@needs_shared
def test_every_network_that_was_printed_is_printed_alike():
    printed = 0
    for run in recorded(RECORDED).values():
        # A network that was loaded has the architecture of the run that made it; t_even_kernel is a deviation.
        if run.script != "train.lua" or "-resume_from_checkpoint" in run.words or run.name == "t_even_kernel":
            continue
        first = next((number for number, line in enumerate(run.lines) if line == "nn.Sequential {"), None)
        if first is None or run.status:
            continue
        model = build(settings(parse(run.words[1:])[0]).architecture, seeded())
        last = run.lines.index("}", first)
        assert printout.describe(model).split("\n") == run.lines[first : last + 1], run.name
        printed += 1
    print(f"{printed} networks")
    assert printed >= 20


@pytest.mark.parametrize(
    ("padding", "shape"),
    [
        ("reflect", (3, 40, 52)),
        ("replicate", (3, 40, 52)),
        ("zero", (3, 40, 52)),
        ("reflect-start", (3, 24, 36)),
    ],
)
def test_a_residual_block_is_padded_as_asked_for(padding, shape):
    model = build(Architecture("c9s1-4,d6,d8,R8,u6,u4,c9s1-3", padding)).eval()
    assert output_shape(model, (3, 40, 52)) == shape
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 40, 52)).shape[1:] == shape


def test_the_last_token_has_neither_norm_nor_relu_and_upsampling_has_both():
    names = [type(each).__name__ for each in build(Architecture("U2,c3s1-3", "zero"))]
    assert names == [
        "Upsample", "InstanceNormalization", "ReLU", "Conv2d", "Tanh", "MulConstant", "TotalVariation",
    ]  # fmt: skip


def test_without_a_generator_two_networks_differ():
    one, other = (build(Architecture("c3s1-3", "zero"))[0].weight for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("arch", "padding", "reason"),
    [
        ("x9,c9s1-3", "zero", "'x9' is not a layer: it begins with none of the letters"),
        ("", "zero", "'' is not a layer"),
        ("c9s1-8, c9s1-3", "zero", "' c9s1-3' is not a layer"),
        ("c11s1-4", "zero", "'s' is not a whole number"),
        ("c9s1-8,R16,c9s1-3", "zero", "as many filters as it has inputs, 8"),
        ("c9s1-8,C16", "zero", "as many filters as it has inputs, 8"),
        ("c4s1-3", "reflect", "an even kernel cannot be padded with reflect"),
        ("c9s1-8,R8", "foo", "-padding_type 'foo'"),
        ("d0", "zero", "'0' is not a whole number of 1 or more"),
        ("dinf", "zero", "'inf' is not a whole number of 1 or more"),
        ("U", "zero", "'' is not a whole number of 1 or more"),
    ],
)
def test_a_string_that_describes_no_network_is_refused(arch, padding, reason):
    with pytest.raises(OptionError) as error:
        build(Architecture(arch, padding))
    assert reason in str(error.value)
    assert str(error.value).startswith("-arch: ")


def test_an_even_kernel_is_padded_by_the_whole_part_of_half_of_it():
    assert build(Architecture("c4s1-3", "zero"))[0].padding == (1, 1)


@needs_shared
def test_the_shipped_first_parameters_are_the_recorded_ones(request):
    with np.load(request.config.rootpath / FIRST) as shipped:
        for name in RECORDED_NETWORKS:
            with np.load(SHARED / "golden" / "fast-neural-style" / "traces" / name / "arrays.npz") as archive:
                np.testing.assert_array_equal(shipped[name], archive["params_000"])
