"""Every kind of layer: forward as OpenCV has it of the same files, backward as autograd and differences have it."""

import caffe_networks
import numpy as np
import pytest
import torch
from caffe_networks import chain

from legacy_style.engine import loadcaffe
from legacy_style.formats import model_files
from legacy_style.formats.caffe import geometry
from legacy_style.torch7 import nn

CPU = torch.device("cpu")

# One layer each, or the few that make sense together, for images of four channels: type, parameters, weights' shapes.
KINDS = {
    "convolution": [
        ("Convolution", "convolution_param { num_output: 5 kernel_size: 3 }", ((5, 4, 3, 3), (5,)))
    ],
    "convolution of one pixel": [
        ("Convolution", "convolution_param { num_output: 5 kernel_size: 1 }", ((5, 4, 1, 1), (5,)))
    ],
    "convolution without bias": [
        (
            "Convolution",
            "convolution_param { num_output: 5 kernel_size: 3 pad: 1 bias_term: false }",
            ((5, 4, 3, 3),),
        )
    ],
    "convolution in groups": [
        (
            "Convolution",
            "convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 2 }",
            ((6, 2, 3, 3), (6,)),
        )
    ],
    "convolution by channel": [
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 4 }",
            ((4, 1, 3, 3), (4,)),
        )
    ],
    "convolution by rectangles": [
        (
            "Convolution",
            "convolution_param { num_output: 5 kernel_h: 2 kernel_w: 5 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 2 }",
            ((5, 4, 2, 5), (5,)),
        )
    ],
    "convolution with lists": [
        (
            "Convolution",
            "convolution_param { num_output: 5 kernel_size: 3 kernel_size: 1 stride: 2 stride: 1 pad: 1 pad: 0 }",
            ((5, 4, 3, 1), (5,)),
        )
    ],
    "dilated convolution": [
        (
            "Convolution",
            "convolution_param { num_output: 5 kernel_size: 3 dilation: 2 pad: 2 }",
            ((5, 4, 3, 3), (5,)),
        )
    ],
    "convolution of padding": [
        ("Convolution", "convolution_param { num_output: 5 kernel_size: 2 pad: 3 }", ((5, 4, 2, 2), (5,)))
    ],
    "deconvolution": [
        (
            "Deconvolution",
            "convolution_param { num_output: 5 kernel_size: 4 stride: 2 pad: 1 }",
            ((4, 5, 4, 4), (5,)),
        )
    ],
    "deconvolution in groups": [
        (
            "Deconvolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 4 bias_term: false }",
            ((4, 1, 3, 3),),
        )
    ],
    "deconvolution by rectangles": [
        (
            "Deconvolution",
            "convolution_param { num_output: 3 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 }",
            ((4, 3, 2, 3), (3,)),
        )
    ],
    "max pooling": [("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }", ())],
    "max pooling with padding": [
        ("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }", ())
    ],
    "max pooling by rectangles": [
        ("Pooling", "pooling_param { pool: MAX kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 3 }", ())
    ],
    "average pooling": [("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }", ())],
    "average pooling with padding": [
        ("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }", ())
    ],
    "average pooling of every pixel": [("Pooling", "pooling_param { pool: AVE kernel_size: 5 pad: 2 }", ())],
    "global max pooling": [("Pooling", "pooling_param { pool: MAX global_pooling: true }", ())],
    "global average pooling": [("Pooling", "pooling_param { pool: AVE global_pooling: true }", ())],
    "ReLU": [("ReLU", "", ())],
    "ReLU with a slope": [("ReLU", "relu_param { negative_slope: 0.1 }", ())],
    "PReLU": [("PReLU", "", ((4,),))],
    "PReLU with one slope": [("PReLU", "prelu_param { channel_shared: true }", ((1,),))],
    "TanH": [("TanH", "", ())],
    "Sigmoid": [("Sigmoid", "", ())],
    "AbsVal": [("AbsVal", "", ())],
    "Power": [("Power", "power_param { power: 2 scale: 0.5 shift: 3 }", ())],
    "Power of one": [("Power", "power_param { scale: -2 shift: 1 }", ())],
    "LRN across channels": [("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }", ())],
    "LRN within channels": [
        ("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 norm_region: WITHIN_CHANNEL }", ())
    ],
    "BatchNorm": [("BatchNorm", "batch_norm_param { use_global_stats: true eps: 0.01 }", ((4,), (4,), (1,)))],
    "BatchNorm and Scale": [
        ("BatchNorm", "batch_norm_param { use_global_stats: true }", ((4,), (4,), (1,))),
        ("Scale", "scale_param { bias_term: true }", ((4,), (4,))),
    ],
    "Scale": [("Scale", "", ((4,),))],
    "InnerProduct": [("InnerProduct", "inner_product_param { num_output: 7 }", ((7, 4 * 10 * 13), (7,)))],
    "InnerProduct without bias": [
        ("InnerProduct", "inner_product_param { num_output: 7 bias_term: false }", ((7, 4 * 10 * 13),)),
        ("ReLU", "", ()),
    ],
    "Flatten": [("Flatten", "", ())],
    "Flatten and InnerProduct": [
        ("Flatten", "", ()),
        ("InnerProduct", "inner_product_param { num_output: 7 }", ((7, 4 * 10 * 13), (7,))),
    ],
    "Dropout": [("Dropout", "dropout_param { dropout_ratio: 0.3 }", ())],
    "Softmax": [
        ("InnerProduct", "inner_product_param { num_output: 7 }", ((7, 4 * 10 * 13), (7,))),
        ("Softmax", "", ()),
    ],
    "Softmax of channels": [("Softmax", "", ())],
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind, version="V2"):
    """The layers of that kind, and their message as Google's protobuf has it."""
    rows = chain(*((f"layer{i}", *rest) for i, rest in enumerate(KINDS[kind])))
    return rows, caffe_networks.message(rows, caffe_networks.weights(rows), version)


def built(net):
    # A Softmax ends a V2 network of loadcaffe, so the last layers are built by hand here.
    net.version = "V1"
    layers = [module.build() for module in loadcaffe.modules(net)[0]]
    assert layers
    return layers


def read(folder, net, image):
    caffe_networks.save(folder, net, image)
    return model_files.load(folder / "net.caffemodel")


@each_kind
def test_forward_is_opencvs(kind, tmp_path):
    rows, net = made(kind)
    image = caffe_networks.image(4, 10, 13)
    layers = built(read(tmp_path, net, image))
    x = torch.from_numpy(image.copy()).contiguous(memory_format=torch.channels_last)
    for layer in layers:
        layer.to(CPU)
        x = layer.forward(x)
    expected = caffe_networks.by_opencv(tmp_path, image, rows[-1].name)
    assert tuple(x.shape) == expected.shape or x.numel() == expected.size
    assert np.abs(x.numpy().reshape(expected.shape) - expected).max() < 1e-4 * np.abs(expected).max()


def in_float64(layers):
    for layer in layers:
        layer.to(CPU, torch.float64)
    return layers


def forward(layers, x):
    """The input and output of each layer, as they are after the whole pass."""
    passes = []
    for layer in layers:
        y = layer.forward(x)
        passes.append((layer, x, y))
        x = y
    return passes


@each_kind
def test_backward_is_autograds_and_that_of_differences(kind, tmp_path):
    _, net = made(kind)
    layers = in_float64(built(read(tmp_path, net, caffe_networks.image(4, 10, 13))))
    generator = torch.Generator().manual_seed(7)
    image, direction = torch.randn(2, 1, 4, 10, 13, generator=generator, dtype=torch.float64)
    source = image.clone().requires_grad_()
    y = forward(layers, source.clone())[-1][2]
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, source, weights)

    grad = weights.clone()
    with torch.no_grad():
        for layer, x, y in reversed(forward(layers, image.clone())):
            grad = layer.backward(x, y, grad)
        assert grad.shape == image.shape
        assert grad.dtype == torch.float64
        torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-12)

        step = 1e-6
        ends = (forward(layers, image + sign * step * direction)[-1][2] for sign in (1, -1))
        above, below = ((weights * end).sum().item() for end in ends)
        assert (above - below) / (2 * step) == pytest.approx((grad * direction).sum().item(), rel=1e-6)


@each_kind
def test_a_layer_says_how_large_its_output_is(kind, tmp_path):
    _, net = made(kind)
    layers = built(read(tmp_path, net, caffe_networks.image(4, 10, 13)))
    for layer, x, y in forward(layers, torch.zeros(1, 4, 10, 13)):
        if layer.windows is not None and x.dim() == 4:
            sizes = (window.size(n) for window, n in zip(layer.windows, x.shape[2:], strict=True))
            assert tuple(sizes) == y.shape[2:]


@each_kind
def test_backward_in_float32_is_that_of_float64(kind, tmp_path):
    _, net = made(kind)
    net = read(tmp_path, net, caffe_networks.image(4, 10, 13))
    image = torch.from_numpy(caffe_networks.image(4, 10, 13))
    results = []
    for dtype in (torch.float64, torch.float32):
        layers = built(net)
        for layer in layers:
            layer.to(CPU, dtype)
        passes = forward(layers, image.to(dtype).contiguous(memory_format=torch.channels_last))
        grad = torch.linspace(-1, 1, passes[-1][2].numel(), dtype=dtype).view(passes[-1][2].shape)
        for layer, x, y in reversed(passes):
            grad = layer.backward(x, y, grad)
        assert grad.dtype == dtype
        results.append(grad.double())
    assert (results[1] - results[0]).abs().max() < 1e-5 * results[0].abs().max()


@pytest.mark.parametrize("above", [torch.float32, torch.bfloat16])
@each_kind
def test_in_bfloat16_a_layer_is_near_float32_whatever_comes_from_above(kind, above, tmp_path):
    """The layer above may be the first, which computes in float32."""
    _, net = made(kind)
    net = read(tmp_path, net, caffe_networks.image(4, 10, 13))
    image = torch.from_numpy(caffe_networks.image(4, 10, 13))
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        layers = built(net)
        for layer in layers:
            layer.to(CPU, dtype)
        passes = forward(layers, image.to(above if dtype == torch.bfloat16 else dtype).clone())
        # As the network hands gradients down: in the type of what the layer gave.
        y = passes[-1][2]
        grad = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
        for layer, x, y in reversed(passes):
            grad = layer.backward(x, y, grad).to(x.dtype)
        results.append((passes[-1][2].float(), grad.float()))
    # 8 bits of mantissa, 2^-9 a rounding; a maximum may be another one.
    for exact, ours in zip(*results, strict=True):
        assert ours.isfinite().all()
        assert (ours - exact).norm() < (0.3 if "max" in kind else 0.02) * exact.norm()


# What OpenCV does not do, or does in its own way.


def test_pooling_rounds_down_where_the_model_says_so():
    """OpenCV knows no round_mode."""
    x = torch.arange(15.0).view(1, 1, 3, 5)
    layer = nn.SpatialMaxPooling("pool", (2, 2), (2, 2), ceil=False)
    assert layer.forward(x).tolist() == [[[[6, 8]]]]
    assert nn.SpatialMaxPooling("pool", (2, 2), (2, 2)).forward(x).tolist() == [[[[6, 8, 9], [11, 13, 14]]]]


def test_a_mean_over_the_border_is_one_of_what_is_there_and_of_padding():
    x = torch.full((1, 1, 3, 3), 6.0)
    # Windows begin at -1 and 1; the padding counts, what lies beyond it does not.
    layer = nn.SpatialAveragePooling("pool", (3, 3), (2, 2), (1, 1))
    assert layer.forward(x).flatten().tolist() == pytest.approx([6 * 4 / 9] * 4)
    # Windows begin at 0 and 2, and the second ends beyond the image.
    layer = nn.SpatialAveragePooling("pool", (2, 2), (2, 2))
    assert layer.forward(x).flatten().tolist() == [6.0] * 4


def test_lrn_has_a_constant():
    """k, which OpenCV takes for 1."""
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    y = nn.cross_map_lrn("lrn", 3, alpha=0.6, beta=1.0, k=5.0).forward(x)
    assert y.flatten().tolist() == pytest.approx([3 / (5 + 0.6 / 3 * 25), 4 / (5 + 0.6 / 3 * 25)])


def test_bias_alone_is_added():
    """A layer type that OpenCV has not."""
    layer = nn.affine("bias", "nn.Bias", torch.ones(2), torch.tensor([10.0, 20.0]))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 1, 2)
    assert layer.forward(x).flatten().tolist() == [11, 12, 23, 24]


def test_the_first_of_equal_maxima_gets_the_gradient():
    """As in nn and Caffe; of zeros behind a ReLU there are many."""
    layer = nn.SpatialMaxPooling("pool", (2, 2), (2, 2))
    x = torch.zeros(1, 1, 2, 2)
    assert layer.backward(x, layer.forward(x), torch.ones(1, 1, 1, 1)).flatten().tolist() == [1, 0, 0, 0]


def test_relu_works_in_place_and_a_convolution_that_rectifies_is_both():
    x = torch.tensor([[[[-1.0, 2.0]]]])
    relu = nn.ReLU("relu")
    assert relu.forward(x) is x
    assert x.flatten().tolist() == [0, 2]
    assert relu.backward(x, x, torch.ones_like(x)).flatten().tolist() == [0, 1]

    generator = torch.Generator().manual_seed(2)
    image, weight = (torch.randn(shape, generator=generator) for shape in ((1, 3, 9, 7), (5, 3, 3, 3)))
    plain, fused = (nn.SpatialConvolution("conv", weight, torch.ones(5), pad=(1, 1)) for _ in range(2))
    fused.rectify = True
    for layer in (plain, fused):
        layer.to(CPU)
    y = plain.forward(image).relu_()
    grad = torch.randn(y.shape, generator=generator)
    assert torch.equal(fused.forward(image), y)
    expected = plain.backward(image, y, relu.backward(y, y, grad.clone()))
    assert torch.equal(fused.backward(image, y, grad.clone()), expected)


def test_layers_print_as_in_torch():
    weight = torch.zeros(6, 2, 3, 5)
    layers = {
        nn.SpatialConvolution("", weight, None, stride=(2, 1), pad=(1, 0), groups=2): (
            "nn.SpatialConvolution(4 -> 6, 5x3, 1,2, 0,1) without bias"
        ),
        nn.SpatialFullConvolution(
            "", weight, torch.zeros(4), stride=(2, 1), pad=(0, 0), dilation=(1, 1), groups=2
        ): "nn.SpatialFullConvolution(6 -> 4, 5x3, 1,2)",
        nn.SpatialMaxPooling("", (3, 2), (2, 1), (1, 0)): "nn.SpatialMaxPooling(2x3, 1,2, 0,1)",
        nn.SpatialAveragePooling("", (2, 2), (2, 2)): "nn.SpatialAveragePooling(2x2, 2,2)",
        nn.Linear("", torch.zeros(7, 9), torch.zeros(7)): "nn.Linear(9 -> 7)",
        nn.Dropout("", 0.5): "nn.Dropout(0.500000)",
        nn.ReLU(""): "nn.ReLU",
        nn.View(""): "nn.View(-1)",
    }
    for layer, text in layers.items():
        assert str(layer) == text


def test_each_layer_that_runs_is_among_the_kinds_and_its_size_is_known(tmp_path):
    kinds = {type_: kind for kind, rows in KINDS.items() for type_, *_ in rows}
    runs = {type_ for type_ in loadcaffe._MAKERS if not type_.startswith("nn.")}
    runs.remove("Bias")  # which OpenCV has not: test_bias_alone_is_added
    assert runs <= kinds.keys()
    for kind in {kinds[type_] for type_ in runs}:
        _, message = made(kind)
        net = read(tmp_path, message, caffe_networks.image(4, 10, 13))
        known = geometry.geometries(net, 10, 13)
        assert known.keys() == {layer.name for layer in net.layers}, kind
