"""Network in Network as neural-style ports have it: nin_imagenet.pth, whose keys count the modules of `features`.

The layers are those of M. Lin, Q. Chen, S. Yan, arXiv:1312.4400, as the model zoo's network for ImageNet has them;
their names are neural-style-pt's, which are Caffe's but for the pooling layers. There is no relu4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from legacy_style.errors import WeightMismatchError
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message

_KEY = re.compile(r"(?:.*\.)?features\.(\d+)\.(weight|bias)")

# Place among `features`, Caffe's name, kernel, stride, padding; and the name of the ReLU behind it.
_CONVOLUTIONS = (
    (0, "conv1", 11, 4, 0, "relu0"),
    (2, "cccp1", 1, 1, 0, "relu1"),
    (4, "cccp2", 1, 1, 0, "relu2"),
    (7, "conv2", 5, 1, 2, "relu3"),
    (9, "cccp3", 1, 1, 0, "relu5"),
    (11, "cccp4", 1, 1, 0, "relu6"),
    (14, "conv3", 3, 1, 1, "relu7"),
    (16, "cccp5", 1, 1, 0, "relu8"),
    (18, "cccp6", 1, 1, 0, "relu9"),
    (22, "conv4-1024", 3, 1, 1, "relu10"),
    (24, "cccp7-1024", 1, 1, 0, "relu11"),
    (26, "cccp8-1024", 1, 1, 0, "relu12"),
)
# Behind the ReLU of that convolution: name, kind, kernel, stride. Dropout follows the third.
_POOLING = {
    "cccp2": ("pool1", "MAX", 3, 2),
    "cccp4": ("pool2", "MAX", 3, 2),
    "cccp6": ("pool3", "MAX", 3, 2),
    "cccp8-1024": ("pool4", "AVE", 6, 1),
}


def parts(blobs: Mapping[str, Blob]) -> dict[int, dict[str, Blob]]:
    """Place -> "weight" and, if it has one, "bias", where these are the network's keys and kernels; else nothing.

    The last convolutions may be missing.
    """
    found: dict[int, dict[str, Blob]] = {}
    for key, blob in blobs.items():
        match = _KEY.fullmatch(key)
        if match is None or match[2] in found.setdefault(int(match[1]), {}):
            return {}
        found[int(match[1])][match[2]] = blob
    expected = [(place, kernel, kernel) for place, _, kernel, *_ in _CONVOLUTIONS]
    kernels = [(place, *of["weight"].shape[2:]) for place, of in sorted(found.items()) if "weight" in of]
    return found if len(kernels) == len(found) and kernels == expected[: len(found)] else {}


def layers(weights: Mapping[int, Mapping[str, Blob]], path: str) -> list[LayerParameter]:
    """The V2 layers of the network that has these weights: place -> "weight" and, if it has one, "bias".

    The widths are the file's own. Raises WeightMismatchError where they do not fit together.
    """
    chain: list[LayerParameter] = []
    top, channels = "data", 3
    for place, name, kernel, stride, pad, rectifier in _CONVOLUTIONS[: len(weights)]:
        blobs = _blobs(weights[place], channels, f"{path}: features.{place}")
        channels = blobs[0].shape[0]
        values = {"num_output": channels, "pad": [pad], "kernel_size": [kernel], "stride": [stride]}
        if len(blobs) == 1:
            values["bias_term"] = False
        param = {"convolution_param": Message("ConvolutionParameter", **values)}
        chain.append(LayerParameter(name, "Convolution", [top], [name], blobs, param))
        chain.append(LayerParameter(rectifier, "ReLU", [name], [name]))
        top = name
        if name in _POOLING:
            pool, kind, size, step = _POOLING[name]
            pooling = Message("PoolingParameter", pool=kind, kernel_size=size, stride=step)
            chain.append(LayerParameter(pool, "Pooling", [top], [pool], params={"pooling_param": pooling}))
            top = pool
        if top == "pool3":
            half = {"dropout_param": Message("DropoutParameter", dropout_ratio=0.5)}
            chain.append(LayerParameter("drop", "Dropout", [top], [top], params=half))
    return chain


def _blobs(parts: Mapping[str, Blob], channels: int, where: str) -> list[Blob]:
    blobs = [parts["weight"], *([parts["bias"]] if "bias" in parts else [])]
    shape = blobs[0].shape
    if shape[1] != channels:
        raise WeightMismatchError(
            f"{where}.weight has the shape {shape}, expected {channels} channels in, as many as come out before it"
        )
    if len(blobs) == 2 and blobs[1].shape != shape[:1]:
        raise WeightMismatchError(f"{where}.bias has the shape {blobs[1].shape}, expected {shape[:1]}")
    return blobs
