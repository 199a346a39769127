"""The one-evaluation optimisers of torch/optim, held to their formulas written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from legacy_style.torch7 import descent

Vector = np.ndarray
SCALE = np.array([1.0, 30.0, 0.02, 400.0])
START = np.array([3.0, -2.0, 0.5, 0.0])
CENTRE = np.array([1.0, 1.0, 1.0, 0.1])
RATE = 0.01


def gradient(x: Vector) -> Vector:
    return SCALE * (x - CENTRE)


def sgd(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    return x - RATE * gradient(x)


def nag(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    v = memory.get("v", np.zeros_like(x))
    memory["v"] = 0.9 * v - RATE * gradient(x + 0.9 * v)
    return x + memory["v"]


def adagrad(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    memory["sum"] = memory.get("sum", 0) + gradient(x) ** 2
    return x - RATE * gradient(x) / (np.sqrt(memory["sum"]) + 1e-10)


def adadelta(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    g = gradient(x)
    memory["g"] = 0.9 * memory.get("g", np.zeros_like(x)) + 0.1 * g**2
    deltas = memory.get("d", np.zeros_like(x))
    delta = -np.sqrt(deltas + 1e-6) / np.sqrt(memory["g"] + 1e-6) * g
    memory["d"] = 0.9 * deltas + 0.1 * delta**2
    return x + delta


def adamax(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    g = gradient(x)
    memory["m"] = 0.9 * memory.get("m", np.zeros_like(x)) + 0.1 * g
    memory["u"] = np.maximum(0.999 * memory.get("u", np.zeros_like(x)), np.abs(g) + 1e-38)
    return x - RATE / (1 - 0.9**t) * memory["m"] / memory["u"]


def adam(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    g = gradient(x)
    memory["m"] = 0.9 * memory.get("m", np.zeros_like(x)) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", np.zeros_like(x)) + 0.001 * g**2
    return x - RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * memory["m"] / (np.sqrt(memory["v"]) + 1e-8)


def asgd(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    eta = 1e-4 / (1 + 1e-8 * (t - 1)) ** 0.75
    return x * (1 - 1e-4 * eta) - eta * gradient(x)


def rmsprop(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    memory["m"] = 0.99 * memory.get("m", np.zeros_like(x)) + 0.01 * gradient(x) ** 2
    return x - RATE * gradient(x) / (np.sqrt(memory["m"]) + 1e-8)


def rprop(x: Vector, memory: dict[str, Vector], t: int) -> Vector:
    g = gradient(x)
    turn = np.sign(g * memory.get("last", np.zeros_like(x)))
    size = memory.get("size", np.full_like(x, 0.1)) * np.where(turn > 0, 1.2, np.where(turn < 0, 0.5, 1))
    memory["size"] = np.clip(size, 1e-6, 50)
    memory["last"] = np.where(turn < 0, 0, g)
    return x - np.sign(memory["last"]) * memory["size"]


FORMULAS: dict[str, Callable[[Vector, dict[str, Vector], int], Vector]] = {
    each.__name__: each for each in (adam, nag, sgd, adagrad, adadelta, adamax, asgd, rmsprop, rprop)
}


def test_each_optimiser_has_its_formula():
    assert FORMULAS.keys() == set(descent.NAMES)


@pytest.mark.parametrize("name", descent.NAMES)
def test_updates_are_those_of_torch_optim(name: str):
    x = torch.from_numpy(START.copy())
    step = descent.stepper(name, x, RATE)

    def feval(at: Tensor) -> tuple[float, Tensor]:
        return 0.0, torch.from_numpy(gradient(at.numpy()))

    expected, memory = START, {}
    for t in range(1, 13):
        step(feval)
        expected = FORMULAS[name](expected, memory, t)
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-12, atol=1e-13)
