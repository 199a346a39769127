"""L-BFGS's direction from the products of its vectors among each other, all correction pairs at once.

The two-loop recursion (torch7/optim.py) takes two dot products a pair, each of which waits for the last. But direction
and intermediate vectors are combinations of s_k, y_k and g, so the recursion can work on their coefficients alone,
given the dot products of these vectors; those of a new pair and a new g are taken at once (Chen, Wang, Zhou:
Large-scale L-BFGS using MapReduce, NIPS 2014, algorithm 3).

In the order of age, with R the upper triangle of s_i.y_j and D its diagonal, the first loop is the triangular system
R a = -S g and the second one R^T b = D a + scale (Y g + Y Y^T a); then -H g = S^T b - scale (Y^T a + g) (Byrd, Nocedal,
Schnabel 1994, with the pairs as rows). Notes: the small algebra is float64, because where the recursion subtracts
nearly equal vectors, here nearly equal numbers are subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 8192
"""Elements of every vector whose products are summed at a time; on the CPU they are float64 then (13 MB, 100 pairs)."""


def products(rows: Tensor, vectors: Tensor) -> Tensor:
    """The dot products of `rows` (R, N) and `vectors` (V, N): (R, V), float64.

    On the CPU they are computed in float64; elsewhere in the type of the vectors over _BLOCK elements, and float64
    among those.
    """
    n = rows.shape[1]
    if rows.device.type == "cpu":
        total = rows.new_zeros((len(rows), len(vectors)), dtype=torch.float64)
        for begin in range(0, n, _BLOCK):
            some = slice(begin, begin + _BLOCK)
            total += rows[:, some].double() @ vectors[:, some].double().T
        return total
    return products_in_blocks(rows, vectors)


def products_in_blocks(rows: Tensor, vectors: Tensor) -> Tensor:
    """`products` as a GPU computes them: one batched product, which reads `rows` once."""
    count = rows.shape[1] // _BLOCK
    whole = count * _BLOCK
    # (blocks, R, _BLOCK) and (blocks, _BLOCK, V), both of them views.
    left = rows[:, :whole].view(len(rows), count, _BLOCK).transpose(0, 1)
    right = vectors[:, :whole].view(len(vectors), count, _BLOCK).permute(1, 2, 0)
    total = torch.bmm(left, right).sum(0, dtype=torch.float64)
    return total + (rows[:, whole:] @ vectors[:, whole:].T).double()


def coefficients(
    sy: Tensor, yy: Tensor, s_g: Tensor, y_g: Tensor, scale: Tensor, order: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """-H g as a combination: those of all s and those of all y, (P,) float64 each; that of g is -scale.

    `sy`, `yy`: (P, P), s_i.y_j where s_i is as old as y_j or older, and y_i.y_j. `s_g`, `y_g`: (P,), the products with
    g. `scale`: the initial inverse Hessian, (). `order`: the rows, the oldest first. Rows that `kept` (P,) denies count
    for nothing. Waits for no device.
    """
    if kept is not None:
        both = kept[:, None] & kept
        # The identity where there is no pair.
        sy = torch.where(both, sy, torch.diag((~kept).double()))
        yy = torch.where(both, yy, 0.0)
        s_g, y_g = torch.where(kept, s_g, 0.0), torch.where(kept, y_g, 0.0)
    r = sy[order][:, order].triu()
    yy = yy[order][:, order]
    a = torch.linalg.solve_triangular(r, -s_g[order][:, None], upper=True)
    right = r.diagonal()[:, None] * a + scale * (y_g[order][:, None] + yy @ a)
    b = torch.linalg.solve_triangular(r.T, right, upper=False)
    of_s, of_y = torch.empty_like(s_g), torch.empty_like(s_g)
    return of_s.index_copy_(0, order, b[:, 0]), of_y.index_copy_(0, order, -scale * a[:, 0])


def combine(out: Tensor, g: Tensor, scale: Tensor, of_s: Tensor, s: Tensor, of_y: Tensor, y: Tensor) -> None:
    """out = of_s S + of_y Y - scale g, of the rows of S and Y (P, N); on the CPU in float64."""
    if out.device.type != "cpu":
        combine_at_once(out, g, scale, of_s, s, of_y, y)
        return
    for begin in range(0, out.numel(), _BLOCK):
        some = slice(begin, begin + _BLOCK)
        out[some] = of_s @ s[:, some].double() + of_y @ y[:, some].double() - scale * g[some].double()


def combine_at_once(
    out: Tensor, g: Tensor, scale: Tensor, of_s: Tensor, s: Tensor, of_y: Tensor, y: Tensor
) -> None:
    """`combine` as a GPU does it, in the type of the vectors."""
    torch.mul(g, -scale, out=out)
    out.addmv_(s.T, of_s.to(out.dtype)).addmv_(y.T, of_y.to(out.dtype))
