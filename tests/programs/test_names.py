"""File names, lists and numbers as the original made and printed them (components/names)."""

import json
import math

import pytest
from recordings import RECORDED, SHIPPED, needs_shared

from legacy_style.programs.neural_style.settings import build_filename
from legacy_style.torch7 import cmdline
from legacy_style.torch7.cmdline import split_list, tonumber

TABLE = json.loads((SHIPPED / "components" / "names" / "arrays.json").read_text())["info"]


def rows(kind):
    found = [(key.split("|", 1)[1], value) for key, value in TABLE.items() if key.startswith(f"{kind}|")]
    assert found, kind
    return pytest.mark.parametrize(("given", "recorded"), found)


@needs_shared
def test_the_table_is_the_recorded_one_and_all_of_it_is_used():
    recorded = json.loads((RECORDED / "components" / "names" / "arrays.json").read_text())["info"]
    assert recorded == TABLE
    assert {key.split("|")[0] for key in TABLE} == {
        *("build_filename", "paths", "split", "tonumber", "format_%f", "format_%d")
    }


@rows("build_filename")
def test_intermediate_images_are_named_as_the_original_named_them(given, recorded):
    assert build_filename(given, 100) == recorded


@rows("paths")
def test_the_parts_of_a_name_are_those_of_the_paths_package(given, recorded):
    """extname, basename and dirname, put together as build_filename does."""
    parts = dict(part.split("=") for part in recorded.split(" ", 2)[:1] + recorded.split(" ")[-1:])
    extension, folder = parts["extname"], parts["dirname"]
    name = build_filename(given, 7)
    assert name.startswith(f"{folder}/")
    assert name.endswith(f"_7.{extension}")


@rows("split")
def test_lists_are_split_as_xlua_splits_them(given, recorded):
    parts = split_list(given)
    assert f"{len(parts)}: {' '.join(f'<{part}>' for part in parts)}" == recorded


@rows("tonumber")
def test_numbers_are_read_as_luajit_reads_them(given, recorded):
    number, theirs = tonumber(given), None if recorded == "nil" else float(recorded)
    assert number == theirs or (math.isnan(number) and math.isnan(theirs))


@rows("format_%f")
def test_losses_are_printed_with_six_decimals(given, recorded):
    """The table names each number by its first 14 digits, which the recorded text completes."""
    assert float(given) == pytest.approx(float(recorded), rel=1e-13, abs=1e-6, nan_ok=True)
    number = float(recorded) if len(given) > 14 else float(given)
    assert f"{number:f}" == recorded


@rows("format_%d")
def test_the_number_of_iterations_is_printed_truncated(given, recorded):
    assert f"Iteration 1 / {cmdline.integer(float(given))}" == recorded


def test_a_number_of_iterations_that_no_integer_holds_is_printed_as_the_smallest():
    """C's conversion of what does not fit, on x86-64."""
    for number in (math.inf, -math.inf, 1e300):
        assert cmdline.integer(number) == -(2**63)
