"""Text network files, against Google's text_format and the networks of the recordings."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from caffe_generate import message, plain
from caffe_messages import CLASSES
from google.protobuf import text_format
from recordings import RECORDED, SHARED, needs_shared
from test_caffe_wire import kinds, ours

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import caffemodel, prototxt, upgrade, wire
from legacy_style.formats.caffe.netparam import LayerParameter, Message, NetParameter

DATA = Path(__file__).parents[1] / "data" / "caffe"
SMALL = sorted(DATA.glob("*.prototxt"))
RECORDINGS = sorted((RECORDED / "models").glob("*.prototxt")) + sorted((SHARED / "models").glob("*.prototxt"))


def parse(text: str, kind: str = "ConvolutionParameter") -> Message:
    return prototxt.parse(text, path="net", kind=kind)


def read(path: Path) -> NetParameter:
    return upgrade.net_parameter(prototxt.parse(path.read_text("utf-8"), path=str(path)), str(path))


def google(text: str, kind: str = "ConvolutionParameter") -> Any:
    return text_format.Parse(text, CLASSES[kind]())


def test_ten_thousand_messages_read_as_google_wrote_them() -> None:
    for seed in range(10_000):
        rng = random.Random(seed)
        kind = kinds(rng)
        made = message(rng, kind, 3.0 if seed % 100 == 0 else rng.choice([0.1, 0.2, 0.3]))
        text = text_format.MessageToString(
            made,
            as_utf8=rng.random() < 0.5,
            as_one_line=rng.random() < 0.3,
            use_short_repeated_primitives=rng.random() < 0.5,
            pointy_brackets=rng.random() < 0.3,
        )
        assert ours(parse(text, kind)) == plain(made), (seed, kind)


@pytest.mark.parametrize("path", [*SMALL, *RECORDINGS], ids=lambda path: path.stem)
def test_files_read_as_google_reads_them(path: Path) -> None:
    text = path.read_text()
    assert ours(parse(text, "NetParameter")) == plain(google(text, "NetParameter"))


@needs_shared
def test_the_recorded_files_are_there() -> None:
    assert len(RECORDINGS) == 17


@pytest.mark.parametrize(
    "text",
    [
        "pad: 1 pad: [2, 3] pad: []",
        "pad: 0x1F pad: 010 pad: 0 num_output: 4294967295",
        "num_output: -0, bias_term: true; group: 2",
        "bias_term: f",
        "bias_term: True",
        "bias_term: 0",
        "engine: CUDNN",
        "engine: 1",
        "weight_filler { }",
        "weight_filler: { };",
        "weight_filler < value: 1 >",
        "weight_filler: <value:1>num_output:3#five",
        "weight_filler { value: 1. min: .5f max: 5.F mean: 1e3 std: -1.5E-3 }",
        "weight_filler { value: inf min: -Infinity max: NAN mean: 1e39 std: 1e-60 }",
        "weight_filler { value: 3 min: -2 sparse: -2147483648 }",
        "weight_filler { type: 'a' \"b\"\n'c' }",
        r"""weight_filler { type: "\a\b\f\n\r\t\v\\\'\"" }""",
        r'weight_filler { type: "\0\18\101\x4a\x4A\303\251\u00e9\U0001F600" }',
        "weight_filler { type: 'it is \"so\"' }",
        "weight_filler { type: 'ünïcode 𝄞' }",
        "# nothing\n\t# here",
        "",
        "num_output: 1\r\npad: 2\r\n",
    ],
)
def test_values_are_what_google_takes_them_for(text: str) -> None:
    assert ours(parse(text)) == plain(google(text))


# The Python implementation of Google's format lacks these, which the specification and the C++ one have.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight_filler { value: - 1 }", {"weight_filler": Message("FillerParameter", value=-1.0)}),
        (r"weight_filler { type: '\?' }", {"weight_filler": Message("FillerParameter", type="?")}),
        (r"weight_filler { type: '\xff' }", {"weight_filler": Message("FillerParameter", type="\udcff")}),
        ("bias_term: 0x1", {"bias_term": True}),
    ],
)
def test_values_of_the_specification_alone(text: str, expected: dict[str, Any]) -> None:
    assert parse(text).values == expected
    with pytest.raises((text_format.ParseError, AssertionError, DeprecationWarning)):
        assert ours(parse(text)) == plain(google(text))


def test_lists_of_messages_and_repeated_ones_add_up() -> None:
    text = "layer { name: 'a' } layer: [ { name: 'b' }, < name: 'c' > ] layer: < name: 'd' >"
    assert [layer["name"] for layer in parse(text, "NetParameter")["layer"]] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_output: 1.0", "expected an integer for num_output, found 1.0 (line 1, column 13)"),
        ("num_output: 1e5", "expected an integer for num_output, found 1e5 (line 1, column 13)"),
        ("num_output: 09", "expected an integer for num_output, found 09 (line 1, column 13)"),
        ("num_output: 'x'", "expected an integer for num_output, found 'x' (line 1, column 13)"),
        ("num_output: -1", "num_output is -1, expected 0 to 4294967295 (line 1, column 13)"),
        ("num_output: 4294967296", "num_output is 4294967296, expected 0 to 4294967295 (line 1, column 13)"),
        (
            "num_output: " + "9" * 5000,
            f"num_output is {'9' * 37}..., expected 0 to 4294967295 (line 1, column 13)",
        ),
        ("pad: 1\n  pad:\n  x", "expected an integer for pad, found x (line 3, column 3)"),
        ("pad: [1 2]", "expected ',' or ']' in a list, found 2 (line 1, column 9)"),
        ("pad: [1,]", "expected an integer for pad, found ] (line 1, column 9)"),
        ("pad [1]", "expected ':' after pad, found [ (line 1, column 5)"),
        ("group: [1]", "expected an integer for group, found [ (line 1, column 8)"),
        ("pad 1", "expected ':' after pad, found 1 (line 1, column 5)"),
        ("pad: 3group: 2", "expected an integer for pad, found 3group (line 1, column 6)"),
        ("group: 2 group: 2", "group occurs a second time in one ConvolutionParameter (line 1, column 10)"),
        (
            "weight_filler {}\nweight_filler {}",
            "weight_filler occurs a second time in one ConvolutionParameter (line 2, column 1)",
        ),
        ("bias_term: TRUE", "expected true or false for bias_term, found TRUE (line 1, column 12)"),
        ("bias_term: 2", "bias_term is 2, expected 0 to 1 (line 1, column 12)"),
        ("engine: caffe", "engine is caffe, expected one of DEFAULT, CAFFE, CUDNN (line 1, column 9)"),
        ("engine: 'CAFFE'", "engine is 'CAFFE', expected one of DEFAULT, CAFFE, CUDNN (line 1, column 9)"),
        ("engine: 7", "engine is 7, expected the number of one of DEFAULT, CAFFE, CUDNN (line 1, column 9)"),
        ("weight_filler: 1", "expected '{' after weight_filler, found 1 (line 1, column 16)"),
        ("weight_filler", "expected ':' after weight_filler, found the end of the file (line 1, column 14)"),
        ("weight_filler {\n", "the file ends before the '}' of what begins here (line 1, column 15)"),
        ("weight_filler { >", "expected a field's name, found > (line 1, column 17)"),
        ("weight_filler { value: 1.2.3 }", "expected a number for value, found 1.2.3 (line 1, column 24)"),
        ("weight_filler { value: 0x1 }", "expected a number for value, found 0x1 (line 1, column 24)"),
        ("weight_filler { value: 010 }", "expected a number for value, found 010 (line 1, column 24)"),
        ("weight_filler { value: '1' }", "expected a number for value, found '1' (line 1, column 24)"),
        ("weight_filler { type: x }", "expected a string in quotes for type, found x (line 1, column 23)"),
        ("weight_filler { type: 'a\nb' }", "a string does not end on its line (line 1, column 23)"),
        ("weight_filler { type: 'ab", "a string does not end on its line (line 1, column 23)"),
        (r"weight_filler { type: 'ab\777' }", r"\777 is no escape sequence (line 1, column 26)"),
        (r"weight_filler { type: '\U00110000' }", r"\U00110000 is no escape sequence (line 1, column 24)"),
        (r"weight_filler { type: '\ud800' }", r"\ud800 is no escape sequence (line 1, column 24)"),
        ("}", "expected a field's name, found } (line 1, column 1)"),
        ("pad: 1,, pad: 2", "expected a field's name, found , (line 1, column 8)"),
        ("pad: 1 %", "unexpected character '%' (line 1, column 8)"),
        ("pad: 1 /* c */", "expected a field's name, found / (line 1, column 8)"),
        ("[a.b", "expected ']' after an extension's name, found the end of the file (line 1, column 5)"),
    ],
)
def test_an_error_says_what_and_where(text: str, expected: str) -> None:
    with pytest.raises(FormatError) as error:
        parse(text)
    assert str(error.value) == f"net: {expected}"
    # Google's parser refuses all of these too, if not always with an error of its own.
    with pytest.raises((text_format.ParseError, UnicodeError, DeprecationWarning)):
        google(text)


def test_unknown_fields_are_kept_with_what_they_hold() -> None:
    read = parse(
        "pad: 1 colour: 'red' colour: blue size: [1, -2.5, 0x10] "
        "deep { er: 1 est < a: 2f > } list [{}, {b: 'c'}] "
        "[org.caffe.extra]: 3 [type.googleapis.com/x-y.Z] { k: 1 } pad: 2"
    )
    assert read.values == {"pad": [1, 2]}
    assert {name: values for name, values in read.unknown.items() if name not in ("deep", "list")} == {
        "colour": ["red", "blue"],
        "size": [1, -2.5, 16],
        "[org.caffe.extra]": [3],
        "[type.googleapis.com/x-y.Z]": read.unknown["[type.googleapis.com/x-y.Z]"],
    }
    (deep,) = read.unknown["deep"]
    assert (deep.kind, deep.values, deep.unknown["er"]) == ("", {}, [1])
    assert deep.unknown["est"][0].unknown == {"a": [2.0]}
    assert [item.unknown for item in read.unknown["list"]] == [{}, {"b": ["c"]}]
    assert read.unknown["[type.googleapis.com/x-y.Z]"][0].unknown == {"k": [1]}


def test_layers_keep_what_forks_of_caffe_have_added(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("layer { name: 'p' type: 'Permute' permute_param { order: 0 order: 2 } }")
    (layer,) = read(path).layers
    assert layer.unknown["permute_param"][0].unknown == {"order": [0, 2]}


def test_nesting_has_a_limit() -> None:
    assert parse("a {" * 100 + "}" * 100).unknown["a"][0].kind == ""
    with pytest.raises(
        FormatError, match=r"^net: messages are nested more than 100 deep \(line 1, column 303\)$"
    ):
        parse("a {" * 101 + "}" * 101)
    with pytest.raises(FormatError, match="nested more than 100 deep"):
        parse("a {" * 1_000_000)


def test_messages_and_fields_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(prototxt)["MAX_FIELDS"] == wire.MAX_FIELDS
    monkeypatch.setattr(prototxt, "MAX_MESSAGES", 100)
    monkeypatch.setattr(prototxt, "MAX_FIELDS", 1000)
    assert len(parse("layer{}" * 100, "NetParameter")["layer"]) == 100
    with pytest.raises(
        FormatError, match=r"^net: more than 100 messages, no network has so many \(line 1, column"
    ):
        parse("layer{}" * 101, "NetParameter")
    with pytest.raises(
        FormatError, match=r"^net: more than 1000 fields, no network has so many \(line 1001, column"
    ):
        parse("pad:1\n" * 1001)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 10**6,
        "pad: " + "1" * 10**6 + "x",
        "#" * 10**6,
        "#\n" * 10**5,
        "'" + "\\'" * 10**5,
        "a:" + "'' " * 10**5,
        "weight_filler { value: " + "1" * 10**6 + "e }",
        "a: -" + " " * 10**6,
        "[" + "a." * 10**5,
    ],
    ids=range(9),
)
def test_long_tokens_take_time_in_proportion(text: str) -> None:
    """Each took minutes if any pattern tried again from every position."""
    try:
        parse(text)
    except FormatError as error:
        assert len(str(error)) < 200


def described(net: NetParameter, *, blobs: bool = False) -> list[LayerParameter]:
    assert blobs or not any(layer.blobs for layer in net.layers)
    return [
        LayerParameter(
            **{
                name: getattr(layer, name)
                for name in (
                    "name",
                    "type",
                    "bottoms",
                    "tops",
                    "params",
                    "param_specs",
                    "include",
                    "loss_weight",
                )
            }
        )
        for layer in net.layers
    ]


@pytest.mark.parametrize("name", ["deploy", "deploy_v1"])
def test_the_small_network_is_that_of_the_binary_files(name: str) -> None:
    net = read(DATA / f"{name}.prototxt")
    assert described(net) == described(caffemodel.read(DATA / "v2.caffemodel"), blobs=True)
    assert net.input_shapes() == {"data": (1, 3, 8, 8)}
    assert (net.name, net.version) == ("small", "V1" if name == "deploy_v1" else "V2")


@pytest.mark.parametrize(
    "path", [path for path in RECORDINGS if "VGG_ILSVRC_16" not in path.name], ids=lambda path: path.stem
)
def test_recorded_deploy_files_describe_the_recorded_models(path: Path) -> None:
    text = read(path)
    binary = caffemodel.read(path.with_name(path.name.replace("_deploy.prototxt", ".caffemodel")))
    assert described(text) == described(binary, blobs=True)


def test_blobs_in_text_are_blobs() -> None:
    text = """
    layer {
      name: 'l'
      blobs { shape { dim: [2, 2] } data: [1, 2, 3, 0.5] }
      blobs { num: 1 channels: 1 height: 1 width: 2 double_data: 1e300 double_data: 5 data: 7 }
    }
    """
    first, second = upgrade.net_parameter(parse(text, "NetParameter"), "net").layers[0].blobs
    assert first.data().tolist() == [[1, 2], [3, 0.5]]
    assert (second.shape, second.data(flat=True).tolist()) == ((1, 1, 1, 2), [math.inf, 5])
    expected = (
        r'^net: blob 0 of layer "l" has the shape \(2, 2\), which takes 4 values, but the file holds 3$'
    )
    with pytest.raises(FormatError, match=expected):
        upgrade.net_parameter(parse(text.replace(", 0.5", ""), "NetParameter"), "net")


def test_an_error_in_a_file_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('name: "x"\n\nlayer {\n  type: Convolution\n}\n')
    expected = f"{path}: expected a string in quotes for type, found Convolution (line 4, column 9)"
    with pytest.raises(FormatError, match=f"^{re.escape(expected)}$"):
        read(path)


def test_input_dim_comes_in_fours(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("input: 'data' input_dim: [1, 3, 224]")
    with pytest.raises(FormatError, match=r"input_dim occurs 3 times, expected four for each input$"):
        read(path)
