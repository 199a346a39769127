"""MatConvNet's files: written by scipy.io.savemat, recorded ones, and the real VGG-16 in both layouts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import matconvnet_files as files
import numpy as np
import pytest
from recordings import SHARED, needs_shared

from legacy_style.errors import FormatError, OptionError, UnsupportedError, WeightMismatchError
from legacy_style.formats import state_dict
from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import LayerParameter, NetParameter
from legacy_style.formats.matconvnet import reader as matconvnet

RECORDED = SHARED / "golden" / "athalye" / "models"

both_generations = pytest.mark.parametrize("old", [True, False], ids=["beta16", "beta17"])


def described(net: NetParameter) -> list[tuple[Any, ...]]:
    return [(layer.name, layer.type, layer.bottoms, layer.tops, layer.params) for layer in net.layers]


def assert_bit_equal(net: NetParameter, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    found = dict(state_dict.weights(net))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == np.float32
        assert found[key].shape == values.shape, key
        assert found[key].tobytes() == values.tobytes(), key


@both_generations
@pytest.mark.parametrize("compressed", [True, False])
def test_both_generations_give_caffes_weights_bit_for_bit(
    tmp_path: Path, old: bool, compressed: bool
) -> None:
    weights = files.thin_weights()
    path = files.write_simple(
        tmp_path / "net.mat", files.thin_vgg(weights, old=old), old=old, compressed=compressed
    )
    assert_bit_equal(matconvnet.read(path), weights)


@both_generations
def test_layers_are_those_of_oxfords_prototxt(tmp_path: Path, old: bool) -> None:
    weights = files.thin_weights()
    net = matconvnet.read(files.write_simple(tmp_path / "net.mat", files.thin_vgg(weights, old=old), old=old))
    names = "conv1_1 relu1_1 conv1_2 relu1_2 pool1 conv2_1 relu2_1 pool2 fc6 relu6 fc7 relu7 fc8 prob"
    assert [layer.name for layer in net.layers] == names.split()
    convolution = net.layer("conv1_2")
    assert (convolution.type, convolution.bottoms, convolution.tops) == (
        "Convolution",
        ["conv1_1"],
        ["conv1_2"],
    )
    assert convolution.params["convolution_param"].values == {"num_output": 5, "pad": [1], "kernel_size": [3]}
    relu = net.layer("relu1_2")
    assert (relu.type, relu.bottoms, relu.tops, relu.params) == ("ReLU", ["conv1_2"], ["conv1_2"], {})
    pool = net.layer("pool1")
    assert pool.params["pooling_param"].values == {"pool": "MAX", "kernel_size": 2, "stride": 2}
    assert net.layer("fc6").params["inner_product_param"].values == {"num_output": 7}
    assert net.layer("fc6").blobs[0].shape == (7, 24)
    assert net.layer("prob").type == "Softmax"


def test_fields_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    weights = files.thin_weights()
    rng = np.random.default_rng(1)
    layers = [
        {name: fields[name] for name in rng.permutation(list(fields))} | {"precious": 0.0}
        for fields in files.thin_vgg(weights, old=False)
    ]
    assert_bit_equal(matconvnet.read(files.write_simple(tmp_path / "net.mat", layers)), weights)


def test_orientation_wh_reads_kernels_transposed_and_nothing_else(tmp_path: Path) -> None:
    weights = files.thin_weights()
    path = files.write_simple(tmp_path / "net.mat", files.thin_vgg(weights, old=False))
    transposed = dict(weights)
    for name, _shape in files.THIN_VGG[:3]:
        transposed[f"{name}.weight"] = np.ascontiguousarray(weights[f"{name}.weight"].swapaxes(2, 3))
    fc6 = weights["fc6.weight"].reshape(-1, *files.FC6_INPUT).swapaxes(2, 3)
    transposed["fc6.weight"] = fc6.reshape(len(fc6), -1)
    assert_bit_equal(matconvnet.read(path, orientation="wh"), transposed)


def test_unknown_orientation_is_refused(tmp_path: Path) -> None:
    path = files.write_simple(tmp_path / "net.mat", files.thin_vgg(files.thin_weights(), old=False))
    with pytest.raises(OptionError, match=r"'WH', expected hw .* or wh"):
        matconvnet.read(path, orientation="WH")


def test_mean_image_of_beta16_is_averaged_over_height_and_width_and_turned_to_bgr(tmp_path: Path) -> None:
    mean = np.empty((2, 3, 3))
    mean[:, :, 0] = [[120, 124, 128], [121, 125, 123]]  # red: 123.5
    mean[:, :, 1] = 116
    mean[:, :, 2] = [[100, 104, 102], [106, 102, 104]]  # blue: 103
    path = files.write_simple(
        tmp_path / "net.mat", files.thin_vgg(files.thin_weights(), old=True), old=True, mean=mean
    )
    assert matconvnet.read(path).mean_pixel == (103, 116, 123.5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1), (1, 3)])
def test_mean_pixel_of_later_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    mean = np.array([123.68, 116.779, 103.939]).reshape(shape)
    path = files.write_simple(
        tmp_path / "net.mat", files.thin_vgg(files.thin_weights(), old=False), mean=mean
    )
    assert matconvnet.read(path).mean_pixel == (103.939, 116.779, 123.68)


def test_a_file_without_a_mean_has_none(tmp_path: Path) -> None:
    net = matconvnet.read(
        files.write_simple(tmp_path / "net.mat", files.thin_vgg(files.thin_weights(), old=False))
    )
    assert net.mean_pixel is None
    assert net.input_shapes() == {"data": (1, 3, 8, 12)}


def test_network_in_a_variable_net(tmp_path: Path) -> None:
    import scipy.io

    weights = files.thin_weights()
    net = {
        "layers": files.cell(*files.thin_vgg(weights, old=False)),
        "meta": {"normalization": {"averageImage": np.ones(3)}},
    }
    scipy.io.savemat(tmp_path / "net.mat", {"net": net})
    read = matconvnet.read(str(tmp_path / "net.mat"))
    assert read.mean_pixel == (1, 1, 1)
    assert_bit_equal(read, weights)


def one_layer(tmp_path: Path, **fields: Any) -> LayerParameter:
    """The Caffe layer that a network of this one layer becomes."""
    (layer,) = matconvnet.read(files.write_simple(tmp_path / "one.mat", [{"name": "one", **fields}])).layers
    return layer


def test_weights_named_filters_and_biases_as_before_beta7(tmp_path: Path) -> None:
    kernel = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
    layer = one_layer(tmp_path, type="conv", filters=kernel, biases=np.array([[5.0, 6.0]], np.float32))
    assert layer.blobs[0].data()[1, 0, 2, 0] == kernel[2, 0, 2, 1]
    assert layer.blobs[1].data().tolist() == [5, 6]


def test_trailing_axes_of_one_that_matlab_drops(tmp_path: Path) -> None:
    kernel = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    layer = one_layer(tmp_path, type="conv", weights=files.cell(kernel, np.ones((1, 1), np.float32)))
    assert layer.blobs[0].shape == (1, 3, 3, 3)
    assert layer.blobs[0].data()[0, 2, 1, 0] == kernel[1, 0, 0]


@pytest.mark.parametrize(
    "weights", [files.cell(np.ones((3, 3, 3, 2))), files.cell(np.ones((3, 3, 3, 2)), np.empty((0, 0)))]
)
def test_no_bias(tmp_path: Path, weights: Any) -> None:
    layer = one_layer(tmp_path, type="conv", weights=weights)
    assert len(layer.blobs) == 1
    assert layer.param("convolution_param")["bias_term"] is False


def test_geometry_of_a_convolution(tmp_path: Path) -> None:
    layer = one_layer(
        tmp_path,
        type="conv",
        weights=files.cell(np.ones((5, 3, 1, 6)), np.ones(6)),
        pad=np.array([[2.0, 2, 1, 1]]),
        stride=np.array([[4.0, 2]]),
        dilate=2.0,
    )
    assert layer.params["convolution_param"].values == {
        "num_output": 6, "pad_h": 2, "pad_w": 1, "stride_h": 4, "stride_w": 2,
        "kernel_h": 5, "kernel_w": 3, "dilation": [2], "group": 3,
    }  # fmt: skip
    assert layer.blobs[0].shape == (6, 1, 5, 3)


def test_groups_follow_from_the_channels_before(tmp_path: Path) -> None:
    layers = [
        {"name": "a", "type": "conv", "weights": files.cell(np.ones((3, 3, 3, 8)), np.ones(8))},
        {"name": "b", "type": "relu", "leak": 0.1},
        {"name": "c", "type": "conv", "weights": files.cell(np.ones((3, 3, 4, 6)), np.ones(6))},
    ]
    net = matconvnet.read(files.write_simple(tmp_path / "net.mat", layers))
    assert net.layers[2].param("convolution_param")["group"] == 2
    assert net.layers[1].param("relu_param")["negative_slope"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"method": "max", "pool": 2.0, "stride": 2.0, "pad": 0.0},
            {"pool": "MAX", "kernel_size": 2, "stride": 2},
        ),
        ({"method": "avg", "pool": [[7.0, 7]], "stride": 1.0}, {"pool": "AVE", "kernel_size": 7}),
        (
            {"method": "max", "pool": [[3.0, 3]], "stride": [[2.0, 2]], "pad": [[0.0, 1, 0, 1]]},
            {"pool": "MAX", "kernel_size": 3, "stride": 2},
        ),
        (
            {"method": "max", "pool": [[3.0, 2]], "stride": [[2.0, 1]], "pad": [[1.0, 1, 1, 1]]},
            {"pool": "MAX", "kernel_h": 3, "kernel_w": 2, "stride_h": 2, "stride_w": 1, "pad": 1},
        ),
    ],
)
def test_pooling(tmp_path: Path, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    layer = one_layer(
        tmp_path,
        type="pool",
        **{name: np.array(v) if isinstance(v, list) else v for name, v in fields.items()},
    )
    assert layer.params["pooling_param"].values == expected


def test_lrn_multiplies_alpha_by_n(tmp_path: Path) -> None:
    layer = one_layer(tmp_path, type="normalize", param=np.array([[5.0, 2.0, 1e-4 / 5, 0.75]]))
    param = layer.param("lrn_param")
    assert layer.type == "LRN"
    assert (param["local_size"], param["k"], param["beta"]) == (5, 2, 0.75)
    assert param["alpha"] == pytest.approx(1e-4, rel=1e-6)


def test_batch_normalisation_becomes_batch_norm_and_scale(tmp_path: Path) -> None:
    moments = np.array([[1.0, 2.0], [3.0, 0.5]], np.float32)  # (C, mean and deviation)
    weights = files.cell(np.array([[2.0, 3.0]]), np.array([[10.0, 20.0]]), moments)
    layers = [
        {"name": "conv", "type": "conv", "weights": files.cell(np.ones((1, 1, 3, 2)))},
        {"name": "bn", "type": "bnorm", "weights": weights},
    ]
    _conv, norm, scale = matconvnet.read(files.write_simple(tmp_path / "net.mat", layers)).layers
    assert (norm.type, scale.type, scale.bottoms, scale.tops) == ("BatchNorm", "Scale", ["bn"], ["bn"])
    mean, variance, factor = (blob.data() for blob in norm.blobs)
    x = np.array([4.0, 5.0])
    normalised = (x - mean / factor) / np.sqrt(variance / factor + norm.param("batch_norm_param")["eps"])
    gain, shift = (blob.data() for blob in scale.blobs)
    # (4 - 1) / 2 * 2 + 10 and (5 - 3) / 0.5 * 3 + 20
    assert (normalised * gain + shift).tolist() == pytest.approx([13.0, 32.0])
    assert scale.param("scale_param")["bias_term"] is True


def test_transposed_convolution(tmp_path: Path) -> None:
    kernel = np.arange(4 * 4 * 2 * 3, dtype=np.float32).reshape(4, 4, 2, 3)  # (H, W, outputs, inputs)
    weights = files.cell(kernel, np.ones(2, np.float32))
    layer = one_layer(tmp_path, type="convt", weights=weights, upsample=2.0, crop=np.ones((1, 4)))
    assert layer.type == "Deconvolution"
    assert layer.params["convolution_param"].values == {
        "num_output": 2,
        "pad": [1],
        "stride": [2],
        "kernel_size": [4],
    }
    assert layer.blobs[0].shape == (3, 2, 4, 4)
    assert layer.blobs[0].data()[2, 1, 3, 0] == kernel[3, 0, 1, 2]


def test_unknown_layers_are_kept_and_losses_renamed(tmp_path: Path) -> None:
    layers = [
        {"name": "x", "type": "pdist"},
        {"name": "y", "type": "softmaxloss"},
        {"name": "z", "type": "dropout", "rate": 0.25},
    ]
    net = matconvnet.read(files.write_simple(tmp_path / "net.mat", layers))
    assert [layer.type for layer in net.layers] == ["pdist", "SoftmaxWithLoss", "Dropout"]
    assert net.layers[2].param("dropout_param")["dropout_ratio"] == 0.25


def test_channels_behind_an_unknown_layer_are_not_guessed(tmp_path: Path) -> None:
    layers = [
        {"name": "r", "type": "relu"},
        {"name": "a", "type": "conv", "weights": files.cell(np.arange(12.0).reshape(1, 1, 3, 4))},
        {"name": "x", "type": "pdist"},
        {"name": "b", "type": "conv", "weights": files.cell(np.ones((1, 1, 5, 4)))},
    ]
    net = matconvnet.read(files.write_simple(tmp_path / "net.mat", layers))
    assert [layer.bottoms for layer in net.layers] == [["data"], ["r"], ["a"], ["x"]]
    assert not net.layer("b").params["convolution_param"].has("group")
    # The ReLU has left an RGB image.
    assert net.layer("a").blobs[0].data()[0].ravel().tolist() == [8, 4, 0]


def test_weights_for_the_images_channels_outside_convolutions_are_refused(tmp_path: Path) -> None:
    weights = files.cell(np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 2)))
    with pytest.raises(
        UnsupportedError, match=r"layer one \(bnorm\) has weights for the image's RGB channels"
    ):
        one_layer(tmp_path, type="bnorm", weights=weights)


def test_dag_with_branches(tmp_path: Path) -> None:
    params = {
        "conv1f": np.arange(3 * 3 * 3 * 4, dtype=np.float32).reshape(3, 3, 3, 4),
        "conv1b": np.arange(4, dtype=np.float32),
        "conv2f": np.ones((1, 1, 4, 4), np.float32),
        "conv3f": np.ones((1, 1, 8, 2), np.float32),
    }
    empty = np.empty((0, 0))

    def layer(name: str, kind: str, inputs: str, output: str, used: str = "", **block: Any) -> dict[str, Any]:
        cells = files.cell(*inputs.split()), files.cell(output), files.cell(*used.split()) if used else empty
        return {
            "name": name,
            "type": f"dagnn.{kind}",
            "inputs": cells[0],
            "outputs": cells[1],
            "params": cells[2],
            "block": block or {"opts": empty},
        }

    path = files.write_dag(
        tmp_path / "dag.mat",
        [
            layer(
                "conv1",
                "Conv",
                "data",
                "conv1",
                "conv1f conv1b",
                size=np.array([3.0, 3, 3, 4]),
                hasBias=True,
                pad=np.ones((1, 4)),
            ),
            layer("relu1", "ReLU", "conv1", "conv1x", leak=0.0),
            layer(
                "pool",
                "Pooling",
                "conv1x",
                "pool",
                method="avg",
                poolSize=np.array([[3.0, 3]]),
                stride=2.0,
                pad=np.array([[0.0, 1, 0, 1]]),
            ),
            layer("conv2", "Conv", "conv1x", "conv2", "conv2f", hasBias=False),
            layer("sum", "Sum", "conv2 conv1x", "sum"),
            layer("join", "Concat", "sum conv2", "join", dim=3.0),
            layer("conv3", "Conv", "join", "conv3", "conv3f"),
            layer("odd", "Mystery", "conv3", "odd"),
        ],
        params,
    )
    net = matconvnet.read(path)
    assert net.mean_pixel == (3, 2, 1)
    kinds = ["Convolution", "ReLU", "Pooling", "Convolution", "Eltwise", "Concat", "Convolution", "mystery"]
    assert [layer.type for layer in net.layers] == kinds
    assert net.layer("join").bottoms == ["sum", "conv2"]
    assert net.layer("join").param("concat_param")["axis"] == 1
    assert net.layer("sum").param("eltwise_param")["operation"] == "SUM"
    assert net.layer("pool").params["pooling_param"].values == {"pool": "AVE", "kernel_size": 3, "stride": 2}
    # Concat made 8 channels of 4 and 4, so that conv3 has one group.
    assert not net.layer("conv3").params["convolution_param"].has("group")
    flipped = params["conv1f"][:, :, ::-1].transpose(3, 2, 0, 1)
    assert np.array_equal(net.layer("conv1").blobs[0].data(), flipped)
    assert net.layer("conv2").blobs[0].shape == (4, 4, 1, 1)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"type": "conv", "weights": files.cell(np.ones((3, 3, 3, 2))), "pad": np.array([[1.0, 0, 1, 1]])},
            UnsupportedError,
            r"layer one has the pad \[1, 0, 1, 1\]",
        ),
        (
            {"type": "pool", "pool": 2.0, "pad": np.array([[0.0, 2, 0, 0]])},
            UnsupportedError,
            "layer one pools with the padding",
        ),
        (
            {"type": "pool", "pool": 2.0, "method": "sum"},
            UnsupportedError,
            "layer one pools by 'sum', expected max or avg",
        ),
        (
            {"type": "conv", "weights": files.cell(np.ones((3, 3, 2, 2)))},
            WeightMismatchError,
            "layer one has kernels of 2 channels, expected 3",
        ),
        (
            {"type": "conv", "weights": files.cell(np.ones((3, 3, 3, 2)), np.ones(3))},
            WeightMismatchError,
            "layer one has 3 biases, expected 2",
        ),
        ({"type": "conv"}, WeightMismatchError, "layer one has no kernels"),
        (
            {"type": "bnorm", "weights": files.cell(np.ones(2), np.ones(2))},
            WeightMismatchError,
            "layer one has no moments",
        ),
        ({"type": "lrn", "param": np.ones(3)}, FormatError, "layer one has no `param` of four numbers"),
        ({"type": 3.0}, FormatError, "layer 1 of the network is no struct with a `type`"),
    ],
)
def test_what_no_caffe_layer_does_is_an_error(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        one_layer(tmp_path, **fields)


def test_a_mat_file_of_something_else(tmp_path: Path) -> None:
    import scipy.io

    scipy.io.savemat(tmp_path / "x.mat", {"x": np.ones(3)})
    with pytest.raises(FormatError, match="is a MAT-file without the `layers` of a MatConvNet network"):
        matconvnet.read(str(tmp_path / "x.mat"))


@needs_shared
@pytest.mark.parametrize("layout", ["old", "new"])
def test_real_vgg16_in_both_layouts_is_the_caffemodel_bit_for_bit(layout: str) -> None:
    net = matconvnet.read(str(RECORDED / f"vgg16_to_conv3_3_{layout}.mat"))
    caffe = caffemodel.read(SHARED / "models" / "VGG_ILSVRC_16_layers_conv.caffemodel")
    assert described(net) == described(caffe)[: len(net.layers)]
    expected = dict(state_dict.weights(caffe))
    found = dict(state_dict.weights(net))
    assert len(found) == 14
    for key, values in found.items():
        assert values.tobytes() == expected[key].tobytes(), key


@needs_shared
@pytest.mark.parametrize("layout", ["old", "new"])
def test_real_vgg16_has_the_recorded_checksums(layout: str) -> None:
    record = json.loads((RECORDED / "vgg16_to_conv3_3.json").read_text())["layers"]
    weights = dict(state_dict.weights(matconvnet.read(str(RECORDED / f"vgg16_to_conv3_3_{layout}.mat"))))
    assert len(record) == 7
    for name, expected in record.items():
        digest = hashlib.sha256(weights[f"{name}.weight"].tobytes()).hexdigest()
        assert digest == expected["sha256_oihw_f32_as_in_npz"], name
        assert hashlib.sha256(weights[f"{name}.bias"].tobytes()).hexdigest() == expected["sha256_bias_f32"], (
            name
        )


@needs_shared
@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize(("orientation", "recorded"), [("hw", "matconvnet"), ("wh", "effective")])
def test_recorded_thin_network_in_either_orientation(layout: str, orientation: str, recorded: str) -> None:
    net = matconvnet.read(str(RECORDED / f"vgg19thin_{layout}.mat"), orientation=orientation)
    with np.load(RECORDED / "vgg19thin.npz") as arrays:
        assert net.mean_pixel == pytest.approx(arrays["mean_pixel_rgb"][::-1], rel=1e-12)
        convolutions = [layer for layer in net.layers if layer.type == "Convolution"]
        assert len(convolutions) == 16
        for layer in convolutions:
            order = "bgr" if layer.name == "conv1_1" else "rgb"
            expected = arrays[f"{recorded}_{order}.{layer.name}.weight"]
            assert np.array_equal(layer.blobs[0].data(), expected), layer.name
            assert np.array_equal(layer.blobs[1].data(), arrays[f"{layer.name}.bias"].ravel()), layer.name
