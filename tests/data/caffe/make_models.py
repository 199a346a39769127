"""Writes the small .caffemodel files of this folder with Google's protobuf: `python make_models.py`.

One network in the three versions of Caffe's format, and in V2 with its numbers in every form that a BlobProto
has. protobuf 7.36.2, numpy 2.4.6 wrote the files that are here.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from caffe_generate import odd_bytes  # noqa: E402 (the path comes first)
from caffe_messages import CLASSES  # noqa: E402

RNG = np.random.default_rng(0)
# Blob name -> values: a 3x3 and a grouped 1x1 convolution, a fully connected layer.
BLOBS = {
    name: RNG.standard_normal(shape, dtype=np.float32)
    for name, shape in {
        "conv1.weight": (4, 3, 3, 3),
        "conv1.bias": (4,),
        "conv2.weight": (6, 2, 1, 1),
        "conv2.bias": (6,),
        "fc3.weight": (5, 6 * 4 * 4),
        "fc3.bias": (5,),
    }.items()
}


def fill(blob: Any, name: str, form: str) -> None:
    """Set a BlobProto to the values of that name: "legacy", "shape", "double" or "both"."""
    values = BLOBS[name]
    if form in ("legacy", "both"):
        dims = (1,) * (4 - values.ndim) + values.shape
        blob.num, blob.channels, blob.height, blob.width = dims
    if form != "legacy":
        # Where both are given, shape does not count.
        blob.shape.dim.extend(values.shape if form != "both" else (7, 7))
    (blob.double_data if form == "double" else blob.data).extend(values.reshape(-1).tolist())


def v0() -> Any:
    """The network as of 2013: a layer of its own for padding, parameters in one message for all types."""
    net = CLASSES["NetParameter"](name="small", input=["data"], input_dim=[1, 3, 8, 8])

    def add(bottom: str, top: str, **fields: Any) -> Any:
        connection = net.layers.add(bottom=[bottom], top=[top])
        connection.layer.MergeFrom(CLASSES["V0LayerParameter"](**fields))
        for part in ("weight", "bias"):
            if f"{fields['name']}.{part}" in BLOBS:
                fill(connection.layer.blobs.add(), f"{fields['name']}.{part}", "legacy")
        return connection

    add("data", "padded", name="pad1", type="padding", pad=1)
    conv1 = add("padded", "conv1", name="conv1", type="conv", num_output=4, kernelsize=3)
    conv1.layer.blobs_lr.extend([1, 2])
    conv1.layer.weight_decay.extend([1, 0])
    conv1.layer.weight_filler.type = "gaussian"
    add("conv1", "conv1", name="relu1", type="relu")
    add("conv1", "pool1", name="pool1", type="pool", pool=1, kernelsize=2, stride=2)
    add("pool1", "norm1", name="norm1", type="lrn", local_size=3, alpha=0.5, beta=0.5)
    add("norm1", "conv2", name="conv2", type="conv", num_output=6, kernelsize=1, group=2, biasterm=True)
    add("conv2", "conv2", name="drop2", type="dropout", dropout_ratio=0.25)
    add("conv2", "fc3", name="fc3", type="innerproduct", num_output=5)
    add("fc3", "prob", name="prob", type="softmax")
    return net


# Name, V1 type, V2 type, bottom, top, parameters: the same network, as V1 and V2 have it.
LAYERS: list[tuple[str, str, str, str, str, dict[str, Any]]] = [
    (
        "conv1",
        "CONVOLUTION",
        "Convolution",
        "data",
        "conv1",
        {
            "convolution_param": {
                "num_output": 4,
                "pad": [1],
                "kernel_size": [3],
                "weight_filler": {"type": "gaussian"},
            }
        },
    ),
    ("relu1", "RELU", "ReLU", "conv1", "conv1", {}),
    (
        "pool1",
        "POOLING",
        "Pooling",
        "conv1",
        "pool1",
        {"pooling_param": {"pool": "AVE", "kernel_size": 2, "stride": 2}},
    ),
    (
        "norm1",
        "LRN",
        "LRN",
        "pool1",
        "norm1",
        {"lrn_param": {"local_size": 3, "alpha": 0.5, "beta": 0.5}},
    ),
    (
        "conv2",
        "CONVOLUTION",
        "Convolution",
        "norm1",
        "conv2",
        {"convolution_param": {"num_output": 6, "bias_term": True, "kernel_size": [1], "group": 2}},
    ),
    ("drop2", "DROPOUT", "Dropout", "conv2", "conv2", {"dropout_param": {"dropout_ratio": 0.25}}),
    ("fc3", "INNER_PRODUCT", "InnerProduct", "conv2", "fc3", {"inner_product_param": {"num_output": 5}}),
    ("prob", "SOFTMAX", "Softmax", "fc3", "prob", {}),
]


def v1(form: str = "legacy") -> Any:
    """The network as of 2014, the form that VGG-19 has."""
    net = CLASSES["NetParameter"](name="small", input=["data"], input_dim=[1, 3, 8, 8])
    for name, kind, _, bottom, top, params in LAYERS:
        layer = net.layers.add(name=name, type=kind, bottom=[bottom], top=[top], **params)
        if name == "conv1":
            layer.blobs_lr.extend([1, 2])
            layer.weight_decay.extend([1, 0])
        for part in ("weight", "bias"):
            if f"{name}.{part}" in BLOBS:
                fill(layer.blobs.add(), f"{name}.{part}", form)
    return net


def v2(form: str = "shape") -> Any:
    """The network as of 2015."""
    net = CLASSES["NetParameter"](name="small", input=["data"])
    net.input_shape.add(dim=[1, 3, 8, 8])
    for name, _, kind, bottom, top, params in LAYERS:
        layer = net.layer.add(name=name, type=kind, bottom=[bottom], top=[top], **params)
        if name == "conv1":
            layer.param.add(lr_mult=1, decay_mult=1)
            layer.param.add(lr_mult=2, decay_mult=0)
        for part in ("weight", "bias"):
            if f"{name}.{part}" in BLOBS:
                fill(layer.blobs.add(), f"{name}.{part}", form)
    return net


def main() -> None:
    """Write the files."""
    files = {
        "v0": v0().SerializeToString(),
        "v1": v1().SerializeToString(),
        "v1_shape": v1("shape").SerializeToString(),
        "v2": v2().SerializeToString(),
        "v2_legacy": v2("legacy").SerializeToString(),
        "v2_both": v2("both").SerializeToString(),
        "v2_double": v2("double").SerializeToString(),
        "v2_odd": odd_bytes(random.Random(5), v2(), exact=True),
    }
    for name, content in files.items():
        (HERE / f"{name}.caffemodel").write_bytes(content)


if __name__ == "__main__":
    main()
