"""Imports point one way, and only the entry points print usage, exit, or take any error for an answer.

Read from the source with ast, so imports inside functions count too; what stands under `if __name__ ==
"__main__"` is a door, not the module, and does not.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "legacy_style"

# The rooms from the bottom up: what lies in one imports only from itself and from those before it.
ROOMS = (
    "errors",
    "files",
    "torch7",
    "formats",
    "engine",
    "programs",
    "toolkit",
    "compare",
    "watch",
    "cli",
    "paper",
)

# Outside cli/, compare/ and tools/, who may take any error of ours for an answer, and what the answer is.
ANSWERS = {
    "toolkit.convert": "what could not be tried is told beside what could",
    "engine.loadcaffe": "a layer that cannot be built has no place among those that can be used",
    "watch.server": "a browser gets an answer, whatever cannot be read or written",
    "formats.state_dict": "weights that no architecture fits are written with their own",
}


def sources() -> dict[str, ast.Module]:
    """Every module of the package by its name without `legacy_style.`, less its `__main__` block."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        tree = ast.parse(path.read_text("utf-8"))
        tree.body = [each for each in tree.body if not _is_door(each)]
        found[name] = tree
    assert len(found) > 50
    return found


def _is_door(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


SOURCES = sources()


def imported(tree: ast.Module) -> Iterator[str]:
    """The full names of all modules that a module imports, of the package and others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports are not used here"
            inside = {f"{node.module}.{each.name}" for each in node.names}
            modules = {name for name in inside if name.removeprefix("legacy_style.") in SOURCES}
            yield from modules or {node.module}


def ours(name: str) -> list[str]:
    """The modules of the package that one of them imports, but for the package itself (its version)."""
    found = (
        each.removeprefix("legacy_style.") for each in imported(SOURCES[name]) if "legacy_style." in each
    )
    return sorted(set(found))


def rank(name: str) -> int:
    return ROOMS.index(name.partition(".")[0])


def reachable(name: str) -> set[str]:
    """All that is loaded with a module of the package, by full name."""
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        now = ahead.pop()
        for each in imported(SOURCES[now]):
            if each not in seen:
                seen.add(each)
                if each.startswith("legacy_style."):
                    ahead.append(each.removeprefix("legacy_style."))
    return seen


MODULES = [name for name in SOURCES if name not in ("", "__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    above = [each for each in ours(name) if rank(each) > rank(name)]
    assert not above, f"legacy_style.{name} imports from above itself: {above}"


def test_imports_make_no_circle() -> None:
    order = graphlib.TopologicalSorter({name: ours(name) for name in MODULES}).static_order()
    assert set(MODULES) <= set(order)


def test_every_folder_has_its_rank_and_few_files_lie_loose() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(ROOMS)
    assert set(ANSWERS) <= set(MODULES)
    assert len(list(PACKAGE.glob("*.py"))) < 10


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("formats.caffe")])
def test_file_formats_need_no_torch(name: str) -> None:
    assert "torch" not in {each.partition(".")[0] for each in reachable(name)}


@pytest.mark.parametrize("name", ["programs.neural_style.options", "torch7.cmdline", "errors"])
def test_command_lines_are_read_without_torch_and_numpy(name: str) -> None:
    assert not {"torch", "numpy"} & {each.partition(".")[0] for each in reachable(name)}


def test_tools_are_not_imported_by_the_package() -> None:
    assert not [name for name in MODULES if any(each.startswith("tools") for each in imported(SOURCES[name]))]


INNER = [name for name in MODULES if name.partition(".")[0] not in ("compare", "cli", "paper")]


@pytest.mark.parametrize("name", [*INNER, *(name for name in MODULES if name.startswith("compare"))])
def test_only_entry_points_print_and_exit(name: str) -> None:
    assert not {"argparse", "click"} & set(imported(SOURCES[name]))
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("print", "exit", "quit", "sys.exit", "os._exit"), (
                node.lineno
            )
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert "SystemExit" not in ast.unparse(node.exc), node.lineno


@pytest.mark.parametrize("name", INNER)
def test_only_entry_points_take_any_error_for_an_answer(name: str) -> None:
    caught = [
        node.lineno
        for node in ast.walk(SOURCES[name])
        if isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and "LegacyStyleError" in ast.unparse(node.type)
        and not any(isinstance(each, ast.Raise) for each in ast.walk(node))
    ]
    assert bool(caught) == (name in ANSWERS), (
        f"legacy_style.{name} catches LegacyStyleError at lines {caught}"
    )


# Both are Torch7's nn.View, whose name a layer of the one is written under.
TWICE = {"View"}


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name)
    twice = {each: modules for each, modules in found.items() if len(modules) > 1}
    assert set(twice) == TWICE, twice
