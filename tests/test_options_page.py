"""docs/options.md is what docs/make_options.py writes now, and explains every option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from legacy_style.programs.neural_style import options

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_options_is_that_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import make_options

    written = make_options.page()
    shown = (DOCS / "options.md").read_text("utf-8")
    assert shown == written, "an option has changed: run python docs/make_options.py"


def test_the_page_has_a_line_for_every_option_of_the_first_program() -> None:
    section = (DOCS / "options.md").read_text("utf-8").split("\n## ")[1]
    keys = [option.key for option in options.ORIGINAL + options.EXTENSIONS]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == keys
    assert len(options.ORIGINAL) == 29
