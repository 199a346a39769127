"""L-BFGS's direction for a vector that several processes share, with one sum over all of them: see `products`."""

from __future__ import annotations

import torch
from torch import Tensor

from legacy_style.engine import products
from legacy_style.engine.processes.group import Ranks
from legacy_style.torch7.optim import LbfgsState


class VectorFreeRecursion:
    """Sets direction = -H g as the two-loop recursion would, where each of `ranks` has a part of the vectors.

    `products`: (2, n, n), float64 on the CPU, for n pairs at most; s_i.y_j where s_i is as old as y_j or older, and
    y_i.y_j; i and j are the rows in which the state keeps a pair. None before the first pair.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.products: Tensor | None = None

    def __call__(self, state: LbfgsState, g: Tensor) -> None:
        assert state.steps is not None and state.changes is not None and state.direction is not None
        rows = len(state.rows)
        if rows == 0:
            torch.mul(g, -state.h_diag, out=state.direction)
            return
        if self.products is None:
            self.products = torch.zeros((2, len(state.steps), len(state.steps)), dtype=torch.float64)
        sy, yy = self.products[:, :rows, :rows]
        newest = state.rows[-1]
        s, y = state.steps[:rows], state.changes[:rows]
        vectors = torch.stack([g, y[newest]])
        s_g, sy[:, newest], y_g, yy[newest] = self._with_all(s, y, vectors)
        yy[:, newest] = yy[newest].clone()
        scale = sy[newest, newest] / yy[newest, newest]
        of_s, of_y = products.coefficients(sy, yy, s_g, y_g, scale, torch.tensor(state.rows))
        scale, of_s, of_y = (each.to(g.device) for each in (scale, of_s, of_y))
        products.combine(state.direction, g, scale, of_s, s, of_y, y)

    def _with_all(self, s: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        """The products of all s with both `vectors` (2, N), then those of all y: (4, rows) on the CPU."""
        (total,) = self.ranks.all_reduce(
            [torch.stack([products.products(s, vectors), products.products(y, vectors)])]  # (2, rows, 2)
        )
        return total.transpose(1, 2).reshape(4, -1).cpu()
