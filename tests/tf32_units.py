"""A GPU's TF32 units, emulated on the CPU: what is multiplied is rounded wherever PyTorch's settings allow it.

`pretend(monkeypatch)` lets the kernel chooser see such a GPU in the CPU; within `Units()` products and convolutions of
float32 are rounded as the units would round them, and nowhere else. Their sums are the CPU's, which are more exact than
the units'. Products of bfloat16 that are summed in float32, which CPUs do not have, are emulated too.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from legacy_style.engine.kernels import convolution, grams, split, winograd

CUDA = torch.device("cuda")


def cut_off(x):
    """The 10 bits of a mantissa that TF32 has, as the units see a float32."""
    return torch.bitwise_and(x.view(torch.int32), -(1 << 13)).view(torch.float32)


def to_nearest(x):
    """The nearest TF32, ties away from zero, as cuDNN may convert it before."""
    return torch.bitwise_and(x.view(torch.int32) + (1 << 12), -(1 << 13)).view(torch.float32)


def allowed(what):
    """Whether products ("matmul") or convolutions ("conv") may be rounded as things stand."""
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        owner = backends.cudnn.conv if what == "conv" else backends.cuda.matmul
        return owner.fp32_precision == "tf32"
    return (backends.cudnn if what == "conv" else backends.cuda.matmul).allow_tf32


_aten = torch.ops.aten
_ROUNDED: dict[object, tuple[str, tuple[int, ...]]] = {
    **{op.default: ("matmul", (0, 1)) for op in (_aten.mm, _aten.bmm)},
    **{op.default: ("matmul", (1, 2)) for op in (_aten.addmm, _aten.addmm_)},
    **{op.default: ("conv", (0, 1)) for op in (_aten.convolution, _aten.convolution_backward)},
}
"""Which of an operation's arguments are multiplied; of a convolution's, the last are its kernels."""
_ROUNDED[_aten.convolution_backward.default] = ("conv", (0, 2))


class Units(TorchDispatchMode):
    """Emulates them; `rounding` is `cut_off` or `to_nearest`; `used` counts what was rounded."""

    def __init__(self, rounding=to_nearest):
        super().__init__()
        self.rounding, self.used = rounding, {"matmul": 0, "conv": 0, "mixed": 0}
        self._kernels = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if hasattr(_aten.bmm, "dtype") and function == _aten.bmm.dtype:
            self.used["mixed"] += 1
            return torch.bmm(args[0].float(), args[1].float())
        what, places = _ROUNDED.get(function, ("", ()))
        if what and args[places[0]].dtype == torch.float32 and allowed(what):
            self.used[what] += 1
            args = list(args)
            for place in places:
                is_kernels = what == "conv" and place == places[-1]
                args[place] = (self._rounded_once if is_kernels else self.rounding)(args[place])
        return function(*args, **(kwargs or {}))

    def _rounded_once(self, kernels):
        """`kernels`, rounded: a network's are the same in every evaluation, and larger than small images."""
        version, rounded = self._kernels.get(kernels, (None, None))
        if version != kernels._version:
            rounded = self.rounding(kernels)
            self._kernels[kernels] = kernels._version, rounded
        return rounded


def pretend(monkeypatch):
    """Choose the ways of a GPU with TF32 units on the CPU."""
    monkeypatch.setattr(split, "has_units", lambda device: True)
    monkeypatch.setattr(winograd, "fits", lambda *given: False)
    for module in (convolution, grams):
        choose = module.choose
        monkeypatch.setattr(
            module, "choose", lambda device, *given, choose=choose, **more: choose(CUDA, *given, **more)
        )
