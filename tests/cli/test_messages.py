"""What errors advise is what the command that fails can be given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import video_clips
from PIL import Image

from legacy_style.cli import legacy_style, slow_neural_style
from legacy_style.engine.session import Session
from legacy_style.programs.fast_neural_style import slow, slow_options

PACKAGE = Path(legacy_style.__file__).parents[1]
OPTION = re.compile(r"(?<![\w-])-(?!inf\b)[a-z][a-z_]{2,}")

ONE_PROGRAM_S = {
    "engine/network.py": "-multigpu_strategy",  # no other program splits its network
    "torch7/cmdline.py": "-help",  # what every Torch7 program answers
}


def sentences(path: Path) -> Iterator[str]:
    """The strings of a module, without its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for each in ast.walk(tree):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docs:
            yield each.value


@pytest.mark.parametrize("room", ["engine", "formats", "torch7"])
def test_what_all_programs_share_names_the_options_of_none(room: str) -> None:
    found = {}
    for path in (PACKAGE / room).rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        named = {option for text in sentences(path) for option in OPTION.findall(text)}
        if named - {ONE_PROGRAM_S.get(name)}:
            found[name] = named
    assert found == {}


def test_a_video_that_diverges_names_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("frames").mkdir()
    Image.fromarray(video_clips.frame(1)).save("frames/1.png")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("style.png")
    evaluate = Session.evaluate

    def no_number(session: Session, x: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
        values, grad = evaluate(session, x)
        return dict.fromkeys(values, float("nan")), grad

    monkeypatch.setattr(Session, "evaluate", no_number)
    words = [
        "frames",
        "out/",
        "--style",
        "style.png",
        "--size",
        "32",
        "--model",
        video_clips.MODEL,
        "--gpu",
        "-1",
    ]
    assert legacy_style.main(["video", *words]) == 1
    told = capsys.readouterr().err
    assert "not finite any more at iteration 1" in told
    assert OPTION.findall(told) == []
    known = {option for each in legacy_style._GROUP.get_command(None, "video").params for option in each.opts}
    advised = set(re.findall(r"--[a-z-]+", told))
    assert advised and advised <= known


def test_the_slow_way_without_memory_names_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_memory(*_: object, **__: object) -> str:
        raise MemoryError

    monkeypatch.setattr(slow, "run", no_memory)
    assert slow_neural_style.main([]) == 1
    known = {option.key for option in slow_options.ORIGINAL}
    advised = set(OPTION.findall(capsys.readouterr().err))
    assert advised and advised <= known
