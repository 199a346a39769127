"""The optimisers of torch/optim that take one evaluation an update, by their names there and with its defaults.

Ports torch/optim a5ceed7: adadelta.lua, adagrad.lua, adam.lua, adamax.lua, asgd.lua, nag.lua, rmsprop.lua, rprop.lua,
sgd.lua. Most of PyTorch's own have the same formulas and other defaults; not Adam, whose epsilon stands elsewhere, and
Nesterov's method, which evaluates at the point that the momentum leads to. Notes: adadelta, asgd and
rprop do not look at the learning rate; asgd moves x itself, not the average.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adamax, Optimizer, RMSprop, Rprop

from legacy_style.torch7.optim import AdamState, Feval, adam

Step = Callable[[Feval], None]
"""Evaluates a function once and changes x in place."""

MOMENTUM = 0.9
"""nag.lua: the default."""

ETA = DECAY = 1e-4
"""asgd.lua: the defaults of eta0 and lambda."""

_LIKE_PYTORCH: dict[str, Callable[[list[Tensor], float], Optimizer]] = {
    "sgd": lambda x, rate: SGD(x, lr=rate),
    "adagrad": lambda x, rate: Adagrad(x, lr=rate, eps=1e-10),
    "adadelta": lambda x, rate: Adadelta(x, lr=1.0, rho=0.9, eps=1e-6),
    "adamax": lambda x, rate: Adamax(x, lr=rate, betas=(0.9, 0.999), eps=1e-38),
    "rmsprop": lambda x, rate: RMSprop(x, lr=rate, alpha=0.99, eps=1e-8),
    "rprop": lambda x, rate: Rprop(x, lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-6, 50)),
}

NAMES = ("adam", "asgd", "nag", *_LIKE_PYTORCH)


def stepper(name: str, x: Tensor, learning_rate: float) -> Step:
    """What moves `x`, a contiguous tensor of any shape, by one update; name: one of NAMES."""
    if name == "adam":
        state = AdamState()

        def adam_step(feval: Feval) -> None:
            adam(feval, x, state, learning_rate=learning_rate)

        return adam_step
    if name == "asgd":
        return _averaged(x)
    if name == "nag":
        return _nesterov(x, learning_rate)
    optimizer = _LIKE_PYTORCH[name]([x], learning_rate)

    def step(feval: Feval) -> None:
        _, x.grad = feval(x)
        optimizer.step()

    return step


def _averaged(x: Tensor) -> Step:
    """asgd.lua but for the average, at which nobody looks; PyTorch's has its rate in float32."""
    count = 0

    def step(feval: Feval) -> None:
        nonlocal count
        rate = ETA / (1 + DECAY * ETA * count) ** 0.75
        _, gradient = feval(x)
        x.mul_(1 - DECAY * rate).add_(gradient, alpha=-rate)
        count += 1

    return step


def _nesterov(x: Tensor, learning_rate: float) -> Step:
    velocity = torch.zeros_like(x)

    def step(feval: Feval) -> None:
        start = x.clone()
        x.add_(velocity, alpha=MOMENTUM)
        _, gradient = feval(x)
        velocity.mul_(MOMENTUM).add_(gradient, alpha=-learning_rate)
        x.copy_(start.add_(velocity))

    return step
