"""The fixed network whose feature maps the losses of train.lua and slow_neural_style.lua compare.

Layers have Torch7's names: `16` is the 16th module, `3-2` the second module of the third. A .t7 file, as the original
takes, and every kind of model file that neural_style.lua takes are loaded; Caffe's VGG-16 gives the same numbers as
its .t7: 4, 9, 16, 23 are relu1_2, relu2_2, relu3_3, relu4_3.

Weights are not trained, so a convolution's backward pass is the gradient with respect to its input alone. Wide 3x3
convolutions go Winograd's way on a CPU, one image after the other. A ReLU is never computed in place here; whether
Torch7 did matters to losses in front of it (see `losses`), so its module says so (`inplace`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from legacy_style.engine import loadcaffe
from legacy_style.engine.kernels import winograd
from legacy_style.errors import UnsupportedError
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.torch7 import nn

Path = tuple[int, ...]
"""Where a module is, counted from 1: (3, 2) is the second module of the third."""


def parse_layer(text: str) -> Path | None:
    """`4` -> (4,), `3-2-1` -> (3, 2, 1); None for what names no module, which the original passes over silently."""
    parts = text.split("-")
    if not all(part.strip().isdecimal() for part in parts):
        return None
    return tuple(int(part) for part in parts)


def from_netparameter(net: NetParameter) -> torch.nn.Sequential:
    """The layers of a Caffe network, as loadcaffe numbers them, up to the first that no loss network has.

    Raises UnsupportedError for a padded pooling.
    """
    modules: list[torch.nn.Module] = []
    chain, _ = loadcaffe.modules(net)
    for module in chain:
        layer = module.build()
        if isinstance(layer, nn.SpatialConvolution):
            modules.append(_convolution(layer))
        elif isinstance(layer, nn.ReLU):
            modules.append(torch.nn.ReLU(inplace=True))
        elif isinstance(layer, nn.SpatialMaxPooling):
            modules.append(_max_pooling(layer))
        elif isinstance(layer, nn.Differentiable) and not layer.weights:
            modules.append(_Applied(layer))
        else:
            break
    return torch.nn.Sequential(*modules)


class LossNetwork:
    """A network that shows its feature maps at chosen places and computes nothing behind the last of them."""

    def __init__(self, modules: torch.nn.Sequential, device: torch.device | None = None) -> None:
        self.modules = modules.eval().requires_grad_(False).to(device)
        self._winograd: dict[torch.nn.Module, Tensor] = {}
        for module in self.modules.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                if suits_winograd(module):
                    self._winograd[module] = winograd.transform_kernels(module.weight)

    def paths(self) -> Iterator[Path]:
        """The place of every module."""
        return _paths(self.modules, ())

    def rectified_afterwards(self, path: Path, last: Path) -> bool:
        """Whether a ReLU that works in place follows the module at `path`, and is not behind the one at `last`."""
        following = (*path[:-1], path[-1] + 1)
        module = self._at(following)
        return isinstance(module, torch.nn.ReLU) and module.inplace and following <= last

    def run(self, x: Tensor, wanted: Collection[Path]) -> dict[Path, Tensor]:
        """The outputs, (N, C, H, W), of the modules at `wanted` for images x, (N, 3, H, W)."""
        found: dict[Path, Tensor] = {}
        if wanted:
            self._run(self.modules, (), x, max(wanted), found, frozenset(wanted))
        return found

    def _run(
        self,
        module: torch.nn.Module,
        path: Path,
        x: Tensor,
        last: Path,
        found: dict[Path, Tensor],
        wanted: frozenset[Path],
    ) -> Tensor:
        if isinstance(module, torch.nn.Sequential):
            for number, child in enumerate(module, 1):
                x = self._run(child, (*path, number), x, last, found, wanted)
                if (*path, number) >= last[: len(path) + 1]:
                    break
        elif isinstance(module, torch.nn.ReLU):
            x = F.relu(x)
        elif module in self._winograd and not torch.is_autocast_enabled(x.device.type):
            assert isinstance(module, torch.nn.Conv2d)
            x = _Winograd.apply(x, self._winograd[module], module.bias)  # type: ignore[no-untyped-call]
        else:
            x = module(x)
        if path in wanted:
            found[path] = x
        return x

    def _at(self, path: Path) -> torch.nn.Module | None:
        module: torch.nn.Module = self.modules
        for number in path:
            if not isinstance(module, torch.nn.Sequential) or not 1 <= number <= len(module):
                return None
            module = module[number - 1]
        return module


def _paths(module: torch.nn.Module, path: Path) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(module, torch.nn.Sequential):
        for number, child in enumerate(module, 1):
            yield from _paths(child, (*path, number))


def suits_winograd(conv: torch.nn.Conv2d) -> bool:
    """Whether Winograd's way can do this convolution, and faster than the direct one."""
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    return plain and conv.padding == (1, 1) and winograd.suits(conv.weight, (1, 1))


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        ctx.kernels = kernels
        return _each(x, lambda image: winograd.convolve(kernels, bias, image))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _each(grad, lambda image: winograd.convolve(ctx.kernels, None, image, turned=True)), None, None


def _each(batch: Tensor, convolve: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([convolve(batch[i : i + 1]) for i in range(len(batch))])


class _Applied(torch.nn.Module):
    """A layer without weights, such as local response normalisation."""

    def __init__(self, layer: nn.Differentiable) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self._layer.forward(x)


def _convolution(layer: nn.SpatialConvolution) -> torch.nn.Conv2d:
    out, inputs = layer.weight.shape[:2]
    conv = torch.nn.Conv2d(
        inputs * layer.groups,
        out,
        (layer.weight.shape[2], layer.weight.shape[3]),
        layer.stride,
        layer.pad,
        layer.dilation,
        layer.groups,
        bias=layer.bias is not None,
    )
    conv.weight = torch.nn.Parameter(layer.weight)
    if layer.bias is not None:
        conv.bias = torch.nn.Parameter(layer.bias)
    return conv


def _max_pooling(layer: nn.SpatialMaxPooling) -> torch.nn.MaxPool2d:
    assert layer.windows is not None
    rows, columns = layer.windows
    if rows.pad or columns.pad or rows.dilation != 1:
        raise UnsupportedError(f"layer {layer.name}: a padded pooling is not supported in a loss network")
    return torch.nn.MaxPool2d(
        (rows.kernel, columns.kernel), (rows.stride, columns.stride), ceil_mode=rows.ceil
    )
