"""legacy_style.torch7.random against the recorded numbers: all equal, to the last bit."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import both_roots, component

from legacy_style.errors import OptionError
from legacy_style.torch7.random import Generator


def reproduce(key, recorded):
    """What the port makes of the recording's `key`; KeyError for one that nobody has looked at."""
    if match := re.match(r"(randn_double|init_float|randn_floatdefault)_seed(\d+)_", key):
        values = Generator(int(match[2])).randn(*recorded.shape)
        if match[1] == "randn_double":
            return values
        # neural_style.lua: randn(...):float():mul(0.001), the product in float32
        return values.astype(np.float32) * np.float32(0.001 if match[1] == "init_float" else 1)
    if key.startswith(
        "bernoulli_float_p"
    ):  # THRandom_bernoulli, for the dropout that we leave out: one draw each
        return (Generator(123).uniform(recorded.size) <= float(key.split("_")[2][1:])).astype(np.float32)
    sequence = Generator(123)  # an odd number of normals, then more, then uniforms
    return {
        "randn_seq_first_odd5": lambda: sequence.randn(5),
        "randn_seq_then_4": lambda: (sequence.randn(5), sequence.randn(4))[-1],
        "uniform_then_6": lambda: (sequence.randn(5), sequence.randn(4), sequence.uniform(6))[-1],
        "uniform_seed123_10": lambda: Generator(123).uniform(10),
        "random_uint32_seed123_10": lambda: Generator(123).random(10).astype(np.int64),
        "randn_seed123.9_4": lambda: Generator(123.9).randn(4),
        "randn_seed2p32plus123_4": lambda: Generator(2.0**32 + 123).randn(4),
    }[key]()


@both_roots
def test_every_recorded_number_is_reproduced(root):
    for key, recorded in component("rng", root).items():
        ours = reproduce(key, recorded)
        assert ours.dtype == recorded.dtype, key
        np.testing.assert_array_equal(ours, recorded, err_msg=key)


def test_large_arrays_follow_the_c_library():
    """NumPy's log, cos and sin differ in the last place on some processors, in up to half of the values."""
    draws = Generator(7).uniform(2 * 20_000).tolist()
    expected = []
    for x, y in zip(draws[0::2], draws[1::2], strict=True):
        rho = math.sqrt(-2 * math.log(1 - y))
        expected += [rho * math.cos(2 * math.pi * x), rho * math.sin(2 * math.pi * x)]
    np.testing.assert_array_equal(Generator(7).randn(40_000), expected)


@given(st.lists(st.integers(0, 9), max_size=8))
def test_normals_do_not_depend_on_how_they_are_asked_for(counts):
    stream = Generator(123)
    pieces = np.concatenate([np.empty(0)] + [stream.randn(n) for n in counts])
    np.testing.assert_array_equal(pieces, Generator(123).randn(sum(counts)))


def test_seeding_again_forgets_the_spare_normal():
    stream = Generator(123)
    first = stream.randn(3)
    stream.manual_seed(123)
    np.testing.assert_array_equal(stream.randn(3), first)


def test_negative_and_huge_seeds_count_modulo_2_to_the_32():
    np.testing.assert_array_equal(Generator(-1).random(4), Generator(2**32 - 1).random(4))
    np.testing.assert_array_equal(Generator(1e30).random(4), Generator(int(1e30) % 2**32).random(4))


@pytest.mark.parametrize("seed", [math.nan, math.inf, -math.inf])
def test_a_seed_that_is_not_finite_is_refused(seed):
    with pytest.raises(OptionError, match=f"a seed must be a finite number, not {seed}"):
        Generator(seed)


def test_unseeded_generators_differ():
    assert not np.array_equal(Generator().random(8), Generator().random(8))


def test_shapes():
    assert Generator(1).randn(3, 4, 5).shape == (3, 4, 5)
    assert Generator(1).randn(0).shape == (0,)
    assert Generator(1).random(3).dtype == np.uint32
