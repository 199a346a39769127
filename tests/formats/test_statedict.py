"""State dicts: names, layers that follow from them, formats, torchvision's own networks, bits, laziness."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vgg_files
from recordings import RECORDED, SHARED, needs_shared

from legacy_style.errors import LegacyStyleError, UnsupportedError, WeightMismatchError
from legacy_style.formats import pth, state_dict, vgg
from legacy_style.formats.caffe import caffemodel, prototxt, upgrade
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter
from legacy_style.toolkit import convert

both_sizes = pytest.mark.parametrize("blocks", [vgg_files.VGG16, vgg_files.VGG19], ids=["vgg16", "vgg19"])


def saved(tmp_path: Path, state: Any, **options: Any) -> str:
    path = tmp_path / "saved.pth"
    torch.save(state, path, **options)
    return str(path)


def described(net: NetParameter) -> list[tuple[Any, ...]]:
    return [(layer.name, layer.type, layer.bottoms, layer.tops, layer.params) for layer in net.layers]


def assert_bit_equal(net: NetParameter, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    found = dict(state_dict.weights(net))
    assert list(found) == list(expected)
    for key, values in expected.items():
        assert (found[key].dtype, found[key].shape) == (np.float32, values.shape), key
        assert found[key].tobytes() == values.tobytes(), key


@both_sizes
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_caffes_names_give_the_layers_and_weights_of_the_caffemodel(
    tmp_path: Path, blocks: tuple[int, ...], version: str
) -> None:
    arrays = vgg_files.weights(blocks)
    model = tmp_path / "thin.caffemodel"
    model.write_bytes(vgg_files.caffemodel(arrays, version))
    caffe = caffemodel.read(model)
    net = state_dict.read(saved(tmp_path, vgg_files.state_dict(arrays)), "pth")
    assert described(net) == described(caffe)
    assert_bit_equal(net, arrays)
    assert_bit_equal(caffe, arrays)


@needs_shared
@pytest.mark.parametrize(
    ("blocks", "recorded"),
    [
        (vgg_files.VGG16, "vgg16_thin_deploy.prototxt"),
        (vgg_files.VGG19, "VGG_ILSVRC_19_layers_deploy.prototxt"),
    ],
)
def test_layers_are_those_of_the_deploy_prototxt(
    tmp_path: Path, blocks: tuple[int, ...], recorded: str
) -> None:
    path = RECORDED / "models" / recorded
    deploy = upgrade.net_parameter(prototxt.parse(path.read_text()), str(path))
    classifier = any(layer.name == "fc6" for layer in deploy.layers)
    state = vgg_files.state_dict(vgg_files.weights(blocks, classifier=classifier))
    net = state_dict.read(saved(tmp_path, state), "pth")
    for found, expected in zip(described(net), described(deploy), strict=True):
        assert found[:4] == expected[:4]
        assert set(found[4]) == set(expected[4])
    for layer in deploy.layers:
        for name, message in layer.params.items():
            ours = net.layer(layer.name).params[name].values
            assert {**ours, "num_output": 0} == {**message.values, "num_output": 0}


@both_sizes
@pytest.mark.parametrize("linear", [(0, 3, 6), (1, 4, 6)], ids=["torchvision", "johnson"])
def test_torchvisions_names_in_both_numberings(
    tmp_path: Path, blocks: tuple[int, ...], linear: tuple[int, int, int]
) -> None:
    arrays = vgg_files.weights(blocks)
    names = vgg_files.torchvision_names(arrays, linear)
    if blocks == vgg_files.VGG19:
        assert "features.34.bias" in names
    net = state_dict.read(saved(tmp_path, vgg_files.state_dict(names)), "pth")
    assert_bit_equal(net, arrays)
    assert described(net) == described(vgg_files.network(arrays))


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "vgg."])
def test_prefixes_are_passed_over(tmp_path: Path, prefix: str) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    for names in (arrays, vgg_files.torchvision_names(arrays)):
        prefixed = {prefix + key: values for key, values in names.items()}
        assert_bit_equal(state_dict.read(saved(tmp_path, vgg_files.state_dict(prefixed)), "pth"), arrays)


@pytest.mark.parametrize("outer", ["state_dict", "model", "anything"])
def test_a_state_dict_among_other_things_is_found(tmp_path: Path, outer: str) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    checkpoint = {"epoch": 3, "best": 0.5, "arch": "vgg16", outer: vgg_files.state_dict(arrays)}
    assert_bit_equal(state_dict.read(saved(tmp_path, checkpoint), "pth"), arrays)


@pytest.mark.parametrize(
    "beside",
    [
        {"best_prec1": torch.tensor(54.2), "epoch": 90},
        {"mean": torch.zeros(3), "class_weights": torch.ones(1000)},
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(2, 2)}}}},
    ],
)
@pytest.mark.parametrize("outer", ["state_dict", "generator"])
def test_other_tensors_beside_the_state_dict_do_not_hide_it(
    tmp_path: Path, outer: str, beside: dict[str, Any]
) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    content = {**beside, outer: vgg_files.state_dict(arrays)}
    assert_bit_equal(state_dict.read(saved(tmp_path, content), "pth"), arrays)


@pytest.mark.parametrize(
    "form", ["features.module.{}", "module.features.{}", "features._orig_mod.{}", "a.features.{}"]
)
def test_parts_that_were_run_in_parallel_have_their_keys_read(tmp_path: Path, form: str) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    named = {
        form.format(key.removeprefix("features.")) if key.startswith("features.") else key: values
        for key, values in vgg_files.torchvision_names(arrays).items()
    }
    net = state_dict.read(saved(tmp_path, vgg_files.state_dict(named)), "pth")
    assert_bit_equal(net, arrays)


def nin_weights(count: int = 12) -> dict[str, np.ndarray[Any, Any]]:
    """nin_imagenet.pth's keys and kernels, thin: `count` of its convolutions."""
    rng = np.random.default_rng(3)
    places = [0, 2, 4, 7, 9, 11, 14, 16, 18, 22, 24, 26]
    kernels = [11, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1, 1]
    arrays = {}
    channels = 3
    for place, kernel in list(zip(places, kernels, strict=True))[:count]:
        arrays[f"features.{place}.weight"] = rng.standard_normal(
            (4 + place % 3, channels, kernel, kernel), dtype=np.float32
        )
        channels = 4 + place % 3
        arrays[f"features.{place}.bias"] = rng.standard_normal(channels, dtype=np.float32)
    return arrays


class Nin(torch.nn.Sequential):
    """The network as neural-style-pt builds it, up to its last ReLU, for the widths of `arrays`."""

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        def conv(place: int, stride: int = 1, pad: int = 0) -> list[torch.nn.Module]:
            shape = arrays[f"features.{place}.weight"].shape
            layer = torch.nn.Conv2d(shape[1], shape[0], shape[2], stride, pad)
            return [layer, torch.nn.ReLU(inplace=True)]

        pool = torch.nn.MaxPool2d((3, 3), (2, 2), (0, 0), ceil_mode=True)
        super().__init__(
            *conv(0, 4), *conv(2), *conv(4), pool,
            *conv(7, 1, 2), *conv(9), *conv(11), pool,
            *conv(14, 1, 1), *conv(16), *conv(18), pool, torch.nn.Dropout(0.5),
            *conv(22, 1, 1), *conv(24), *conv(26),
        )  # fmt: skip
        state = {key.removeprefix("features."): torch.from_numpy(a) for key, a in arrays.items()}
        self.load_state_dict(state)


def test_nin_imagenet_is_read_by_its_kernels_and_computes_what_pytorch_does(tmp_path: Path) -> None:
    arrays = nin_weights()
    net = state_dict.read(saved(tmp_path, vgg_files.state_dict(arrays)), "pth")
    rectifiers = [layer.name for layer in net.layers if layer.type == "ReLU"]
    assert rectifiers == [f"relu{n}" for n in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12)]
    assert [layer.name for layer in net.layers if layer.type == "Convolution"] == [
        "conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4", "conv3", "cccp5", "cccp6",
        "conv4-1024", "cccp7-1024", "cccp8-1024",
    ]  # fmt: skip
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 215, 231), dtype=np.float32))
    with torch.no_grad():
        expected = Nin(arrays).eval()(image)
        ours = {name: y.clone() for name, y in convert.activations(net, image)}
    assert ours["relu12"].shape == expected.shape
    assert torch.allclose(ours["relu12"], expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_the_first_part_of_nin_is_read_and_other_shapes_are_refused(tmp_path: Path) -> None:
    part = state_dict.read(saved(tmp_path, vgg_files.state_dict(nin_weights(5))), "pth")
    assert part.layers[-1].name == "relu5"
    odd = {**nin_weights(), "features.9.weight": np.ones((4, 9, 1, 1), np.float32)}
    with pytest.raises(WeightMismatchError, match=r"features\.9\.weight has the shape \(4, 9, 1, 1\)"):
        state_dict.read(saved(tmp_path, vgg_files.state_dict(odd)), "pth")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {0: (64, 3, 11, 11), 3: (192, 64, 5, 5)},
            r"features\.0\.weight has the shape .* another network \(AlexNet",
        ),
        ({0: (64, 3, 3, 3), 3: (16, 64, 1, 1)}, r"features\.3\.weight has the shape"),
        ({0: (8, 3, 3, 3), 1: (8,), 3: (8, 8, 3, 3)}, r"features\.1\.weight has the shape \(8,\)"),
        ({0: (8, 3, 3, 3), 1: (8, 8, 3, 3)}, r"features\.N with N = 0, 1, which no plain VGG has"),
        ({1: (8, 3, 3, 3), 3: (8, 8, 3, 3)}, r"features\.N with N = 1, 3, which"),
    ],
)
def test_other_networks_with_torchvisions_keys_are_told_apart_and_known_files_are_named(
    tmp_path: Path, shapes: dict[int, tuple[int, ...]], message: str
) -> None:
    state = {f"features.{place}.weight": torch.ones(shape) for place, shape in shapes.items()}
    with pytest.raises(
        UnsupportedError, match=f"{message}.*known .* nin_imagenet.pth; .*legacy-style convert"
    ):
        state_dict.read(saved(tmp_path, state), "pth")


def test_an_optimizers_state_beside_the_weights(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    state = vgg_files.state_dict(arrays)
    checkpoint = {"optimizer": {"lr": 0.1, "state": {}}, "model_state_dict": state}
    assert_bit_equal(state_dict.read(saved(tmp_path, checkpoint), "pth"), arrays)


def test_files_of_before_pytorch_1_6(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG19)
    path = saved(tmp_path, vgg_files.state_dict(arrays), _use_new_zipfile_serialization=False)
    assert Path(path).read_bytes().startswith(pth.LEGACY_SIGNATURE)
    assert_bit_equal(state_dict.read(path, "pth"), arrays)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    state = OrderedDict((key, torch.from_numpy(values).to(dtype)) for key, values in arrays.items())
    net = state_dict.read(saved(tmp_path, state), "pth")
    assert_bit_equal(net, {key: tensor.to(torch.float32).numpy() for key, tensor in state.items()})


def test_parameters_and_other_memory_layouts(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    state: dict[str, Any] = dict(vgg_files.state_dict(arrays))
    state["conv1_2.weight"] = torch.nn.Parameter(state["conv1_2.weight"])
    state["conv2_1.weight"] = state["conv2_1.weight"].to(memory_format=torch.channels_last)
    assert_bit_equal(state_dict.read(saved(tmp_path, state), "pth"), arrays)


@pytest.mark.parametrize(
    ("blocks", "classifier", "last"),
    [
        (vgg_files.VGG16, False, "pool5"),
        (vgg_files.VGG19, False, "pool5"),
        ((2, 2, 4, 4, 1), False, "relu5_1"),
        ((2, 2, 3), False, "relu3_3"),
        ((2,), False, "relu1_2"),
        (vgg_files.VGG16, True, "prob"),
    ],
)
def test_the_last_block_is_pooled_where_it_is_whole(
    tmp_path: Path, blocks: tuple[int, ...], classifier: bool, last: str
) -> None:
    state = vgg_files.state_dict(vgg_files.weights(blocks, classifier=classifier))
    net = state_dict.read(saved(tmp_path, state), "pth")
    assert net.layers[-1].name == last
    pools = [layer.name for layer in net.layers if layer.type == "Pooling"]
    assert pools[: len(blocks) - 1] == [f"pool{block}" for block in range(1, len(blocks))]


def test_no_bias(tmp_path: Path) -> None:
    arrays = {k: v for k, v in vgg_files.weights(vgg_files.VGG16).items() if k != "conv2_2.bias"}
    net = state_dict.read(saved(tmp_path, vgg_files.state_dict(arrays)), "pth")
    assert net.layer("conv2_2").param("convolution_param")["bias_term"] is False
    assert_bit_equal(net, arrays)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"conv2_1.weight": np.ones((5, 9, 3, 3), np.float32)},
            WeightMismatchError,
            r"conv2_1\.weight has the shape \(5, 9, 3, 3\), expected \(outputs, 3, 3, 3\)",
        ),
        (
            {"conv2_1.bias": np.ones(9, np.float32)},
            WeightMismatchError,
            r"conv2_1\.bias has the shape \(9,\), expected \(5,\)",
        ),
        (
            {"conv1_1.weight": np.ones((4, 3, 5, 5), np.float32)},
            WeightMismatchError,
            r"expected \(outputs, 3, 3, 3\)",
        ),
        (
            {"fc6.weight": np.ones((6, 3, 5, 5), np.float32)},
            WeightMismatchError,
            r"fc6\.weight has the shape",
        ),
        (
            {"conv1_1.weight": np.ones((0, 3, 3, 3), np.float32), "conv1_1.bias": np.ones(0, np.float32)},
            WeightMismatchError,
            r"conv1_1\.weight has the shape \(0, 3, 3, 3\), expected \(outputs, 3, 3, 3\)",
        ),
        ({"x" * 500: np.ones(3, np.float32)}, UnsupportedError, r"one is 'x{80}'\) are neither"),
        ({"conv2_1.weight": None}, WeightMismatchError, r"has conv2_1\.bias but no conv2_1\.weight"),
        ({"conv2_1.weight": None, "conv2_1.bias": None}, WeightMismatchError, "convolutions are missing"),
        (
            {"layer1.0.weight": np.ones(3, np.float32)},
            UnsupportedError,
            r"names \(one is 'layer1\.0\.weight'\) are neither",
        ),
        ({"features.1.running_mean": np.ones(3, np.float32)}, UnsupportedError, "running_mean'"),
        ({"other.conv1_1.weight": np.ones((4, 3, 3, 3), np.float32)}, UnsupportedError, "holds two networks"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arrays: dict[str, Any] = {**vgg_files.weights(vgg_files.VGG16), **change}
    kept = {key: values for key, values in arrays.items() if values is not None}
    with pytest.raises(error, match=message) as caught:
        state_dict.read(saved(tmp_path, vgg_files.state_dict(kept)), "pth")
    assert "saved.pth: " in str(caught.value)


def torchvisions(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """A thin network whose first filter is that of torchvision's own, as published notebooks print it."""
    arrays = vgg_files.weights(vgg_files.VGG16 if name == "vgg16" else vgg_files.VGG19)
    printed = {
        "vgg16": [
            -0.5537,
            0.1427,
            0.5290,
            -0.5831,
            0.3566,
            0.7657,
            -0.6902,
            -0.0480,
            0.4841,
            0.1755,
            0.0099,
            -0.0814,
            0.0441,
            -0.0703,
            -0.2604,
            0.1324,
            -0.1728,
            -0.1323,
            0.3130,
            -0.1659,
            -0.4275,
            0.4752,
            -0.0827,
            -0.4870,
            0.6320,
            0.0193,
            -0.2775,
        ],
        "vgg19": [
            -5.3474e-02,
            -4.9257e-02,
            -6.7942e-02,
            1.5314e-02,
            4.5068e-02,
            2.1444e-03,
            3.6226e-02,
            1.9999e-02,
            1.9864e-02,
            1.7015e-02,
            5.5403e-02,
            -6.2293e-03,
            1.4165e-01,
            2.2705e-01,
            1.3758e-01,
            1.2000e-01,
            2.0030e-01,
            9.2114e-02,
            -4.4885e-02,
            1.2680e-02,
            -1.4497e-02,
            5.9742e-02,
            1.3955e-01,
            5.4102e-02,
            -9.6141e-04,
            5.8304e-02,
            -2.9663e-02,
        ],
    }
    arrays["conv1_1.weight"][0] = np.array(printed[name]).reshape(3, 3, 3)
    return arrays


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
@pytest.mark.parametrize("disguise", ["none", "half", "caffe names", "bgr"])
def test_torchvisions_own_networks_are_refused_with_the_reason(
    tmp_path: Path, name: str, disguise: str
) -> None:
    arrays = torchvisions(name)
    if disguise == "bgr":
        arrays["conv1_1.weight"] = arrays["conv1_1.weight"][:, ::-1]
    named = arrays if disguise == "caffe names" else vgg_files.torchvision_names(arrays)
    state = vgg_files.state_dict(named)
    if disguise == "half":
        state = OrderedDict((key, tensor.half()) for key, tensor in state.items())
    path = saved(tmp_path, state)
    with pytest.raises(
        UnsupportedError, match=rf"is torchvision's own {name}, .* RGB images .* not the Caffe network"
    ):
        state_dict.read(path, "pth")
    assert len(state_dict.read(path, "pth", allow_torchvision=True).layers) > 30


@pytest.mark.parametrize(("blocks", "name"), [((1, 1, 2, 2, 2), "vgg11"), ((2, 2, 2, 2, 2), "vgg13")])
def test_sizes_that_only_torchvision_made_are_refused_under_its_names(
    tmp_path: Path, blocks: tuple[int, ...], name: str
) -> None:
    arrays = vgg_files.weights(blocks)
    path = saved(tmp_path, vgg_files.state_dict(vgg_files.torchvision_names(arrays)))
    with pytest.raises(UnsupportedError, match=f"is torchvision's own {name}"):
        state_dict.read(path, "pth")
    assert_bit_equal(state_dict.read(path, "pth", allow_torchvision=True), arrays)
    assert_bit_equal(state_dict.read(saved(tmp_path, vgg_files.state_dict(arrays)), "pth"), arrays)


@needs_shared
def test_the_real_caffe_network_is_not_taken_for_torchvisions(tmp_path: Path) -> None:
    net = caffemodel.read(SHARED / "models" / "VGG_ILSVRC_16_layers_conv.caffemodel")
    first = net.layer("conv1_1").blobs[0].data()
    names = [layer.name for layer in net.layers]
    # As large as torchvision's, though for inputs sixty times as large: magnitude tells nothing.
    assert 0.1 < first.std() < 0.4
    assert vgg.torchvisions_own(names, first, torchvision_naming=True) is None
    assert vgg.torchvisions_own(names, first[:, ::-1], torchvision_naming=True) is None


def odd_network() -> NetParameter:
    """A network that is no VGG: slashes and points in names, branches, groups, layers of four blobs."""
    rng = np.random.default_rng(3)

    def blobs(*shapes: tuple[int, ...]) -> list[Blob]:
        return [Blob.from_array(rng.standard_normal(shape)) for shape in shapes]

    convolution = Message("ConvolutionParameter", num_output=4, kernel_size=[1], group=2, bias_term=False)
    return NetParameter(
        name='odd "net"',
        layers=[
            LayerParameter(
                "inception_3a/1x1",
                "Convolution",
                ["data"],
                ["a"],
                blobs((4, 2, 1, 1)),
                {"convolution_param": convolution},
            ),
            LayerParameter(
                "bn.1",
                "BatchNorm",
                ["a"],
                ["a"],
                blobs((4,), (4,), (1,)),
                {"batch_norm_param": Message("BatchNormParameter", eps=0.125)},
            ),
            LayerParameter(
                "scale",
                "Scale",
                ["a"],
                ["a"],
                blobs((4,), (4,)),
                {"scale_param": Message("ScaleParameter", bias_term=True)},
            ),
            LayerParameter("prelu", "PReLU", ["a"], ["b"], blobs((4,))),
            LayerParameter("bias", "Bias", ["a"], ["c"], blobs((4,))),
            LayerParameter(
                "join",
                "Eltwise",
                ["b", "c"],
                ["d"],
                [],
                {"eltwise_param": Message("EltwiseParameter", operation="MAX", coeff=[1.0, 0.5])},
            ),
            LayerParameter("lstm", "LSTM", ["d"], ["e"], blobs((2, 3), (2,), (2, 2), (4, 1))),
            LayerParameter(
                "pool",
                "Pooling",
                ["e"],
                ["f"],
                [],
                {"pooling_param": Message("PoolingParameter", pool="AVE", global_pooling=True)},
            ),
        ],
        inputs=["data"],
        input_dims=[(1, 4, 8, 8)],
    )


@pytest.mark.parametrize("kind", ["pth", "npz"])
def test_any_network_survives_with_its_layers(tmp_path: Path, kind: str) -> None:
    net = odd_network()
    path = str(tmp_path / f"odd.{kind}")
    if kind == "pth":
        state_dict.write(path, net, "pth")
        read = state_dict.read(path, "pth")
    else:
        state_dict.write(path, net, "npz")
        read = state_dict.read(path, "npz")
    assert described(read) == described(net)
    assert (read.name, read.inputs, read.input_dims) == (net.name, net.inputs, net.input_dims)
    assert_bit_equal(read, dict(state_dict.weights(net)))
    for layer in net.layers:
        assert [blob.shape for blob in read.layer(layer.name).blobs] == [blob.shape for blob in layer.blobs]


def test_keys_of_blobs_that_are_not_weight_and_bias() -> None:
    keys = list(state_dict.keys(odd_network()))
    assert keys[1:4] == ["bn.1.mean", "bn.1.variance", "bn.1.scale_factor"]
    assert "bias.bias" in keys
    assert keys[-4:] == ["lstm.weight", "lstm.bias", "lstm.blob2", "lstm.blob3"]


def test_weights_without_a_layer_in_the_list_are_an_error(tmp_path: Path) -> None:
    state = state_dict.to_state_dict(odd_network())
    state["more.weight"] = torch.ones(3)
    with pytest.raises(WeightMismatchError, match=r"has the weights more\.weight, which belong to no layer"):
        state_dict.read(saved(tmp_path, state), "pth")


def test_two_layers_of_one_name_are_an_error() -> None:
    net = odd_network()
    net.layers.append(net.layers[0])
    with pytest.raises(WeightMismatchError, match="two layers are called inception_3a/1x1"):
        state_dict.to_state_dict(net)


def test_other_programs_load_what_is_written(tmp_path: Path) -> None:
    net = odd_network()
    state_dict.write(tmp_path / "odd.pth", net, "pth")
    state_dict.write(tmp_path / "odd.npz", net, "npz")
    expected = dict(state_dict.weights(net))
    state = torch.load(tmp_path / "odd.pth", weights_only=True)
    assert list(state) == list(expected)
    module = torch.nn.Module()
    inner = torch.nn.Module()
    module.add_module("scale", inner)
    for part in ("weight", "bias"):
        inner.register_parameter(part, torch.nn.Parameter(torch.zeros(4)))
    alone = {key: tensor for key, tensor in state.items() if key.startswith("scale.")}
    module.load_state_dict(alone, strict=True)
    # With the metadata that came with the file, too.
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not missing
    assert "prelu.weight" in unexpected
    assert np.array_equal(inner.weight.detach().numpy(), expected["scale.weight"])
    with np.load(tmp_path / "odd.npz", allow_pickle=False) as arrays:
        assert list(arrays) == list(expected)
        assert all(np.array_equal(arrays[key], values) for key, values in expected.items())


def test_a_vggs_state_dict_carries_no_metadata() -> None:
    net = vgg_files.network(vgg_files.weights(vgg_files.VGG16))
    assert state_dict.layers_text(net) == ""
    assert not hasattr(state_dict.to_state_dict(net), "_metadata")
    net.layers = net.layers[:5]
    assert net.layers[-1].name == "pool1"
    assert 'name: "pool1"' in state_dict.layers_text(net)


@pytest.mark.parametrize("names", ["caffe", "torchvision"])
@both_sizes
def test_either_names_are_written_and_read_back(tmp_path: Path, blocks: tuple[int, ...], names: str) -> None:
    arrays = vgg_files.weights(blocks)
    net = vgg_files.network(arrays)
    expected = vgg_files.torchvision_names(arrays) if names == "torchvision" else arrays
    state_dict.write(tmp_path / "v.pth", net, "pth", names=names)
    assert list(torch.load(tmp_path / "v.pth", weights_only=True)) == list(expected)
    assert_bit_equal(state_dict.read(str(tmp_path / "v.pth"), "pth"), arrays)
    state_dict.write(tmp_path / "v.npz", net, "npz", names=names)
    assert_bit_equal(state_dict.read(str(tmp_path / "v.npz"), "npz"), arrays)


def test_torchvisions_names_for_what_is_no_vgg() -> None:
    with pytest.raises(UnsupportedError, match="has no name in torchvision's VGG; keep Caffe's names"):
        state_dict.to_state_dict(odd_network(), names="torchvision")


def test_legacy_blobs_lose_their_leading_axes() -> None:
    layer = LayerParameter(
        "fc6",
        "InnerProduct",
        blobs=[Blob.from_array(np.ones((1, 1, 4, 6))), Blob.from_array(np.ones((1, 1, 1, 4)))],
    )
    one = LayerParameter(
        "one",
        "Convolution",
        blobs=[Blob.from_array(np.ones((1, 1, 1, 1))), Blob.from_array(np.ones((1, 1, 1, 1)))],
    )
    shapes = {key: values.shape for key, values in state_dict.weights(NetParameter(layers=[layer, one]))}
    assert shapes == {"fc6.weight": (4, 6), "fc6.bias": (4,), "one.weight": (1, 1, 1, 1), "one.bias": (1,)}


@pytest.mark.parametrize("kind", ["pth", "npz"])
def test_the_same_network_gives_the_same_bytes(tmp_path: Path, kind: state_dict.Kind) -> None:
    written = []
    for name in ("first", "second and longer"):
        state_dict.write(tmp_path / f"{name}.{kind}", odd_network(), kind)
        written.append((tmp_path / f"{name}.{kind}").read_bytes())
    assert written[0] == written[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["first." + kind, "second and longer." + kind]
    )


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(b"before")
    net = odd_network()
    net.layers[-2].blobs[0] = Blob((7, 7), lambda: np.ones(2, np.float32), 2)
    with pytest.raises(LegacyStyleError, match="layer lstm, blob 0, has the shape"):
        state_dict.write(tmp_path / "v.npz", net, "npz")
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]
    assert (tmp_path / "v.npz").read_bytes() == b"before"


def test_half_precision_rounds_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    arrays = vgg_files.weights(vgg_files.VGG16)
    net = vgg_files.network(arrays)
    state_dict.write(tmp_path / "half.pth", net, "pth", half=True)
    state = torch.load(tmp_path / "half.pth", weights_only=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    rounded = {key: values.astype(np.float16).astype(np.float32) for key, values in arrays.items()}
    assert_bit_equal(state_dict.read(str(tmp_path / "half.pth"), "pth"), rounded)
    arrays["fc8.bias"][0] = 70000
    net = vgg_files.network(arrays)
    with pytest.raises(WeightMismatchError, match=r"fc8\.bias has weights beyond 65504"):
        state_dict.to_state_dict(net, half=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory map")
@pytest.mark.parametrize("kind", ["pth", "npz"])
def test_weights_stay_in_the_file_until_they_are_used(tmp_path: Path, kind: str) -> None:
    net = vgg_files.network(vgg_files.weights(vgg_files.VGG16))
    path = tmp_path / f"lazy.{kind}"
    if kind == "pth":
        state_dict.write(path, net, "pth")
        net = state_dict.read(str(path), "pth")
    else:
        state_dict.write(path, net, "npz")
        net = state_dict.read(str(path), "npz")
    values = net.layer("conv3_1").blobs[0].data()
    address = values.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < end:
            assert line.endswith(path.name)
            return
    raise AssertionError("the weights are nowhere in memory")
