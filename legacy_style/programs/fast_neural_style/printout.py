"""A network as Torch7 prints it: `nn.Sequential {` and so on, the lines of `print(model)`.

Ports the __tostring__ of torch/nn 8726825 (Sequential, ConcatTable, SpatialConvolution, SpatialFullConvolution,
SpatialMaxPooling, BatchNormalization, SpatialReflectionPadding, Linear, View, Dropout). Other modules print their
name alone. Numbers along a width come first.
"""

from __future__ import annotations

from torch import nn

from legacy_style.programs.fast_neural_style import layers


def describe(module: nn.Module) -> str:
    """What print(module) shows, without the line end after it."""
    if isinstance(module, nn.Sequential):
        return _sequential(module)
    if isinstance(module, layers.ConcatTable):
        return _concat_table(module)
    name = f"nn.{layers.torch7_name(module)}"
    if isinstance(module, nn.Conv2d):
        return f"{name}({_convolution(module)})"
    if isinstance(module, nn.ConvTranspose2d):
        adjustment = _pair(module.output_padding)
        return f"{name}({_convolution(module)}{f', {adjustment}' if adjustment != '0,0' else ''})"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        stride, pad = _pair(module.stride), _pair(module.padding)
        return f"{name}({_size(module.kernel_size)}, {stride}{f', {pad}' if pad != '0,0' else ''})"
    if isinstance(module, nn.BatchNorm2d):
        return f"{name} (4D) ({module.num_features})"
    if isinstance(module, nn.ReflectionPad2d | nn.ReplicationPad2d | nn.ZeroPad2d):
        sides = ", ".join(f"{side}={size}" for side, size in zip("lrtb", module.padding, strict=True))
        return f"{name}({sides})"
    if isinstance(module, nn.Linear):
        return f"{name}({module.in_features} -> {module.out_features})"
    if isinstance(module, nn.Dropout):
        return f"{name}({module.p:f})"
    return f"{name}(-1)" if isinstance(module, layers.View) else name


def _sequential(module: nn.Sequential) -> str:
    places = [f"({number}) -> " for number in range(1, len(module) + 1)]
    lines = ["nn.Sequential {", f"  [input -> {''.join(places)}output]"]
    for number, child in enumerate(module, 1):
        lines.append(f"  ({number}): {_indented(describe(child), '  ')}")
    return "\n".join([*lines, "}"])


def _concat_table(module: layers.ConcatTable) -> str:
    lines = ["nn.ConcatTable {", "  input"]
    for number, child in enumerate(module, 1):
        is_last = number == len(module)
        lead, below = ("   `-> ", "      ") if is_last else ("    |`-> ", "    |    ")
        lead = "     `-> " if is_last else lead
        lines.append(f"{lead}({number}): {_indented(describe(child), below if not is_last else '         ')}")
    return "\n".join([*lines, "     ... -> output", "}"])


def _indented(text: str, indent: str) -> str:
    return text.replace("\n", f"\n{indent}")


def _convolution(module: nn.Conv2d | nn.ConvTranspose2d) -> str:
    """3 -> 8, 9x9, 1,1, 4,4: stride and padding only where they are not all 1 and 0 (SpatialConvolution.lua)."""
    text = f"{module.in_channels} -> {module.out_channels}, {_size(module.kernel_size)}"
    assert not isinstance(module.padding, str)
    stride, pad = _pair(module.stride), _pair(module.padding)
    if (stride, pad) != ("1,1", "0,0"):
        text += f", {stride}"
    if pad != "0,0":
        text += f", {pad}"
    return text


def _pair(value: int | tuple[int, ...]) -> str:
    vertical, horizontal = (value, value) if isinstance(value, int) else value
    return f"{horizontal},{vertical}"


def _size(value: int | tuple[int, ...]) -> str:
    return _pair(value).replace(",", "x")
