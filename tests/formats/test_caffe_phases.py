"""Which layers belong to a phase: Caffe's test_net.cpp cases (TestFilter...), and train_val files."""

from __future__ import annotations

from pathlib import Path

import pytest

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import phases, prototxt, upgrade
from legacy_style.formats.caffe.netparam import NetParameter

TRAIN_VAL = Path(__file__).parents[1] / "data" / "caffe" / "train_val.prototxt"


def net(text: str) -> NetParameter:
    return upgrade.net_parameter(prototxt.parse(text), "net")


def kept(text: str, phase: str, level: int = 0, stages: tuple[str, ...] = ()) -> list[str]:
    return [layer.name for layer in phases.select(net(text), phase, level=level, stages=stages).layers]


@pytest.mark.parametrize(
    ("phase", "layers", "aside"),
    [
        ("TEST", ["conv1", "relu1", "fc2"], ["data", "data", "drop1", "accuracy", "loss", "prob"]),
        ("TRAIN", ["conv1", "relu1", "drop1", "fc2"], ["data", "data", "accuracy", "loss", "prob"]),
    ],
)
def test_a_train_val_file_leaves_the_layers_that_compute(
    phase: str, layers: list[str], aside: list[str]
) -> None:
    read = prototxt.read(TRAIN_VAL, phase=phase)
    assert [layer.name for layer in read.layers] == layers
    assert [layer.name for layer in read.set_aside] == aside


def test_the_state_in_a_file_gives_level_and_stages(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(TRAIN_VAL.read_text() + 'state { phase: TRAIN level: 1 stage: "deploy" }')
    assert [layer.name for layer in prototxt.read(path).layers] == ["conv1", "relu1", "fc2", "prob"]


RULES = """
layer { name: 'always' type: 'ReLU' }
layer { name: 'train' type: 'ReLU' include { phase: TRAIN } }
layer { name: 'test' type: 'ReLU' exclude { phase: TRAIN } }
layer { name: 'level 2 to 4' type: 'ReLU' include { min_level: 2 max_level: 4 } }
layer { name: 'not level 3' type: 'ReLU' exclude { min_level: 3 max_level: 3 } }
layer { name: 'a and b' type: 'ReLU' include { stage: 'a' stage: 'b' } }
layer { name: 'a not b' type: 'ReLU' include { stage: 'a' not_stage: 'b' } }
layer { name: 'a or b' type: 'ReLU' include { stage: 'a' } include { stage: 'b' } }
layer { name: 'neither' type: 'ReLU' exclude { stage: 'a' } exclude { stage: 'b' } }
layer { name: 'empty rule' type: 'ReLU' exclude { } }
"""


@pytest.mark.parametrize(
    ("phase", "level", "stages", "expected"),
    [
        ("TRAIN", 0, "", ["always", "train", "not level 3", "neither"]),
        ("TEST", 0, "", ["always", "test", "not level 3", "neither"]),
        ("TEST", 3, "", ["always", "test", "level 2 to 4", "neither"]),
        ("TEST", 4, "a", ["always", "test", "level 2 to 4", "not level 3", "a not b", "a or b"]),
        ("TEST", 5, "ab", ["always", "test", "not level 3", "a and b", "a or b"]),
        ("TEST", -1, "b", ["always", "test", "not level 3", "a or b"]),
    ],
)
def test_rules_hold_where_all_their_conditions_do(
    phase: str, level: int, stages: str, expected: list[str]
) -> None:
    assert kept(RULES, phase, level, tuple(stages)) == expected


def test_v1_layers_have_rules_too() -> None:
    text = "layers { name: 'a' type: RELU include { phase: TRAIN } } layers { name: 'l' type: SOFTMAX_LOSS }"
    assert kept(text, "TEST") == []
    assert kept(text, "TRAIN") == ["a"]


def test_both_kinds_of_rule_are_refused() -> None:
    with pytest.raises(
        FormatError, match=r'^net: layer "x" has include and exclude rules, expected one kind only$'
    ):
        kept("layer { name: 'x' include { } exclude { } }", "TEST")


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
    assert kept(TRAINED, "TEST") == ["shrunk", "conv", "pool", "score", "crop", "judge"]


def test_the_image_is_what_a_data_layer_makes_first_or_calls_data() -> None:
    named = net("layer { name: 'a' type: 'Python' top: 'label' top: 'data' }")
    assert phases.image_blobs(named) == {"data"}
    first = net("input: 'x' layer { name: 'a' type: 'ImageSegData' top: 'image' top: 'label' }")
    assert phases.image_blobs(first) == {"data", "x", "image"}


def test_a_layer_without_bottom_that_has_weights_feeds_nothing() -> None:
    weighted = net("layer { name: 'p' type: 'Parameter' top: 'p' blobs { shape { dim: 1 } data: 1 } }")
    assert phases.outside_inference(weighted) == set()
