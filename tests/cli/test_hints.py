"""What is said behind a program's own message about a wrong command line, in every program."""

import importlib
import sys
from pathlib import Path

import pytest
import thin_networks

from legacy_style.cli import athalye, hints, legacy_style, neural_style, paper, th
from legacy_style.formats.caffe import caffemodel

KEYS = ("-content_image", "-image_size", "-gpu", "-normalize_gradients", "--exif-rotate", "--tile")

QUOTED = "the command has curly quotes, which are letters to the shell: type straight ones"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--content_image", "the option is -content_image"),
        ("-content-image", "the option is -content_image"),
        ("-Image_size", "the option is -image_size"),
        ("-image_szie", "the option is -image_size"),
        ("-exif_rotate", "the option is --exif-rotate"),
        ("-image_size=512", "write -image_size 512, with a blank in place of the ="),
        ("--tile=64", "write --tile 64, with a blank in place of the ="),
        (
            "\N{EN DASH}image_size",
            "\N{EN DASH}image_size begins with a long dash, as text programs make them: type a plain - (hyphen);"
            " the option is -image_size",
        ),
        (
            "\N{EM DASH}exif-rotate",
            "\N{EM DASH}exif-rotate begins with a long dash, as text programs make them: type a plain - (hyphen);"
            " the option is --exif-rotate",
        ),
        ("holiday.jpg\N{RIGHT DOUBLE QUOTATION MARK}", QUOTED),
        ("-foo", None),
        ("true", None),
        ("", None),
        ("-", None),
    ],
)
def test_a_word_that_is_no_option(word, hint):
    assert hints.of_word(word, KEYS) == hint


def test_a_carriage_return_tells_of_windows_line_ends():
    hint = hints.of_word("-normalize_gradients\r", KEYS)
    assert hint is not None
    assert hint.startswith("it ends in a carriage return, so the script has Windows line ends: ")
    assert hint.endswith("; the option is -normalize_gradients")
    assert "\r" not in hint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["-gpu", "c"], "-gpu c is neural-style-pt's word for the CPU: write -gpu -1"),
        (["-image_size", "1,5"], "-image_size 1,5 is no number: write 1.5, with a point"),
        (["-image_size", "5", "-image_size", "512px"], "-image_size 512px is no number"),
        (["-image_size", "\N{LEFT DOUBLE QUOTATION MARK}512"], QUOTED),
        (["-image_size"], None),
    ],
)
def test_a_value_that_is_no_number(words, hint):
    message = f"invalid type for option {words[0]} (should be number)"
    assert hints.after_usage_error(message, words, KEYS) == hint


def test_a_message_without_a_hint():
    assert hints.after_usage_error("missing argument for option -gpu", ["-gpu"], KEYS) is None


SCRIPTS = {script: module for script, module in th.SCRIPTS.items() if module != "show_opts"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_of_torch7_gives_hints_behind_the_original_s_line(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["th", script])
    option = "-model" if script == "print_options.lua" else "-gpu"
    assert importlib.import_module(f"legacy_style.cli.{SCRIPTS[script]}").main([f"{option}=1"]) == 1
    answer = capsys.readouterr()
    name = script.removesuffix(".lua")
    assert answer.err == (
        f"invalid argument: {option}=1\n{name}: write {option} 1, with a blank in place of the =\n"
    )
    assert answer.out.startswith("\t\n\t\nUsage: [options]\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_carriage_return_garbles_no_line(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["th", script])
    assert importlib.import_module(f"legacy_style.cli.{SCRIPTS[script]}").main(["-foo\r"]) == 1
    first, second, end = capsys.readouterr().err.split("\n")
    assert first == "invalid argument: -foo\\r"
    assert "Windows line ends" in second
    assert end == ""


@pytest.mark.parametrize("script", ["fast_neural_style.lua", "artistic_video.lua", "train.lua"])
def test_gpu_c_is_explained_where_a_gpu_is_a_number(script, capsys):
    assert importlib.import_module(f"legacy_style.cli.{SCRIPTS[script]}").main(["-gpu", "c"]) == 1
    assert capsys.readouterr().err.endswith(": -gpu c is neural-style-pt's word for the CPU: write -gpu -1\n")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            "athalye",
            ["--content", "a.jpg", "--styles", "b.jpg", "--output", "c.png", "\N{EN DASH}width", "9"],
        ),
        ("paper", ["matrix", "--content", "a.jpg", "--style", "b.jpg", "\N{EN DASH}seed", "9"]),
        ("legacy_style", ["paint", "a.jpg", "b.png", "\N{EN DASH}size", "9"]),
        ("legacy_style", ["compare", "images", "a.png", "b.png", "\N{EN DASH}json"]),
    ],
)
def test_programs_with_other_parsers_know_long_dashes_too(module, words, capsys):
    assert importlib.import_module(f"legacy_style.cli.{module}").main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("begins with a long dash, as text programs make them: type a plain - (hyphen)")


def test_a_missing_file_whose_name_was_changed_on_its_way_is_one_line_with_a_hint(capsys, tmp_path):
    assert legacy_style.main(["paint", f"{tmp_path}/a.jpg\r", f"{tmp_path}/b.png"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"legacy-style: {tmp_path}/a.jpg\\r: No such file or directory")
    assert "Windows line ends" in err and err.count("\n") == 1 and "\r" not in err
    assert legacy_style.main(["paint", f"{tmp_path}/\N{LEFT DOUBLE QUOTATION MARK}a.jpg", "b.png"]) == 1
    assert capsys.readouterr().err.endswith(f"; {QUOTED}\n")


ODD = "a\nb\r\t\x1b[31m\x85\x9b\u2028\u2029\u202e\N{LATIN SMALL LETTER E WITH ACUTE}"
SHOWN = r"a\nb\r\t\x1b[31m\x85\x9b\u2028\u2029\u202e\N{LATIN SMALL LETTER E WITH ACUTE}".replace(
    r"\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{LATIN SMALL LETTER E WITH ACUTE}"
)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (legacy_style.main, ["paint", ODD, "b.png"]),
        (legacy_style.main, ["inspect", "a.t7", ODD]),
        (legacy_style.main, ["inspect", ODD]),
        (legacy_style.main, [f"--{ODD}"]),
        (neural_style.main, ["-model_file", "a", "-content_image", ODD]),
        (neural_style.main, ["-optimizer", ODD]),
        (neural_style.main, ["--batch", ODD, "--output-dir", "b"]),
        (athalye.main, ["--content", "a.jpg", "--styles", "b.jpg", "--output", "c.jpg", "--overwrite", ODD]),
        (athalye.main, ["--content", "a.jpg", "--styles", "b.jpg", "--output", "c.jpg", "--network", ODD]),
        (paper.main, ["matrix", "--content", ODD, "--style", "b.jpg"]),
        (paper.main, [ODD]),
    ],
)
def test_whatever_a_name_or_a_value_has_the_error_is_one_line(program, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.t7").touch()
    try:
        assert program(words) != 0
    except SystemExit as end:
        assert end.code != 0
    err = capsys.readouterr().err
    (line,) = [line for line in err.split("\n") if "a\\nb" in line]
    # Python's own writing, in argparse and in click, shows what we show.
    assert SHOWN in line and not set(ODD[:-1]) & set(line) - set("ab[31m")


def test_names_of_layers_cannot_tell_the_terminal_what_to_do(capsys, tmp_path):
    net = thin_networks.load("oddconv")
    net.layers[1].name = ODD
    network = str(tmp_path / "m.caffemodel")
    caffemodel.write(network, net)
    for program, words in (
        (legacy_style.main, ["inspect", network]),
        (neural_style.main, ["--list-layers", "-model_file", network]),
    ):
        assert program(words) == 0
        out = capsys.readouterr().out
        assert SHOWN in out and not set(ODD[:-1]) & set(out) - set("ab[31m\n")
