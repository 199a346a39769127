"""legacy_style: its public names, whatever was imported before, without PyTorch where it is not needed."""

import json
import subprocess
import sys
from pathlib import Path

import forked
import pytest

import legacy_style

CHECKOUT = Path(__file__).parents[2]

STORY = "legacy_style.programs.neural_style.story"

ORDERS = {
    "package": ["import legacy_style", "legacy_style.stylize"],
    "name": ["from legacy_style import stylize", "stylize"],
    "submodule first": [f"import {STORY}", f"{STORY}.stylize"],
    "a name of the submodule first": [
        f"from {STORY} import Result; from legacy_style import stylize",
        "stylize",
    ],
    "package, then submodule": [
        f"import legacy_style; legacy_style.stylize; import {STORY}",
        f"{STORY}.stylize",
    ],
}

# Imports the package anew for each order. Options are refused before anything is loaded, which tells that the
# function was called.
PROGRAM = """
import json, sys
for imports, call in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.partition(".")[0] == "legacy_style"]:
        del sys.modules[name]
    exec(imports)
    from legacy_style import OptionError, Options
    try:
        eval(call)(Options(style_image=""), save=False)
    except OptionError as error:
        print(error)
"""


def python(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=True).stdout


def test_stylize_is_the_function_whatever_was_imported_before():
    answer = forked.run("-c", PROGRAM, json.dumps([*ORDERS.values()]))
    assert answer.returncode == 0, answer.stderr
    said = answer.stdout.splitlines()
    assert len(said) == len(ORDERS)
    assert all("-style_image '' has an empty element" in line for line in said)


def test_options_and_errors_do_not_import_torch():
    program = "from legacy_style import Options, OptionError, LegacyStyleError, __version__\nimport sys\n"
    assert python(f"{program}print('torch' in sys.modules, 'numpy' in sys.modules)") == "False False\n"


def test_every_public_name_is_there():
    for name in legacy_style.__all__:
        assert getattr(legacy_style, name).__doc__, f"{name} has no documentation"
    assert set(legacy_style.__all__) <= set(dir(legacy_style))


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'legacy_style' has no attribute 'stylise'"):
        _ = legacy_style.stylise
