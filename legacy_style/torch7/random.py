"""Torch7's random numbers: the same seed gives the same start image as in 2015.

Ports torch7 814ea4a, lib/TH/THRandom.c: MT19937 seeded by init_genrand, normals by Box and Muller. PyTorch's
`torch.randn` uses other algorithms and gives other numbers for the same seed. Notes: a seed counts modulo
2^32, a fractional seed is truncated, and normals are made in pairs, the second of which waits for the next
call.
"""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from legacy_style.errors import OptionError

_TWO_TO_32 = 2**32

_SKIPPED_AT_ONCE = 2**20


class Generator:
    """A stream of random numbers (THGenerator); without a seed it starts from the system's entropy."""

    def __init__(self, seed: float | None = None) -> None:
        self.manual_seed(int.from_bytes(os.urandom(4), "little") if seed is None else seed)

    def manual_seed(self, seed: float) -> None:
        """Restart the stream (THRandom_manualSeed); `seed` is truncated to an integer and taken modulo 2^32.

        Raises OptionError for nan and the infinities, which C would turn into an arbitrary number.
        """
        if not math.isfinite(seed):
            raise OptionError(f"a seed must be a finite number, not {seed}; give for example 123")
        # RandomState seeds an integer by init_genrand, and NumPy has frozen its streams for good (NEP 19).
        self._twister = np.random.RandomState(int(seed) % _TWO_TO_32)
        self._spare: float | None = None

    def random(self, n: int) -> NDArray[np.uint32]:
        """The next `n` raw draws, 0..2^32-1 (THRandom_random)."""
        return self._twister.randint(0, _TWO_TO_32, size=n, dtype=np.uint32)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` doubles in [0, 1), one draw each (THRandom_uniform); a waiting spare normal keeps waiting."""
        return self.random(n) / float(_TWO_TO_32)

    def randn(self, *shape: int) -> NDArray[np.float64]:
        """Normals of mean 0 and deviation 1 in an array of `shape`, filled in C order (THRandom_normal).

        Two uniforms x, y give the pair rho*cos(2 pi x), rho*sin(2 pi x) with rho = sqrt(-2 log(1-y)).
        """
        n = math.prod(shape)
        waiting = [] if self._spare is None or n == 0 else [self._spare]
        pairs = (n - len(waiting) + 1) // 2
        uniforms = self.uniform(2 * pairs)
        angle = (2 * math.pi * uniforms[0::2]).tolist()
        # The C library's log, cos and sin, as in the original: NumPy's own, vectorised for some processors,
        # may be one unit in the last place away.
        log = np.fromiter(map(math.log, (1 - uniforms[1::2]).tolist()), np.float64, pairs)
        rho = np.sqrt(-2 * log)
        values = np.empty(len(waiting) + 2 * pairs)
        values[: len(waiting)] = waiting
        values[len(waiting) :: 2] = rho * np.fromiter(map(math.cos, angle), np.float64, pairs)
        values[len(waiting) + 1 :: 2] = rho * np.fromiter(map(math.sin, angle), np.float64, pairs)
        if n > 0:
            self._spare = float(values[n]) if values.size > n else None
        return values[:n].reshape(shape)

    def skip(self, n: int) -> None:
        """Pass over `n` normals, as fast as they need not be known."""
        if n > 0 and self._spare is not None:
            self._spare = None
            n -= 1
        for begin in range(0, n // 2 * 2, _SKIPPED_AT_ONCE):
            self.random(min(n // 2 * 2 - begin, _SKIPPED_AT_ONCE))
        self.randn(n % 2)
