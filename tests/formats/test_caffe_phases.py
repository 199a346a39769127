"""Which layers compute features, and which only feed, judge or record a network."""

from __future__ import annotations

from legacy_style.formats.caffe import phases, prototxt, upgrade
from legacy_style.formats.caffe.netparam import NetParameter


def net(text: str) -> NetParameter:
    return upgrade.net_parameter(prototxt.parse(text), "net")


TRAINED = """
layer { name: 'data' type: 'AnnotatedData' top: 'data' top: 'label' }
layer { name: 'more' type: 'Python' top: 'sizes' }
layer { name: 'shrunk' type: 'Interp' bottom: 'label' top: 'shrunk' }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' }
layer { name: 'pool' type: 'ROIPooling' bottom: 'conv' bottom: 'label' top: 'pool' }
layer { name: 'score' type: 'InnerProduct' bottom: 'pool' top: 'score' }
layer { name: 'crop' type: 'Crop' bottom: 'score' bottom: 'data' top: 'cropped' }
layer { name: 'loss' type: 'MultiBoxLoss' bottom: 'cropped' bottom: 'shrunk' top: 'loss' }
layer { name: 'judge' type: 'SegAccuracy' bottom: 'cropped' bottom: 'label' top: 'accuracy' }
layer { name: 'aux' type: 'Reduction' bottom: 'conv' top: 'aux' loss_weight: 0.3 }
layer { name: 'writer' type: 'MatWrite' bottom: 'cropped' }
layer { name: 'silence' type: 'Silence' bottom: 'sizes' }
"""


def test_layers_that_feed_or_measure_are_known_by_their_connections_whatever_their_type() -> None:
    trained = net(TRAINED)
    left_out = [trained.layers[index].name for index in sorted(phases.outside_inference(trained))]
    assert left_out == ["data", "more", "shrunk", "loss", "judge", "aux", "writer", "silence"]


def test_the_image_is_what_a_data_layer_makes_first_or_calls_data() -> None:
    named = net("layer { name: 'a' type: 'Python' top: 'label' top: 'data' }")
    assert phases.image_blobs(named) == {"data"}
    first = net("input: 'x' layer { name: 'a' type: 'ImageSegData' top: 'image' top: 'label' }")
    assert phases.image_blobs(first) == {"data", "x", "image"}


def test_a_layer_without_bottom_that_has_weights_feeds_nothing() -> None:
    weighted = net("layer { name: 'p' type: 'Parameter' top: 'p' blobs { shape { dim: 1 } data: 1 } }")
    assert phases.outside_inference(weighted) == set()
