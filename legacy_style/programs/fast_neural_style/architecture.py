"""An architecture string such as `c9s1-32,d64,R64,u32,c9s1-3` -> an image transformation network with new weights.

Ports jcjohnson/fast-neural-style 813c834, fast_neural_style/models.lua (build_model, build_conv_block,
build_res_block), and the initial weights of torch/nn 8726825. Tokens, separated by commas:

* `c9s1-32`: convolution, kernel 9, stride 1, 32 filters;
* `f3s2-8`: transposed convolution, kernel 3, stride 2, 8 filters;
* `d64`: convolution 3x3 of stride 2; `u64`: transposed convolution 3x3 of stride 2, which doubles the size;
* `U2`: nearest neighbour upsampling, twice the size; `C64`: two convolutions 3x3, then ReLU; `R64`: a residual block.

Everything but C and R is followed by a norm and ReLU, U too, and the last token by neither. After it come
Tanh, MulConstant and TotalVariation.

Notes: characters are counted, not parsed, as in the original: the kernel is one digit. A kernel and a stride of
several digits, unknown letters, blanks and channel counts that do not fit ended the original with a Lua error, and
are errors here. `none` pads the first and last convolutions with zeros all the same: the original tests a misspelt
global.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from legacy_style.errors import OptionError
from legacy_style.programs.fast_neural_style.layers import (
    BatchNormalization,
    CAddTable,
    ConcatTable,
    InstanceNormalization,
    MulConstant,
    ShaveImage,
    TotalVariation,
)
from legacy_style.programs.fast_neural_style.values import Architecture
from legacy_style.torch7.cmdline import tonumber
from legacy_style.torch7.random import Generator

IMAGE_CHANNELS = 3

_PADDED_BY_MODULES = ("reflect", "replicate")
_CROPPED = ("none", "reflect-start")
"""Paddings with which a residual block's convolutions have none, so that its input must be cropped."""

_BLOCK_SHAVE = 2
"""What the two unpadded 3x3 convolutions of a block take away on each side."""


def build(architecture: Architecture, random: Generator | None = None) -> torch.nn.Sequential:
    """A new network, (N, 3, H, W) -> (N, 3, H', W'), with weights from `random` (from the system's entropy if None).

    Raises OptionError where the string does not describe a network.
    """
    random = Generator() if random is None else random
    tokens = architecture.arch.split(",")
    modules: list[torch.nn.Module] = []
    channels = IMAGE_CHANNELS
    for position, token in enumerate(tokens):
        is_last = position == len(tokens) - 1
        added, filters = _token(token, channels, architecture)
        modules += added
        if not is_last and token[0] not in "CR":
            modules += [_norm(filters, architecture), torch.nn.ReLU(inplace=True)]
        channels = filters
    modules += [torch.nn.Tanh(), MulConstant(architecture.tanh_constant)]
    modules.append(TotalVariation(architecture.tv_strength))
    model = torch.nn.Sequential(*modules)
    _draw_weights(model, random)
    return model


def _token(token: str, channels: int, architecture: Architecture) -> tuple[list[torch.nn.Module], int]:
    """The modules of one token and the number of their outputs."""
    kind = token[:1]
    if kind == "c":
        kernel, stride, filters = (_number(token, at) for at in (token[1:2], token[3:4], token[5:]))
        pad = (kernel - 1) / 2
        if architecture.padding_type not in _PADDED_BY_MODULES:
            return [torch.nn.Conv2d(channels, filters, kernel, stride, int(pad))], filters
        if pad != int(pad):
            raise _error(token, f"an even kernel cannot be padded with {architecture.padding_type}")
        unpadded = torch.nn.Conv2d(channels, filters, kernel, stride)
        return [_padding(int(pad), architecture.padding_type), unpadded], filters
    if kind == "f":
        kernel, stride, filters = (_number(token, at) for at in (token[1:2], token[3:4], token[5:]))
        pad = (kernel - 1) // 2
        return [torch.nn.ConvTranspose2d(channels, filters, kernel, stride, pad, stride - 1)], filters
    if kind == "d":
        filters = _number(token, token[1:])
        return [torch.nn.Conv2d(channels, filters, 3, 2, 1)], filters
    if kind == "u":
        filters = _number(token, token[1:])
        return [torch.nn.ConvTranspose2d(channels, filters, 3, 2, 1, 1)], filters
    if kind == "U":
        return [torch.nn.Upsample(scale_factor=_number(token, token[1:]), mode="nearest")], channels
    if kind not in ("C", "R"):
        raise _error(token, "it begins with none of the letters c, f, d, u, U, C and R")
    if _number(token, token[1:]) != channels:
        raise _error(token, f"this block must have as many filters as it has inputs, {channels}")
    block = _block(channels, architecture)
    if kind == "C":
        return [block, torch.nn.ReLU(inplace=True)], channels
    return [torch.nn.Sequential(ConcatTable([block, _shortcut(token, architecture)]), CAddTable())], channels


def _block(channels: int, architecture: Architecture) -> torch.nn.Sequential:
    """Two 3x3 convolutions with a norm each, and a ReLU between them."""
    kind = architecture.padding_type
    modules: list[torch.nn.Module] = []
    for number in (1, 2):
        if kind in _PADDED_BY_MODULES:
            modules.append(_padding(1, kind))
        modules.append(torch.nn.Conv2d(channels, channels, 3, padding=1 if kind == "zero" else 0))
        modules.append(_norm(channels, architecture))
        if number == 1:
            modules.append(torch.nn.ReLU(inplace=True))
    return torch.nn.Sequential(*modules)


def _shortcut(token: str, architecture: Architecture) -> torch.nn.Module:
    """The way round a residual block, cropped where the block is."""
    kind = architecture.padding_type
    if kind in _CROPPED:
        return ShaveImage(_BLOCK_SHAVE)
    if kind not in ("zero", *_PADDED_BY_MODULES):
        raise _error(
            token,
            f"with -padding_type {kind!r}, which is none of reflect, reflect-start, replicate, zero and none, the two"
            " ways through the block have different sizes",
        )
    return torch.nn.Identity()


def _padding(size: int, kind: str) -> torch.nn.Module:
    return torch.nn.ReflectionPad2d(size) if kind == "reflect" else torch.nn.ReplicationPad2d(size)


def _norm(channels: int, architecture: Architecture) -> torch.nn.Module:
    if architecture.use_instance_norm:
        return InstanceNormalization(channels)
    return BatchNormalization(channels)


def _number(token: str, digits: str) -> int:
    value = tonumber(digits)
    if value is None or not math.isfinite(value) or value < 1 or value != int(value):
        raise _error(token, f"{digits!r} is not a whole number of 1 or more")
    return int(value)


def _error(token: str, reason: str) -> OptionError:
    return OptionError(
        f"-arch: {token!r} is not a layer: {reason}; write for example c9s1-32,d64,R64,u32,c9s1-3, without blanks"
    )


@torch.no_grad()
def _draw_weights(model: torch.nn.Module, random: Generator) -> None:
    """Initial weights in the order in which the original makes its modules: weight, then bias.

    Convolutions: uniform in +-1 / sqrt(kernel area * inputs), for the bias too (nn/SpatialConvolution.lua, reset);
    norms: weight uniform in [0, 1), bias 0.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            kernel = module.kernel_size
            bound = 1 / math.sqrt(kernel[0] * kernel[1] * module.in_channels)
            assert module.bias is not None
            for parameter in (module.weight, module.bias):
                parameter.copy_(_uniform(random, parameter, -bound, bound))
        elif isinstance(module, InstanceNormalization | torch.nn.BatchNorm2d):
            module.weight.copy_(_uniform(random, module.weight, 0, 1))
            module.bias.zero_()


def _uniform(random: Generator, like: Tensor, low: float, high: float) -> Tensor:
    """Torch7's `tensor:uniform(low, high)`, in float64."""
    return torch.from_numpy(random.uniform(like.numel()) * (high - low) + low).view(like.shape)
