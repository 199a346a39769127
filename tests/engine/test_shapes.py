"""legacy_style.engine.sizes: sizes are those that layers make, and images or weights that do not fit are refused."""

import re

import numpy as np
import pytest
import thin_networks as thin
import torch

from legacy_style.engine import sizes
from legacy_style.engine.losses import StyleLoss
from legacy_style.engine.network import Network
from legacy_style.errors import OptionError, WeightMismatchError
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.torch7 import nn


@pytest.mark.parametrize(("height", "width"), [(111, 111), (104, 131)])
@pytest.mark.parametrize(("name", "pooling"), thin.POOLINGS)
def test_shapes_are_those_that_layers_make(name, pooling, height, width):
    net = thin.build(thin.load(name), [], thin.LAYERS[name][1][-1:], pooling=pooling)
    steps = list(sizes.walk(net, height, width))
    assert [step for step, _, _ in steps] == net.steps
    x = torch.zeros(1, 3, height, width)
    for step, before, after in steps:
        assert tuple(x.shape[1:]) == before
        x = step.forward(x) if isinstance(step, nn.Layer) else x
        assert tuple(x.shape[1:]) == after


def test_layers_that_take_the_whole_image():
    up = nn.SpatialFullConvolution(
        "up", torch.zeros(3, 2, 4, 3), None, stride=(2, 3), pad=(1, 0), dilation=(1, 2), groups=1
    )
    flat = [nn.GlobalPooling("all", maximum=True), nn.View("flat"), nn.Linear("fc", torch.zeros(5, 2), None)]
    layers = [up, *flat, nn.softmax("prob")]
    found = [after for _, _, after in sizes.walk(Network(layers), 7, 5)]
    # 6 strides of 2 and 4 rows, less a row of padding on either side; 4 strides of 3 and 5 columns.
    assert found == [(2, 14, 17), (2, 1, 1), (2, 1, 1), (5, 1, 1), (5, 1, 1)]
    x = torch.zeros(1, 3, 7, 5)
    for layer, shape in zip(layers, found, strict=True):
        x = layer.forward(x)
        assert (*x.shape[1:], 1, 1)[:3] == shape


@pytest.mark.parametrize(("height", "width"), [(111, 110), (67, 67), (227, 227)])
def test_an_image_of_another_size_than_a_fully_connected_layer_takes(height, width):
    net = thin.build(thin.load("caffenet"), ["fc6"], [])
    if (height, width) == (111, 110):
        sizes.check(net, "content", height, width)
        return
    message = (
        f"the style image ({width}x{height}) does not suit layer fc6, which takes 144 values and would get "
    )
    with pytest.raises(OptionError, match=re.escape(message)):
        sizes.check(net, "style", height, width)


# caffenet: 11 pixels and 4 more for each output of conv1, of which three poolings of 3 to 1, rounded up, leave one
# pixel of 8. oddconv: c2 is three columns wide and not padded.
@pytest.mark.parametrize(
    ("name", "pooling", "least"),
    [("vgg19", "max", 1), ("vgg19", "avg", 16), ("caffenet", "max", 39), ("oddconv", "max", 3)],
)
def test_the_smallest_image_is_the_one_of_which_the_deepest_layer_has_a_pixel_left(name, pooling, least):
    net = thin.build(thin.load(name), *thin.LAYERS[name], pooling=pooling)
    sizes.check(net, "content", least, least)
    losses, grad = thin.evaluate(net, *(thin.smooth(least, least, seed) for seed in (1, 2, 3)), 0)
    assert np.isfinite([*losses, *grad.flatten().tolist()]).all()
    if least > 1:
        message = rf"the content image is too small \({least - 1}x{least}\): nothing of it is left at layer "
        with pytest.raises(OptionError, match=message):
            sizes.check(net, "content", least, least - 1)


def convolution(name, outputs, inputs, groups=1):
    message = Message("ConvolutionParameter", num_output=outputs, kernel_size=[1], group=groups)
    blob = Blob.from_array(np.zeros((outputs, inputs, 1, 1)))
    return LayerParameter(name, "Convolution", [], [], [blob], {"convolution_param": message})


def test_weights_for_other_channels():
    net = NetParameter(layers=[convolution("first", 6, 3), convolution("second", 4, 2, groups=2)])
    message = "layer second has weights for 4 channels and would get 6"
    with pytest.raises(WeightMismatchError, match=message):
        sizes.check(thin.build(net, ["second"], []), "content", 5, 5)
    sizes.check(thin.build(net, ["first"], []), "content", 5, 5)
    net.layers[1:] = [LayerParameter("scaled", "Scale", [], [], [Blob.from_array(np.ones(5))])]
    message = "layer scaled has weights for 5 channels and would get 6"
    with pytest.raises(WeightMismatchError, match=message):
        sizes.check(thin.build(net, ["scaled"], []), "content", 5, 5)
    net.layers[1:] = [LayerParameter("slopes", "PReLU", [], [], [Blob.from_array(np.ones(1))])]
    sizes.check(thin.build(net, ["slopes"], []), "content", 5, 5)


def test_a_loss_changes_no_shape():
    assert [after for _, _, after in sizes.walk(Network([StyleLoss("s", 1.0)]), 4, 9)] == [(3, 4, 9)]
