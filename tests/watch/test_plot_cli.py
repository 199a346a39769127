"""`--plot` of neural_style.lua's runs: drawn however a run ends, whole where it went on, and over all stages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import thin_networks
import torch
import watched_runs

from legacy_style.cli import neural_style

NETWORK = thin_networks.path("vgg19")
WORDS = (
    f"-content_image photo.png -style_image style.png -model_file {NETWORK} -gpu -1 -seed 1 -optimizer adam"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    watched_runs.draw(tmp_path)
    return tmp_path


def run(words: str, size: str = "-image_size 32") -> int:
    return neural_style.main([*WORDS.split(), *size.split(), *words.split()], "th")


def curve(path: str = "losses.svg") -> list[str]:
    """The points of the total loss."""
    pattern = r'<polyline points="([^"]+)" fill="none" stroke="#0072b2" stroke-width="2"'
    return re.findall(pattern, Path(path).read_text())[0].split()


def test_the_losses_of_a_run_are_drawn(folder: Path) -> None:
    assert run("-num_iterations 3 --plot losses.svg") == 0
    text = Path("losses.svg").read_text()
    assert text.count("<polyline") > 7
    for name in ("total", "content relu4_2", "style relu5_1"):
        assert f">{name}</text>" in text


def test_a_run_that_was_broken_off_is_drawn_and_so_is_the_whole_that_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "-num_iterations 6 --checkpoint state"
    with monkeypatch.context() as patched:
        watched_runs.interrupt_at(patched, 5)
        assert run(f"{words} --plot half.svg") == 128 + 2
    made = torch.load("state", weights_only=True)["calls"]
    assert 2 <= made <= len(curve("half.svg")) <= 5
    assert run(f"{words} --resume state --plot losses.svg") == 0
    assert len(curve()) == 6
    assert run("-num_iterations 6 --plot whole.svg") == 0
    assert Path("whole.svg").read_bytes() == Path("losses.svg").read_bytes()


def test_a_run_that_diverged_is_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-num_iterations 9 -learning_rate 1e30 --plot losses.svg") == 1
    assert "not finite any more" in capsys.readouterr().err
    assert 1 <= len(curve()) < 9


def test_stages_are_drawn_as_one_run(folder: Path) -> None:
    assert run("--stages 16:3,32:4 --plot losses.svg", size="") == 0
    assert len(curve()) == 7


def test_a_run_without_an_iteration_draws_nothing_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-num_iterations 0 --plot losses.svg") == 0
    assert "there is no loss above 0 to draw, so that losses.svg is not written" in capsys.readouterr().err
    assert not Path("losses.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--plot losses.txt", "a plot is an .svg or a .png file"),
        ("--plot nowhere/losses.svg", "the folder nowhere does not exist"),
        ("--plot x.svg --batch photos --output-dir out", "--plot x.svg draws one run"),
    ],
)
def test_a_plot_that_cannot_be_is_refused_before_the_run(
    folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
