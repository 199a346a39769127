"""Which layers of a network belong to a phase, and which of them compute.

Ports Net<Dtype>::FilterNet and StateMeetsRule (caffe/net.cpp).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from legacy_style.errors import FormatError
from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter

# Layers that feed, judge or record a network: a train_val file has them where a deploy file has `input`.
DATA_TYPES = frozenset({"Data", "DummyData", "HDF5Data", "ImageData", "MemoryData", "WindowData"})
LOSS_TYPES = frozenset(
    {
        "ContrastiveLoss",
        "EuclideanLoss",
        "HingeLoss",
        "InfogainLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "SoftmaxWithLoss",
    }
)
SINK_TYPES = frozenset({"Accuracy", "HDF5Output", "Silence"})
_SET_ASIDE = DATA_TYPES | LOSS_TYPES | SINK_TYPES


def select(net: NetParameter, phase: str, *, level: int = 0, stages: Collection[str] = ()) -> NetParameter:
    """The network of one phase ("TRAIN" or "TEST"), level and set of stages, as `include` and `exclude` say.

    Data, accuracy and loss layers, and all layers of other phases, are in `set_aside`; the rest is shared
    with `net`. Raises FormatError for a layer with both kinds of rules, which Caffe refuses too.
    """
    kept, aside = list[LayerParameter](), list(net.set_aside)
    for layer in net.layers:
        if layer.include and layer.exclude:
            raise FormatError(
                f'{net.path}: layer "{layer.name}" has include and exclude rules, expected one kind only'
            )
        if layer.include:
            belongs = any(_meets(rule, phase, level, stages) for rule in layer.include)
        else:
            belongs = not any(_meets(rule, phase, level, stages) for rule in layer.exclude)
        (kept if belongs and layer.type not in _SET_ASIDE else aside).append(layer)
    return replace(net, layers=kept, set_aside=aside)


def _meets(rule: Message, phase: str, level: int, stages: Collection[str]) -> bool:
    """Whether the state meets every condition of a NetStateRule."""
    return (
        (not rule.has("phase") or rule["phase"] == phase)
        and (not rule.has("min_level") or level >= rule["min_level"])
        and (not rule.has("max_level") or level <= rule["max_level"])
        and all(stage in stages for stage in rule["stage"])
        and not any(stage in stages for stage in rule["not_stage"])
    )
