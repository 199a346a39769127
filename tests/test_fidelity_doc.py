"""docs/fidelity.md: every test that it names exists, and it names every run that deviates on purpose."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from expectations import DEVIATIONS

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "fidelity.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+::test_\w+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("|---")]


def functions(path: Path) -> set[str]:
    return {
        node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("name", NAMED)
def test_the_named_test_exists(name: str) -> None:
    module, function = name.split("::")
    (path,) = TESTS.rglob(f"{module}.py")
    assert function in functions(path)


def test_every_line_names_a_test() -> None:
    lines = [line for line in ROWS if not line.rstrip().endswith("| test |")]
    assert len(lines) > 50
    assert [line for line in lines if not re.search(r"`test_\w+::test_\w+` \|$", line)] == []


def test_every_deviation_of_a_recorded_run_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[2] for row in ROWS)))
    assert set(DEVIATIONS) - told == set()
