"""`legacy-style`: every command of its table, and the old names of the tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from door import legacy_style

import legacy_style as package
from legacy_style.cli import legacy_style as door
from legacy_style.formats import model_files

CHECKOUT = Path(__file__).parents[2]


def python(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_help_names_every_command_and_loads_none() -> None:
    program = "import sys; from legacy_style.cli.legacy_style import main; status = main(['--help'])"
    program += "; sys.exit(status or len({'torch', 'numpy', 'PIL', 'requests'} & {*sys.modules}))"
    answer = python("-c", program)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert re.findall(r"(?m)^  ([\w-]+)  ", answer.stdout.partition("Commands:")[2]) == list(door.COMMANDS)


@pytest.mark.parametrize("name", door.COMMANDS)
def test_every_command_of_the_table_explains_itself(name: str) -> None:
    answer = legacy_style(name, "--help")
    assert answer.exit_code == 0, answer.output
    assert f"legacy-style {name}" in answer.stdout


def test_the_version_is_the_package_s() -> None:
    assert legacy_style("--version").stdout == f"legacy-style {package.__version__}\n"


def test_a_command_that_is_none_is_refused_with_the_nearest() -> None:
    answer = legacy_style("convret", "a", "b")
    assert answer.exit_code == 2
    assert "there is no command 'convret'; try legacy-style convert" in answer.stderr
    assert "try legacy-style --help" in legacy_style("xyz").stderr


def test_what_messages_and_documents_name_are_commands() -> None:
    texts = [*(CHECKOUT / "legacy_style").rglob("*.py"), CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")]
    named: dict[str, set[str]] = {"models": set(), "compare": set(), "benchmark": set()}
    for path in texts:
        for group, word in re.findall(
            r"legacy-style (models|compare|benchmark) ([-\w]+)", path.read_text("utf-8")
        ):
            named[group].add(word)
    for group, words in named.items():
        listed = re.findall(
            r"(?m)^  ([\w-]+)  ", legacy_style(group, "--help").stdout.partition("Commands:")[2]
        )
        assert len(words) > 1
        assert words <= {*listed, "--help"}, f"legacy-style {group}: {words - {*listed}}"


def test_a_function_that_reads_its_words_itself_can_be_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def function(words: list[str]) -> int:
        seen.append(words)
        return 3

    monkeypatch.setitem(door.COMMANDS, "own", ("legacy_style:own", "a function"))
    monkeypatch.setattr(door, "own", function, raising=False)
    assert door.main(["own", "--help", "-x", "1", "two"]) == 3
    assert seen == [["--help", "-x", "1", "two"]]


def test_an_error_is_a_sentence_and_status_1(tmp_path: Path) -> None:
    answer = legacy_style("inspect", tmp_path / "nothing")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == f"legacy-style: {tmp_path / 'nothing'}: No such file or directory\n"


def test_a_reader_that_goes_away_ends_a_command_in_silence() -> None:
    command = f"{sys.executable} -m legacy_style.cli.legacy_style models list; echo $? >&2"
    answer = subprocess.run(["sh", "-c", f"({command}) | true"], capture_output=True, text=True)
    assert answer.stderr in ("141\n", "0\n")  # 0 where all was written before the reader went


OLD = {
    "benchmark": ["speed", "--help"],
    "compare_outputs": ["run", "--help"],
    "convert_model": ["--help"],
    "download_models": ["--help"],
    "inspect_model": ["--help"],
    "normalise_model": ["--help"],
    "scaling": ["table", "--help"],
}


def test_every_script_in_tools_is_an_old_name() -> None:
    names = {path.stem for path in (CHECKOUT / "tools").glob("*.py")}
    assert {name for name in names if not name.startswith(("_", "make_"))} == set(OLD)


@pytest.mark.parametrize("name", OLD)
def test_the_old_names_lead_to_the_commands(name: str, tmp_path: Path) -> None:
    answer = forked.run(str(CHECKOUT / "tools" / f"{name}.py"), *OLD[name], cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Usage: legacy-style ")


def test_the_old_options_of_inspect_model_and_download_models_still_work(tmp_path: Path) -> None:
    bundled = model_files.bundled()

    def tool(name: str, *words: object) -> subprocess.CompletedProcess[str]:
        return forked.run(str(CHECKOUT / "tools" / f"{name}.py"), *map(str, words), cwd=tmp_path)

    shutil.copy(bundled, tmp_path / "copy.pth")
    answer = tool("inspect_model", "--diff", bundled, "copy.pth", "--json")
    assert (answer.returncode, json.loads(answer.stdout)["verdict"]) == (0, "the same, bit for bit")
    answer = tool("inspect_model", bundled, "--no-statistics")
    assert answer.returncode == 0
    assert "conv5_3" in answer.stdout

    listed = tool("download_models", "--list", "vgg16_conv.pth")
    assert listed.stdout.split()[:2] == ["vgg16_conv.pth", "here"]  # in the checkout, wherever one stands
    verified = tool("download_models", "vgg16_conv.pth", "--verify")
    assert verified.returncode == 0
    assert "29437141 bytes, the published checksum; was there" in verified.stdout
    elsewhere = tool("download_models", "--to", tmp_path, "--verify", "vgg16_conv.pth")
    assert elsewhere.returncode == 1
    got = tool("download_models", "--from-file", bundled, "--to", tmp_path)
    assert (got.returncode, (tmp_path / "vgg16_conv.pth").is_file()) == (0, True)
    both = tool("download_models", "--list", "--verify")
    assert both.returncode == 2


def test_a_tool_runs_from_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-S", "-c", "import legacy_style"],
        capture_output=True,
        env={**os.environ},
        cwd=tmp_path,
    )
    assert answer.returncode != 0, "without site-packages there is no package"
    program = f"import sys; sys.path.insert(0, {str(CHECKOUT / 'tools')!r}); import _checkout, legacy_style"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, cwd=tmp_path, text=True
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_no_message_sends_to_a_script_of_the_checkout() -> None:
    sources = [*(CHECKOUT / "legacy_style").rglob("*.py"), CHECKOUT / "models/registry.json"]
    found = [path.name for path in sources if re.search(r"tools/\w+\.py", path.read_text("utf-8"))]
    assert found == ["models.py"], "but for the function that translates the old options"
