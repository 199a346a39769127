"""neural_style's options: the original's options as recorded, ours between them, lines found in the wild."""

import json
import math
import re

import pytest
from recordings import SHARED, SHIPPED, needs_shared

from legacy_style.errors import OptionError
from legacy_style.programs.neural_style.forks import advice
from legacy_style.programs.neural_style.options import EXTENSIONS, ORIGINAL, Options, as_json, parse
from legacy_style.torch7.cmdline import UsageError

LEGACY = SHARED / "commands" / "legacy.jsonl"


def legacy_lines():
    return [json.loads(line) for line in LEGACY.read_text().splitlines()]


def test_the_defaults_are_the_recorded_ones_with_their_types():
    recorded = json.loads((SHIPPED / "cmdline.json").read_text())[0]["parsed"]
    assert len(ORIGINAL) == len(recorded) == 29
    types = {"string": str, "number": float, "boolean": bool}
    for name, (kind, text) in recorded.items():
        value = getattr(Options(), name)
        assert type(value) is types[kind], name
        assert value == {"string": str, "number": float, "boolean": lambda word: word == "true"}[kind](
            text
        ), name


def test_numbers_stay_floats():
    options = parse(["-image_size", "256", "-num_iterations", "4.5", "-seed", "0x10"]).options
    assert (options.image_size, options.num_iterations, options.seed) == (256.0, 4.5, 16.0)
    assert {type(options.image_size), type(options.seed)} == {float}


def test_our_options_may_stand_before_and_between_the_old_ones():
    command = parse(["--tile", "64", "-gpu", "-1", "--no-progress", "-seed", "3", "--metadata"])
    assert (command.options.tile, command.options.gpu, command.options.seed) == (64, "-1", 3.0)
    assert not command.progress
    assert command.options.metadata and not Options().metadata
    assert command.action == "run"


def test_an_old_option_takes_one_of_ours_as_its_value():
    command = parse(["-style_image", "--version", "-gpu", "--tile"])
    assert (command.options.style_image, command.options.gpu, command.action) == (
        "--version",
        "--tile",
        "run",
    )


@pytest.mark.parametrize("word", ["--foo", "--image_size", "--tile=5", "-tile", "--Tile", "--max_pixels"])
def test_other_words_with_two_dashes_are_invalid_as_in_the_original(word):
    with pytest.raises(UsageError, match=f"^invalid argument: {word}$"):
        parse([word, "5"])


def test_every_extension_sets_its_field():
    words = ["--max-pixels", "1e6", "--tile", "0x80", "--precision", "bfloat16", "--checkpoint", "a"]
    words += ["--resume", "b", "--matconvnet-orientation", "wh"]
    options = parse(words).options
    expected = {"max_pixels": 1000000, "tile": 128, "precision": "bfloat16", "checkpoint": "a", "resume": "b"}
    expected["matconvnet_orientation"] = "wh"
    assert {name: getattr(options, name) for name in expected} == expected
    assert all(type(number) is int for number in (options.max_pixels, options.tile))


@pytest.mark.parametrize("action", ["version", "print-options", "list-layers", "print-plan"])
def test_actions(action):
    assert parse(["-seed", "1", f"--{action}", "-gpu", "0"]).action == action


def test_of_several_actions_the_first_in_the_list_is_done():
    assert parse(["--print-plan", "--list-layers", "--print-options"]).action == "print-options"


@pytest.mark.parametrize("word", ["-help", "-h", "--help"])
def test_help_wins_over_what_follows(word):
    assert parse(["--tile", "5", word, "-foo"]) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "2.5"], "--tile takes a whole number of 0 or more, not 2.5."),
        (["--tile", "-1"], "--tile takes a whole number of 0 or more, not -1."),
        (["--max-pixels", "0"], "--max-pixels takes a whole number of 1 or more, not 0."),
        (["--max-pixels", "inf"], "--max-pixels takes a whole number of 1 or more, not inf."),
        (["--max-pixels", "nan"], "--max-pixels takes a whole number of 1 or more, not nan."),
        (["--precision", "half"], "--precision takes float32, tf32 or bfloat16, not 'half'."),
        (["--matconvnet-orientation", "x"], "--matconvnet-orientation takes hw or wh, not 'x'."),
        (["--tile", "x"], "invalid type for option --tile (should be number)"),
        (["--resume"], "missing argument for option --resume"),
    ],
)
def test_wrong_values_of_ours_are_refused(words, message):
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        parse(words)


def test_the_python_api_refuses_the_same_values():
    with pytest.raises(OptionError, match="--precision takes"):
        Options(precision="float16")


def test_it_is_known_what_somebody_chose():
    named = parse(["-model_file", Options().model_file]).options
    assert named.model_file == Options().model_file
    assert named.is_explicit("model_file")
    assert not named.is_explicit("proto_file")
    assert Options(model_file="mine.pth").is_explicit("model_file")
    assert named == Options()


def test_json_has_the_29_options_in_order_and_ours_only_where_given():
    names = [option.key[1:] for option in ORIGINAL]
    assert list(json.loads(as_json(parse([]).options))) == names
    some = json.loads(as_json(parse(["--tile", "0", "--max-pixels", "7", "--metadata"]).options))
    assert list(some) == [*names, "max_pixels", "tile", "metadata"]
    assert (some["tile"], some["max_pixels"], some["metadata"]) == (0, 7, True)


def test_json_numbers_are_numbers_and_whole_ones_are_written_whole():
    text = as_json(parse(["-style_weight", "1e3", "-content_weight", "2.50", "-tv_weight", "1e300"]).options)
    assert "\n" not in text
    assert '"style_weight": 1000, ' in text
    assert '"content_weight": 2.5, ' in text
    assert '"tv_weight": 1e+300, ' in text
    assert '"normalize_gradients": false, ' in text
    assert '"gpu": "0", ' in text


def test_json_of_numbers_that_json_does_not_have():
    words = ["-style_weight", "1e400", "-content_weight", "-inf", "-tv_weight", "nan"]
    strict = json.loads(as_json(parse(words).options), parse_constant=pytest.fail)
    assert (strict["style_weight"], strict["content_weight"]) == (math.inf, -math.inf)
    assert strict["tv_weight"] == "nan"


def test_options_of_other_versions_have_advice_and_misspellings_have_none():
    assert advice("-multidevice_strategy").endswith(": use -multigpu_strategy.")
    assert advice("-foo") is None
    assert advice("style_layer_weights") is None


def test_extensions_begin_with_two_dashes_and_old_options_with_one():
    assert all(option.key.startswith("--") for option in EXTENSIONS)
    assert all(re.fullmatch("-[a-z_]+", option.key) for option in ORIGINAL)


@needs_shared
def test_every_command_line_found_in_the_wild_is_taken_or_refused_as_by_the_original():
    literal = [line for line in legacy_lines() if line["literal"]]
    assert len(literal) == 76
    for line in literal:
        try:
            command = parse(line["args"])
            answer = "help, exit 0" if command is None else "ok"
        except UsageError as error:
            answer = str(error)
        assert answer == line["torch_cmdline"], line["args"]


@needs_shared
def test_every_option_of_other_versions_found_in_the_wild_has_advice():
    notes = " ".join(line["notes"] for line in legacy_lines())
    unknown = set(re.findall(r"UNKNOWN OPTION in final neural_style.lua: (-\w+)", notes))
    assert len(unknown) == 9
    assert [word for word in sorted(unknown) if advice(word) is None] == []
