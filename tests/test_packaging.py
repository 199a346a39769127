"""setup.cfg, constraints.txt and README.md: what they say is there, and what is there they say."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from legacy_style.programs.neural_style import options

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text("utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(CHECKOUT / "setup.cfg", "utf-8")


def lines(section: str, key: str) -> list[str]:
    return [line for line in SETUP[section][key].splitlines() if line.strip()]


def requirements(words: list[str]) -> dict[str, Requirement]:
    found = [Requirement(word) for word in words if not word.startswith("#")]
    return {each.name: each for each in found}


DEMANDED = requirements(lines("options", "install_requires") + lines("options.extras_require", "dev"))
PINNED = requirements((CHECKOUT / "constraints.txt").read_text("utf-8").splitlines())


def folder_of(package: str) -> Path:
    """Where the files of a package lie in the checkout."""
    mapped = dict(line.split(" = ") for line in lines("options", "package_dir"))
    return CHECKOUT / mapped.get(package, package.replace(".", "/"))


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in (CHECKOUT / "legacy_style").rglob("*.py")}
    beside = {CHECKOUT / "examples", CHECKOUT / "models"}
    assert folders | beside == {folder_of(name) for name in lines("options", "packages")}


def test_every_other_file_travels_with_the_package() -> None:
    data = SETUP["options.package_data"]
    for package in lines("options", "packages"):
        patterns = data.get(package, "").split(", ")
        files = [path for path in folder_of(package).iterdir() if path.is_file() and path.suffix != ".py"]
        tracked = [path.name for path in files if is_tracked(path)]
        assert [name for name in tracked if not any(Path(name).match(each) for each in patterns)] == []


def test_no_downloaded_model_travels() -> None:
    patterns = lines("options.package_data", "legacy_style.models")[-1].split(", ")
    for name in ("vgg19.pth", "VGG_ILSVRC_19_layers.caffemodel", "imagenet-vgg-verydeep-19.mat"):
        assert not any(Path(name).match(each) for each in patterns)


def is_tracked(path: Path) -> bool:
    """Whether git knows the file; a downloaded model lies in models/ as well, and does not travel."""
    command = ["git", "-C", str(CHECKOUT), "ls-files", "--error-unmatch", str(path)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("entry", lines("options.entry_points", "console_scripts"))
def test_every_command_has_its_function(entry: str) -> None:
    module, _, function = entry.partition(" = ")[2].partition(":")
    tree = ast.parse((CHECKOUT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    without_default = len(found.args.args) - len(found.args.defaults)
    assert without_default == 0, "a console script is called without arguments"


def test_the_pinned_versions_are_among_those_that_are_said_to_work() -> None:
    assert set(PINNED) == set(DEMANDED)
    for name, pinned in PINNED.items():
        (version,) = [each.version for each in pinned.specifier]
        assert DEMANDED[name].specifier.contains(version), name


def test_the_readme_leads_to_every_option() -> None:
    assert "](docs/options.md)" in README
    page = (CHECKOUT / "docs" / "options.md").read_text("utf-8")
    names = [option.key for option in options.ORIGINAL + options.EXTENSIONS]
    assert [name for name in names if not re.search(rf"`{name}`", page)] == []


def test_the_readme_links_to_what_is_there() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    targets = [target for target in linked if "://" not in target]
    assert len(targets) > 10
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in targets:
        path, _, anchor = target.partition("#")
        assert (CHECKOUT / path).exists(), target
        assert not anchor or anchor in anchors, target


def test_the_pictures_of_the_readme_are_told_to_be_made_as_it_makes_the_first() -> None:
    told = re.findall(
        r"^th neural_style.lua (.*)$", (CHECKOUT / "examples/README.md").read_text("utf-8"), re.MULTILINE
    )
    first = README.split("## Two commands")[1].split("th neural_style.lua ")[1].splitlines()[0]
    assert first == told[0]
    shown = re.findall(r'src="(?:examples|docs)/(\w+)\.\w+"', README)
    assert [shown[at : at + 3] for at in range(0, 9, 3)] == [
        re.findall(r"(?:examples/|-output_image )(\w+)\.", command) for command in told
    ]


def test_the_commands_of_the_readme_name_what_is_there() -> None:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    named = set(re.findall(r"(?:examples|tools|models|tests)/[\w/]+\.(?:jpg|png|py|sh|pth)", blocks))
    assert len(named) > 4
    assert [name for name in sorted(named) if not (CHECKOUT / name).is_file()] == []
    modules = {name.replace(".", "/") for name in re.findall(r"python -m (legacy_style[\w.]*)", blocks)}
    assert modules
    assert [
        each for each in modules if not ((CHECKOUT / each).is_dir() or (CHECKOUT / f"{each}.py").is_file())
    ] == []


def test_ci_takes_the_readme_s_command_for_the_tests() -> None:
    (command,) = re.findall(r"<!-- tests -->\n```sh\n(.*)\n```\n<!-- end -->", README)
    assert command.startswith("python3 -m venv .venv && ")
    assert "pytest" in command
    script = (CHECKOUT / ".ci" / "run").read_text("utf-8")
    assert "/^<!-- tests -->$/,/^<!-- end -->$/ { /^python3 /p }" in script
