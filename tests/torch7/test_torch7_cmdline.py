"""legacy_style.torch7.cmdline against the recorded torch.CmdLine and the rules of LuaJIT's tonumber."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import both_roots

from legacy_style.programs.neural_style.options import ORIGINAL
from legacy_style.torch7.cmdline import Option, UsageError, parse, tonumber, tostring, usage


def parsed_as_recorded(words):
    """Every option as the recordings write it: type and `tostring` of the value."""
    values = {option.key: option.default for option in ORIGINAL} | parse(ORIGINAL, words)
    names = {bool: "boolean", float: "number", str: "string"}
    return {key[1:]: [names[type(value)], tostring(value)] for key, value in values.items()}


@both_roots
def test_every_recorded_command_line_parses_as_the_original_parsed_it(root):
    cases = json.loads((root / "cmdline.json").read_text())
    assert len(cases) == 38
    defaults = cases[0]["parsed"]
    for case in cases:
        if case["exit_code"] == 1:
            with pytest.raises(UsageError) as error:
                parse(ORIGINAL, case["args"])
            assert str(error.value) == case["stderr"], case["args"]
            # print('') twice, then usage
            assert case["stdout_first_lines"][2:] == usage(ORIGINAL).splitlines()[:2], case["args"]
        elif case["help_printed"]:
            assert parse(ORIGINAL, case["args"]) is None, case["args"]
            expected = usage(ORIGINAL, "neural_style.lua").splitlines()[:4]
            assert case["stdout_first_lines"] == expected, case["args"]
        else:
            assert parsed_as_recorded(case["args"]) == {**defaults, **case.get("changed", {})}, case["args"]


@both_roots
@pytest.mark.parametrize("case", ["cli_help", "cli_help_h", "cli_help_dd"])
def test_usage_is_the_original_text_to_the_letter(root, case):
    assert usage(ORIGINAL, "TORCH/bin/th") == (root / "runs" / case / "stdout.txt").read_text()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e2", 100.0),
        ("1E2", 100.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.e2", 100.0),
        ("+5", 5.0),
        (" 5 ", 5.0),
        ("\t\n\v\f\r 5\r\n", 5.0),
        ("0x40", 64.0),
        ("0X.8", 0.5),
        ("-0x1p4", -16.0),
        ("0x1e5", 485.0),
        ("0b11", 3.0),
        ("-0B0011", -3.0),
        ("0b0", 0.0),
        ("0777", 777.0),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1e400", math.inf),
        ("-1e400", -math.inf),
        ("0x1p99999", math.inf),
        ("-0x1p99999", -math.inf),
        ("1e-400", 0.0),
        ("0b" + "1" * 64, 2.0**64),
        ("0b" + "0" * 100 + "1", 1.0),
    ],
)
def test_numbers_that_luajit_takes(text, number):
    assert tonumber(text) == number


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", " nan "])
def test_nan_is_a_number(text):
    assert math.isnan(tonumber(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "1,5",
            "1_000",
            "123abc",
            "1/1000",
            "5LL",
            "5U",
            "5i",
            "- 5",
            "--5",
            "+-5",
            "1 2",
            ".",
            "e5",
        ),
        *("1e", "1e+", "1..2", "1.2.3", "0x", "0x.", "0x1p", "0xg", "infi", "infinit", "nano", "nan(1)"),
        *("0b", "0b2", "0b1.1", "0b1e1", "0b" + "1" * 65),
        *("\u00a05", "\u0665", "\uff15", "1\0", "\udcff"),
    ],
)
def test_numbers_that_luajit_rejects(text):
    assert tonumber(text) is None


def test_negative_zero_keeps_its_sign():
    assert math.copysign(1, tonumber("-0")) == -1


@given(st.floats(allow_nan=False))
def test_doubles_survive_in_decimal_and_hexadecimal(number):
    assert tonumber(repr(number)) == number
    assert tonumber(number.hex()) == number


@given(st.text(alphabet="0123456789abefinptxINX.+- \t\u0661", max_size=8))
def test_what_is_a_decimal_number_to_luajit_is_the_same_number_to_python(text):
    number = tonumber(text)
    assert number is None or isinstance(number, float)
    if number is not None and not set(text.lower()) & set("xbp"):
        assert number == float(text) or math.isnan(number)


@given(st.lists(st.sampled_from(["-seed", "-gpu", "-h", "5", "x", "-normalize_gradients", "--foo", ""])))
def test_any_words_parse_or_are_a_usage_error(words):
    try:
        answer = parse(ORIGINAL, words)
    except UsageError as error:
        assert str(error).startswith(("invalid argument: ", "missing argument for ", "invalid type for "))
    else:
        assert answer is None or set(answer) <= {"-seed", "-gpu", "-normalize_gradients"}


def test_only_what_is_given_is_answered_and_the_last_of_several_wins():
    assert parse(ORIGINAL, ["-seed", "1", "-gpu", "-seed", "-seed", "0x10"]) == {
        "-seed": 16.0,
        "-gpu": "-seed",
    }


def test_a_flag_turns_its_default_round_however_often_it_stands():
    options = [Option("-on", True), Option("-off", False)]
    assert parse(options, ["-on", "-off", "-on"]) == {"-on": False, "-off": True}


def test_the_widest_option_sets_the_column_and_no_help_leaves_no_gap():
    options = [Option("-a", 0.1, "first"), Option("-long", False)]
    assert usage(options) == "Usage: [options]\n  -a    first [0.1]\n  -long [false]\n"


# What Lua 5.1's "%.14g" gives, by C's rules for %g.
@pytest.mark.parametrize(
    ("number", "text"),
    [(512.0, "512"), (1e-3, "0.001"), (1 / 3, "0.33333333333333"), (1e15, "1e+15"), (-math.inf, "-inf")],
)
def test_defaults_print_as_in_lua(number, text):
    assert tostring(number) == text
