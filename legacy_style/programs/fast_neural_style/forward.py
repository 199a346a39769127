"""The forward pass of a trained network, laid out for the device: what the program and its benchmark run.

On the CPU: channels-last feature maps; batch norms are folded into the convolutions before them, and biases that an
instance norm takes out are left out; instance norms work in place, a block of rows at a time, with the ReLU or the sum
behind them; Winograd's convolution where it is faster, with the padding module before it; convolutions to a few
channels give blocks of pixels; nearest upsampling is folded into the convolution behind it. On CUDA: channels-last, and
a CUDA graph from the second image of one size on. What is not recognised runs as the module that it is. Results differ
from the modules' by float32 roundings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legacy_style.engine.graphs import CudaRecorder
from legacy_style.engine.kernels import norms, shuffled, winograd
from legacy_style.engine.machine import in_float32
from legacy_style.programs.fast_neural_style import layers, shapes

Step = Callable[[Tensor], Tensor]
"""Feature maps to feature maps, (1, C, H, W); may overwrite its input where it follows a step that made it."""

CL = torch.channels_last


class Forward:
    """A network on a device: images (1, 3, H, W), float32 on the CPU, to the network's output there."""

    def __init__(self, network: nn.Module, device: torch.device, *, autotune: bool = False) -> None:
        self.autotune = autotune
        self._run = _on_cuda(network, device) if device.type == "cuda" else _on_cpu(network)

    @in_float32
    def __call__(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._run(x)


def _on_cpu(network: nn.Module) -> Step:
    steps = _compile(list(network) if isinstance(network, nn.Sequential) else [network])

    def run(x: Tensor) -> Tensor:
        x = x.clone(memory_format=CL)
        for step in steps:
            x = step(x)
        return x.contiguous()

    return run


def _on_cuda(network: nn.Module, device: torch.device) -> Step:
    """Replays a CUDA graph where two images of one size follow each other."""
    placed = copy.deepcopy(network).to(device, memory_format=CL)  # type: ignore[call-overload]
    last: torch.Size | None = None
    replay: Callable[[], None] | None = None
    source = target = torch.empty(0)

    def run(x: Tensor) -> Tensor:
        nonlocal last, replay, source, target
        if x.shape != last:
            last, replay = x.shape, None
            source = target = torch.empty(0)
            y: Tensor = placed(x.to(device, memory_format=CL))
            return y.cpu()
        if replay is None:
            source = x.to(device, memory_format=CL)
            target, replay = CudaRecorder(device).record(lambda: placed(source))
        else:
            source.copy_(x)
        replay()
        return target.cpu()

    return run


def _compile(modules: Sequence[nn.Module]) -> list[Step]:
    """The modules as steps; the first of them must be one that does not overwrite its input, or may."""
    flat = _sink_upsampling(_flatten(modules))
    steps: list[Step] = []
    position = 0
    while position < len(flat):
        step, taken = _next(flat[position:])
        steps.append(step)
        position += taken
    return steps


def _flatten(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules in order, nested chains opened, what does nothing left out."""
    flat: list[nn.Module] = []
    for module in modules:
        if isinstance(module, nn.Sequential) and _residual(module) is None:
            flat += _flatten(list(module))
        elif not isinstance(module, nn.Identity | layers.TotalVariation | nn.Dropout):
            flat.append(module)
    return flat


def _sink_upsampling(modules: list[nn.Module]) -> list[nn.Module]:
    """The same with upsampling behind the norm and ReLU that follow it: repeated pixels change no statistics."""
    sunk = list(modules)
    for i in range(len(sunk) - 1):
        pointwise = isinstance(sunk[i + 1], layers.InstanceNormalization | nn.BatchNorm2d | nn.ReLU)
        if isinstance(sunk[i], nn.Upsample) and pointwise:
            sunk[i], sunk[i + 1] = sunk[i + 1], sunk[i]
    return sunk


def _next(modules: Sequence[nn.Module]) -> tuple[Step, int]:
    """The step that does the first of `modules`, and how many of them it does."""
    first = modules[0]
    residual = _residual(first)
    if residual is not None:
        return _residual_step(*residual), 1
    if isinstance(first, (nn.Upsample, nn.Conv2d, nn.ConvTranspose2d, *_PADDING)):
        convolution = _convolution(modules)
        if convolution is not None:
            return convolution
    if isinstance(first, layers.InstanceNormalization):
        relu = _has(modules, 1, nn.ReLU)
        return partial(_normalise, first, relu), 1 + relu
    if isinstance(first, nn.Tanh):
        return torch.tanh_, 1
    if isinstance(first, layers.MulConstant):
        return partial(_multiply, first.constant), 1
    return first, 1


def _has(modules: Sequence[nn.Module], position: int, kind: type[nn.Module]) -> bool:
    return position < len(modules) and isinstance(modules[position], kind)


def _normalise(
    norm: layers.InstanceNormalization, relu: bool, x: Tensor, plus: Tensor | None = None
) -> Tensor:
    x = x.contiguous(memory_format=CL)
    return norms.instance_norm_(x, norm.weight, norm.bias, norm.eps, relu=relu, plus=plus)


def _multiply(constant: float, x: Tensor) -> Tensor:
    return x.mul_(constant)


# Residual blocks


def _residual(module: nn.Module) -> tuple[list[nn.Module], int] | None:
    """The branch of a residual block that begins with a convolution, and how much is cropped from its input."""
    if not (
        isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], layers.CAddTable)
    ):
        return None
    table = module[0]
    if not (
        isinstance(table, layers.ConcatTable) and len(table) == 2 and isinstance(table[0], nn.Sequential)
    ):
        return None
    if not isinstance(table[1], nn.Identity | layers.ShaveImage):
        return None
    branch = _flatten(list(table[0]))
    # What comes first must leave its input as it is, for that is added in the end.
    if not branch or not isinstance(branch[0], nn.Conv2d | nn.ReflectionPad2d | nn.ReplicationPad2d):
        return None
    return branch, table[1].size if isinstance(table[1], layers.ShaveImage) else 0


def _residual_step(branch: list[nn.Module], shave: int) -> Step:
    last = branch[-1]
    norm = last if isinstance(last, layers.InstanceNormalization) else None
    # The norm must follow a convolution in the compiled steps too, so that the convolution's bias is left out.
    steps = _compile(branch)
    if norm is not None:
        steps = steps[:-1]

    def step(x: Tensor) -> Tensor:
        y = x
        for each in steps:
            y = each(y)
        plus = x[:, :, shave : x.shape[2] - shave, shave : x.shape[3] - shave]
        return y.add_(plus) if norm is None else _normalise(norm, False, y, plus)

    return step


# Convolutions

_PADDING = (nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d)


def _convolution(modules: Sequence[nn.Module]) -> tuple[Step, int] | None:
    """A convolution with the upsampling and padding before it, the batch norm and ReLU behind it, if there is one."""
    at = 0
    upsampled = isinstance(modules[0], nn.Upsample)
    at += upsampled
    pad = modules[at] if at < len(modules) and isinstance(modules[at], _PADDING) else None
    at += pad is not None
    convolution = modules[at] if at < len(modules) else None
    if not isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
        return None
    taken = at + 1
    weight, bias = convolution.weight, convolution.bias
    if _has(modules, taken, nn.BatchNorm2d):
        weight, bias = _folded(convolution, modules[taken])
        taken += 1
    elif _has(modules, taken, layers.InstanceNormalization):
        bias = None  # the norm takes it out again
    weight = weight.detach().contiguous(memory_format=CL)
    bias = None if bias is None else bias.detach()
    if upsampled:
        folded = _behind_upsampling(modules[0], pad, convolution, weight, bias)
        if folded is None:
            return None
        step = folded
    elif isinstance(convolution, nn.ConvTranspose2d):
        step = _after(pad, _transposed(convolution, weight, bias))
    else:
        step = _direct(pad, convolution, weight, bias)
    if _has(modules, taken, nn.ReLU):
        return partial(_relu, step), taken + 1
    return step, taken


def _relu(step: Step, x: Tensor) -> Tensor:
    return step(x).relu_()


def _folded(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with a batch norm behind it, which works with its stored statistics."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = 1 / (norm.running_var.double() + norm.eps).sqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    outputs = (1, -1, 1, 1) if isinstance(convolution, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    bias = (0 if convolution.bias is None else convolution.bias.double()) - norm.running_mean.double()
    bias = bias * scale + (0 if norm.bias is None else norm.bias.double())
    return (convolution.weight.double() * scale.view(outputs)).float(), bias.float()


def _after(pad: nn.Module | None, step: Step) -> Step:
    return step if pad is None else lambda x: step(pad(x))


def _transposed(convolution: nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None) -> Step:
    of = convolution
    assert not isinstance(of.padding, str)
    padding = (of.padding[0], of.padding[1])
    return lambda x: F.conv_transpose2d(
        x, weight, bias, of.stride, padding, of.output_padding, of.groups, of.dilation
    )


def _direct(pad: nn.Module | None, convolution: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Step:
    """The chooser: the fastest way to convolve with this weight on a CPU."""
    of = convolution
    assert not isinstance(of.padding, str)
    padding = (of.padding[0], of.padding[1])
    plain = of.stride == (1, 1) and of.dilation == (1, 1) and of.groups == 1
    border = _border(pad, padding)
    if plain and border is not None and winograd.suits(weight, (1, 1)):
        kernels = winograd.transform_kernels(weight)
        return partial(winograd.convolve, kernels, bias, border=border)
    if plain and shuffled.suits_few(weight):
        kernels = shuffled.block_kernels(weight)
        return _after(pad, partial(shuffled.to_few, kernels, bias, pad=padding))
    return _after(pad, lambda x: F.conv2d(x, weight, bias, of.stride, padding, of.dilation, of.groups))


def _border(pad: nn.Module | None, padding: tuple[int, int]) -> str | None:
    """How the kernels of engine.kernels call this padding in front of a 3x3 convolution; None where they cannot."""
    if pad is None:
        return {(1, 1): "zero", (0, 0): "none"}.get(padding)
    if padding != (0, 0) or tuple(pad.padding) != (1, 1, 1, 1):  # type: ignore[arg-type]
        return None
    if isinstance(pad, nn.ReflectionPad2d):
        return "reflect"
    return "replicate" if isinstance(pad, nn.ReplicationPad2d) else "zero"


def _behind_upsampling(
    upsampling: nn.Module, pad: nn.Module | None, convolution: nn.Module, weight: Tensor, bias: Tensor | None
) -> Step | None:
    """A 3x3 convolution behind nearest upsampling to twice the size; None where it is another one."""
    if not isinstance(convolution, nn.Conv2d) or isinstance(convolution.padding, str):
        return None
    border = _border(pad, (convolution.padding[0], convolution.padding[1]))
    plain = (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
    assert isinstance(upsampling, nn.Upsample)
    if not plain or tuple(weight.shape[2:]) != (3, 3) or border in (None, "none"):
        return None
    if upsampling.mode != "nearest" or shapes.upsampling(upsampling) != 2:
        return None
    kernels = shuffled.upsampled_kernels(weight)
    return partial(shuffled.behind_upsampling, kernels, bias, border=str(border))
