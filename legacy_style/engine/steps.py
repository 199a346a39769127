"""L-BFGS and Adam as steps that never wait for the device: what a GPU does in place of torch7/optim's loops.

Their state is tensors that stay in place, so that a step can be recorded (graphs). Notes: the one number that may end a
run, L-BFGS's slope along its direction, is left on the device for whoever reads the next losses; a pair is kept or not
by arithmetic, not by a branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from legacy_style.engine import products
from legacy_style.torch7.optim import CURVATURE_MIN


class LbfgsStep:
    """L-BFGS's steps on x, which is changed in place, with at most `pairs` correction pairs (s, y).

    `s`, `y`: (pairs + 1, N). The row `spare` takes the next pair; if that is kept, the row behind it, with the oldest
    pair, is spare from then on. `filled`: (pairs + 1,), whether a row has a pair. `slope` is g.d after a step:
    torch7/optim ends the run where that is above 1, before x is changed.
    """

    def __init__(self, x: Tensor, pairs: int) -> None:
        vector = x.view(-1)
        n, rows = vector.numel(), pairs + 1
        wide = -(-n // 16) * 16  # every row begins at a multiple of 64 bytes
        self.x = vector
        self.g = torch.zeros_like(vector)
        self.s, self.y = (vector.new_zeros(rows, wide)[:, :n] for _ in range(2))
        self.old = vector.new_zeros(2, wide)[:, :n]  # the gradient of the last step; y of the newest pair
        self.direction = torch.zeros_like(vector)
        exact = vector.new_zeros((), dtype=torch.float64)
        self.sy, self.yy = exact.new_zeros(2, rows, rows)
        self.scale, self.t, self.slope = exact.clone().fill_(1.0), exact.clone().fill_(1.0), exact.clone()
        self.slots = torch.arange(rows, device=x.device)
        self.filled = torch.zeros_like(self.slots, dtype=torch.bool)
        self.spare = torch.zeros_like(self.slots[0])

    def first(self, g: Tensor) -> None:
        """The first step from a start image: along -g, of length min(1, 1 / ||g||_1)."""
        self.old[0].copy_(g)
        torch.neg(g, out=self.direction)
        norm = g.abs().sum(dtype=torch.float64)
        self.t.copy_(torch.where(norm > 0, norm.reciprocal().clamp(max=1.0), 1.0))
        self.slope.copy_(torch.dot(g, self.direction))
        self.x.add_(self.direction * self.t.to(g.dtype))

    def next(self) -> None:
        """Every later step, at the gradient in `g`."""
        last, change = self.old
        torch.sub(self.g, last, out=change)
        last.copy_(self.g)
        taken = self.direction.mul_(self.t)
        self.t.fill_(1.0)
        dots = products.products(self.old[1:], torch.stack([taken, change]))[0]
        curvature, squares = dots[0], dots[1]
        keep = curvature > CURVATURE_MIN
        row = self.spare.view(1)
        # Zeros in place of a pair that is not kept: what is not finite there would be so in every combination.
        self.s.index_copy_(0, row, torch.where(keep, taken, 0.0)[None])
        self.y.index_copy_(0, row, torch.where(keep, change, 0.0)[None])
        behind = (row + 1) % len(self.slots)
        self.filled.copy_(
            torch.where(self.slots == row, keep, self.filled & ~(keep & (self.slots == behind)))
        )
        self.scale.copy_(torch.where(keep, curvature / squares, self.scale))
        of_s, of_y = products.products(self.s, self.old), products.products(self.y, self.old)  # (rows, 2)
        # y and g in one product each, so that both are added up in one order: after a step that overshot they are
        # nearly the same, and what is left when they cancel decides on the direction.
        self.sy.index_copy_(1, row, of_s[:, 1][:, None])
        self.yy.index_copy_(0, row, of_y[:, 1][None])
        self.yy.index_copy_(1, row, of_y[:, 1][:, None])
        s_part, y_part = products.coefficients(
            self.sy, self.yy, of_s[:, 0], of_y[:, 0], self.scale, self._order(), self.filled
        )
        products.combine(self.direction, last, self.scale, s_part, self.s, y_part, self.y)
        self.spare.copy_(torch.where(keep, behind, row)[0])
        self.slope.copy_(torch.dot(last, self.direction))
        self.x.add_(self.direction)

    def _order(self) -> Tensor:
        """All rows by age, the oldest first; the spare one is the last."""
        return (self.slots + self.spare + 1) % len(self.slots)

    def pack(self) -> dict[str, Any]:
        """As `optim.LbfgsState` has it, with the `products` of the pairs as VectorFreeRecursion has them."""
        filled = self.filled.tolist()
        rows = [row for row in self._order().tolist() if filled[row]]
        used = max(rows, default=-1) + 1
        known = torch.stack([self.sy[:used, :used], self.yy[:used, :used]]).cpu()
        return {
            "h_diag": float(self.scale),
            "t": float(self.t),
            "rows": rows,
            "rho": [1 / float(known[0, row, row]) for row in rows],
            "direction": self.direction,
            "g_old": self.old[0].clone(),
            "correction": len(self.slots) - 1,
            "steps": self.s[:used].clone(),
            "changes": self.y[:used].clone(),
            "products": known,
            "spare": int(self.spare),
        }

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Go on from such a state, of whoever wrote it; there must be room for its pairs."""
        rows, known = packed["rows"], packed["products"]
        if "spare" in packed and packed["correction"] == len(self.slots) - 1:
            places, spare = rows, packed["spare"]  # where they were: sums come out to the bit
        else:
            places, spare = list(range(len(rows))), len(rows)
        for mine, theirs in ((self.s, packed["steps"]), (self.y, packed["changes"])):
            mine[places] = theirs[rows].to(mine)
        at = torch.tensor(places, device=self.s.device, dtype=torch.long)
        for index, (mine, pairs) in enumerate(((self.sy, self.s), (self.yy, self.y))):
            if known is None:
                exact = products.products(pairs[places], self.y[places])
            else:
                exact = known[index][rows][:, rows].to(mine)
            mine[at[:, None], at] = exact
        self.filled.zero_()
        self.filled[places] = True
        self.spare.fill_(spare)
        self.direction.copy_(packed["direction"])
        self.old[0].copy_(packed["g_old"])
        self.scale.fill_(packed["h_diag"])
        self.t.fill_(packed["t"])


class AdamStep:
    """Adam's steps on x as torch7/optim has them; `m`, `v`: the moments, of x's shape, `t`: the number of steps."""

    def __init__(
        self,
        x: Tensor,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.x = x.view(-1)
        self.g = torch.zeros_like(self.x)
        self.learning_rate, self.betas, self.epsilon = learning_rate, betas, epsilon
        self.m, self.v = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.t = self.x.new_zeros((), dtype=torch.float64)

    def next(self) -> None:
        """One step, at the gradient in `g`."""
        first, second = self.betas
        self.t.add_(1.0)
        step = self.learning_rate * (1 - second**self.t).sqrt() / (1 - first**self.t)
        self.m.mul_(first).add_(self.g, alpha=1 - first)
        self.v.mul_(second).addcmul_(self.g, self.g, value=1 - second)
        self.x.sub_((self.m * step.to(self.m.dtype)).div_(self.v.sqrt().add_(self.epsilon)))

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Go on from the state of an Adam, of this kind or torch7/optim's."""
        self.t.fill_(packed["t"])
        if packed["m"] is not None:
            self.m.copy_(packed["m"].view(-1))
            self.v.copy_(packed["v"].view(-1))
