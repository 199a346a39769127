"""A new program with losses of its own, in forty lines, without touching the engine: in one piece, in tiles, shared."""

from __future__ import annotations

import numpy as np
import thin_networks as thin
import torch
from processes import together

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.losses import ContentLoss, Loss, StyleLoss, pixels_around
from legacy_style.engine.processes.group import joined
from legacy_style.engine.session import Session


class MaskedStyle(StyleLoss):
    """A style loss that looks at the part of the map under a mask: the left half, fading out."""

    def capture(self, x, where):
        super().capture(x * self.mask(x, where), where)

    def accumulate(self, x, where):
        super().accumulate(x * self.mask(x, where), where)

    def backward(self, x, grad, where):
        mask, own = self.mask(x, where), torch.zeros_like(grad)
        super().backward(x * mask, own, where)
        grad.add_(own * mask)

    def mask(self, x, where):
        columns = torch.arange(*where[1], dtype=x.dtype)
        return torch.sigmoid((12 - columns) / 3)


class Cross(Loss):
    """An image loss of reach 1: sum of (x[i-1, j] - 2 x[i, j] + x[i+1, j])^2 / 2, inner rows only."""

    reach = 1

    def accumulate(self, x, where):
        self.total = self.bend(x, where)[0].square().sum() / 2

    def sums(self):
        return [self.total]

    def finish(self, sums):
        self.value = sums[0].item()
        return False

    def backward(self, x, grad, where):
        bend, first, columns = self.bend(x, where)
        for shift, factor in ((-1, 1), (0, -2), (1, 1)):
            grad[:, :, first + shift : first + shift + bend.shape[2], columns] += factor * bend

    def bend(self, x, where):
        """The second differences of the own rows that have two neighbours; where these rows and columns begin in x."""
        above, left = pixels_around(where, self.reach)
        columns = slice(left, left + where[1][1] - where[1][0])
        first, last = max(above, 1), min(above + where[0][1] - where[0][0], x.shape[2] - 1)
        rows = [x[:, :, first + i : max(last, first) + i, columns] for i in (-1, 0, 1)]
        return rows[0] - 2 * rows[1] + rows[2], first, columns


def evaluate(tile):
    """Values and gradient in this process, of an image that it shares with whoever else there is."""
    with torch.no_grad(), joined() as ranks:
        losses = {"relu2_1": [ContentLoss("content", 5.0), MaskedStyle("masked", 1e4, normalize=True)]}
        chain, _ = loadcaffe.modules(thin.load("vgg19"))
        net = network.build(chain, losses, [Cross("cross")])
        net.dtype = torch.float64
        network.place(net, [torch.device("cpu")])
        session = Session(net, tile=tile, ranks=ranks)
        session.set_content(thin.smooth(45, 38, 1))
        session.set_styles([thin.smooth(31, 50, 2, 120), thin.smooth(40, 26, 3, 90)], [0.25, 0.75])
        start = session.scatter(thin.smooth(45, 38, 4))
        values, grad = session.evaluate(start)
        return values, session.objective(45, 38).gather(grad).numpy()


def test_a_program_with_losses_of_its_own_is_the_same_in_tiles_and_in_two_processes():
    values, grad = evaluate(0)
    assert set(values) == {"content", "masked", "cross"} and min(values.values()) > 0
    for others, again in (evaluate(16), together(2, evaluate, 0)[0], together(2, evaluate, 16)[0]):
        np.testing.assert_allclose(list(others.values()), list(values.values()), rtol=1e-11)
        np.testing.assert_allclose(again, grad, rtol=0, atol=1e-11 * np.abs(grad).max())


def test_the_gradient_of_these_losses_is_right():
    """Along a random direction, against differences."""
    losses = {"relu2_1": [ContentLoss("content", 5.0), MaskedStyle("masked", 1e4)]}
    chain, _ = loadcaffe.modules(thin.load("vgg19"))
    net = network.build(chain, losses, [Cross("cross")])
    net.dtype = torch.float64
    network.place(net, [torch.device("cpu")])
    session = Session(net)
    session.set_content(thin.smooth(20, 24, 1))
    session.set_styles([thin.smooth(22, 21, 2, 120)])
    x, direction = thin.smooth(20, 24, 4), thin.smooth(20, 24, 5, 1)
    _, grad = session.evaluate(x)
    above, below = (sum(session.evaluate(x + step * direction)[0].values()) for step in (1e-5, -1e-5))
    slope = (above - below) / 2e-5
    assert abs((grad * direction).sum().item() / slope - 1) < 1e-5
