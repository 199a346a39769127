"""L-BFGS's direction for a vector that several processes share, with one sum over all of them.

The two-loop recursion (torch7/optim.py) takes two dot products a correction pair, each of which waits for the
last: 200 sums over all processes a step. But direction and intermediate vectors are combinations of s_k, y_k
and g, so the recursion can work on their coefficients alone, given the dot products of these vectors among
each other; those of a new pair and a new g are taken at once (Chen, Wang, Zhou: Large-scale L-BFGS using
MapReduce, NIPS 2014, algorithm 3). Surprises: products and combinations are float64, because where the
recursion subtracts nearly equal vectors, here nearly equal numbers are subtracted; the vectors stay as they
are.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legacy_style.engine.processes.group import Ranks
from legacy_style.torch7.optim import LbfgsState

_BLOCK = 8192
"""Elements of every vector that are float64 at a time: with 100 pairs, 13 MB."""

Array = NDArray[np.float64]


class CompactRecursion:
    """Sets direction = -H g as the two-loop recursion would, where each of `ranks` has a part of the vectors.

    `products`: (2, n, n), float64, for n pairs at most; s_i.y_j where s_i is as old as y_j or older, and
    y_i.y_j; i and j are the rows in which the state keeps a pair. None before the first pair.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.products: Tensor | None = None

    def __call__(self, state: LbfgsState, g: Tensor) -> None:
        assert state.steps is not None and state.direction is not None
        rows = len(state.rows)
        if rows == 0:
            torch.mul(g, -state.h_diag, out=state.direction)
            return
        if self.products is None:
            self.products = torch.zeros((2, len(state.steps), len(state.steps)), dtype=torch.float64)
        sy, yy = self.products[:, :rows, :rows].numpy()
        newest = state.rows[-1]
        s_g, sy[:, newest], y_g, yy[newest] = self._with_newest(state, g)
        yy[:, newest] = yy[newest]
        coefficients = torch.from_numpy(_coefficients(state.rows, sy, yy, s_g, y_g)).to(g.device)
        for begin in range(0, g.numel(), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            state.direction[some] = coefficients @ torch.cat([_pairs(state, some), g[None, some]]).double()

    def _with_newest(self, state: LbfgsState, g: Tensor) -> Array:
        """S g, S y, Y g and Y y, (4, rows), where S and Y have the pairs as rows, and y is the newest one."""
        assert state.changes is not None
        rows = len(state.rows)
        total = g.new_zeros((2 * rows, 2), dtype=torch.float64)
        for begin in range(0, g.numel(), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            both = torch.stack([g[some], state.changes[state.rows[-1], some]], 1)  # (elements, 2)
            total += _pairs(state, some).double() @ both.double()
        (total,) = self.ranks.add_up([total])
        flat: Array = total.view(2, rows, 2).transpose(1, 2).reshape(4, rows).cpu().numpy()
        return flat


def _pairs(state: LbfgsState, some: slice) -> Tensor:
    """Some elements of all s, then of all y, by row: (2 * rows, elements)."""
    assert state.steps is not None and state.changes is not None
    rows = len(state.rows)
    return torch.cat([state.steps[:rows, some], state.changes[:rows, some]])


def _coefficients(order: list[int], sy: Array, yy: Array, s_g: Array, y_g: Array) -> Array:
    """-H g as a combination of all s, all y, and g: its coefficients; `order`: the rows, the oldest first."""
    of_s, of_y = np.zeros(len(order)), np.zeros(len(order))
    for k in reversed(order):
        of_y[k] = (s_g[k] - sy[k] @ of_y) / sy[k, k]
    alpha = -of_y
    scale = sy[order[-1], order[-1]] / yy[order[-1], order[-1]]
    of_y *= scale
    for k in order:
        beta = (yy[k] @ of_y + of_s @ sy[:, k] - scale * y_g[k]) / sy[k, k]
        of_s[k] = alpha[k] - beta
    return np.concatenate([of_s, of_y, [-scale]])
