"""Prototxt text as it is written, read back by Google's protobuf and by our own parser."""

from __future__ import annotations

import random

import pytest
from caffe_generate import message
from caffe_messages import CLASSES
from google.protobuf import text_format

from legacy_style.formats.caffe import caffemodel, prototxt, textformat, upgrade
from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter


def described(net: NetParameter) -> list[object]:
    return [
        net.name,
        net.inputs,
        net.input_dims,
        [
            (
                layer.name,
                layer.type,
                layer.bottoms,
                layer.tops,
                layer.params,
                layer.include,
                layer.exclude,
                layer.phase,
                layer.loss_weight,
                layer.param_specs,
            )
            for layer in net.layers
        ],
    ]


@pytest.mark.parametrize("seed", range(200))
def test_protobuf_reads_the_same_network(seed: int) -> None:
    made = message(random.Random(seed), "NetParameter", 0.5)
    for field in ("layers", "input_dim", "state", "force_backward", "debug_info"):
        made.ClearField(field)
    for layer in made.layer:
        # Random shapes do not fit random numbers; the text has no weights anyway.
        layer.ClearField("blobs")
    net = caffemodel.parse(made.SerializeToString())
    text = textformat.write(net)
    google = text_format.Parse(text, CLASSES["NetParameter"]())
    assert repr(described(caffemodel.parse(google.SerializeToString()))) == repr(described(net))
    ours = upgrade.net_parameter(prototxt.parse(text), "")
    assert repr(described(ours)) == repr(described(net))
    assert textformat.write(ours) == text


def test_the_text_of_a_layer() -> None:
    param = Message("PoolingParameter", pool="MAX", kernel_size=2, stride=2)
    layer = LayerParameter("pool1", "Pooling", ["conv1_2"], ["pool1"], params={"pooling_param": param})
    dropout = Message("DropoutParameter", dropout_ratio=0.10000000149011612)
    other = LayerParameter('d "1"\n', "Dropout", params={"dropout_param": dropout})
    assert textformat.write(NetParameter(name="VGG", layers=[layer, other])) == (
        'name: "VGG"\n'
        "layer {\n"
        '  name: "pool1"\n'
        '  type: "Pooling"\n'
        '  bottom: "conv1_2"\n'
        '  top: "pool1"\n'
        "  pooling_param {\n"
        "    pool: MAX\n"
        "    kernel_size: 2\n"
        "    stride: 2\n"
        "  }\n"
        "}\n"
        "layer {\n"
        '  name: "d \\"1\\"\\n"\n'
        '  type: "Dropout"\n'
        "  dropout_param {\n"
        "    dropout_ratio: 0.1\n"
        "  }\n"
        "}\n"
    )
