"""The report: what it says, that it cannot be led astray, and how it looks in a real browser."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import chromium
import pytest
from compare_cases import write_picture
from markupsafe import escape

from legacy_style.compare import metrics, report, verdicts
from legacy_style.compare.manifest import Printed, Row, Tolerances
from legacy_style.compare.verdicts import MeasuredObjective, Outcome, Run, UsedNetwork, number

ABOUT = report.About(
    "What was <expected>", "sets/mine.json", "run it & see", datetime.datetime(2026, 3, 4, 5, 6)
)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&amp; {}"


def objective(scale: float) -> MeasuredObjective:
    style = tuple(scale * loss for loss in (310.0, 5200.0, 1.2e4, 880.0, 3.4))
    content = (scale * 900.0,)
    gram = tuple(scale * distance for distance in (0.1, 0.2, 0.3, 0.2, 0.5))
    return MeasuredObjective(content, style, scale * 12, sum(content) + sum(style), gram)


def losses(end: float) -> tuple[Printed, ...]:
    result = []
    for iteration in range(1, 61):
        factor = end * (1 + 4000 / iteration**2.2)
        found = objective(factor)
        result.append(Printed(iteration, found.content, found.style, found.total))
    return tuple(result)


def outcome(
    folder: Path, name: str, *seeds: int | None, expected: float | None = 1.0, **more: Any
) -> Outcome:
    """A row whose runs end at 1.02, 1.04, … times the expected picture's objective."""
    for picture in ("content", "style"):
        write_picture(folder / f"{picture}.png", 120, 90, 1)
    write_picture(folder / f"{name}-expected.png", 96, 72, 2)
    runs = []
    for index, seed in enumerate(seeds, 1):
        path = folder / f"{name}-{seed}.png"
        write_picture(path, 96, 72, 2 + index)
        pixels = metrics.compare(
            metrics.load_bytes(path), metrics.load_bytes(folder / f"{name}-expected.png")
        )
        scale = 1 + 0.02 * index
        runs.append(Run(str(path), seed, losses(scale), 3.5, objective=objective(scale), pixels=pixels))
    row = Row(
        more.pop("title", name),
        ("-content_image", "content.png"),
        expected="expected.png",
        certainty="made up",
        tolerances=more.pop("tolerances", Tolerances()),
        printed=more.pop("printed", ()),
    )
    made = Outcome(
        row,
        more.pop("command", f"python -m legacy_style -output_image {name}.png"),
        network=UsedNetwork("models/net.caffemodel", "ab" * 32, "VGG-16"),
        expected=str(folder / f"{name}-expected.png"),
        content=str(folder / "content.png"),
        styles=(str(folder / "style.png"),),
        content_layers=("relu4_2",),
        style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        runs=tuple(runs),
        expected_objective=None if expected is None else objective(expected),
        **more,
    )
    return dataclasses.replace(made, verdict=verdicts.judge(made))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """One row of every kind, and rows that lack this or that."""
    folder = tmp_path_factory.mktemp("pictures")
    same = outcome(folder, "the_same", None)
    runs = tuple(dataclasses.replace(run, picture=same.expected) for run in same.runs)
    equal = metrics.load_bytes(same.expected)
    runs = tuple(dataclasses.replace(run, pixels=metrics.compare(equal, equal)) for run in runs)
    same = dataclasses.replace(same, runs=runs)
    same = dataclasses.replace(same, verdict=verdicts.judge(same))
    found = [
        same,
        outcome(folder, "as_good", 1, 2, 3),
        outcome(folder, "worse", None, expected=0.5),
        outcome(folder, "elsewhere", 1, caveats=("another network: made with VGG-19, ours with VGG-16",)),
        outcome(
            folder, "a_rather_long_name_without_any_place_to_break_it_" * 2, None, printed=losses(1.0)[::6]
        ),
        outcome(folder, "not_run", caveats=("the expected picture is missing",)),
        outcome(folder, "hostile", None, title="hostile", caveats=(HOSTILE,), command=HOSTILE, error=HOSTILE),
    ]
    assert {each.verdict.kind for each in found} == {"identical", "equivalent", "different", "not comparable"}
    return found


@pytest.fixture(scope="module")
def page(outcomes: list[Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write(path, outcomes, ABOUT)
    return path


class Elements(HTMLParser):
    """Every element with its attributes, and that each is closed."""

    VOID = ("meta", "link", "img", "br", "line", "circle", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.found if name == tag)


def test_the_page_is_well_formed_and_stands_alone(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    assert not list(elements.named("script"))
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href") and value:
                assert value.startswith(("data:", "#")), (tag, value[:80])
    ids = [attributes["id"] for _tag, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in elements.named("a"):
        assert str(link["href"]).removeprefix("#") in ids


def test_everything_has_a_name_for_those_who_cannot_see_it(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    pictures = list(elements.named("img"))
    assert pictures and all(picture.get("alt") for picture in pictures)
    plots = [plot for plot in elements.named("svg") if plot.get("aria-hidden") != "true"]
    assert plots and all(plot.get("role") == "img" for plot in plots)
    assert sum(1 for _ in elements.named("title")) == len(plots) + 1
    assert all(head.get("scope") in ("col", "row") for head in elements.named("th"))
    assert sum(1 for _ in elements.named("caption")) == sum(1 for _ in elements.named("table"))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_text_from_files_is_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<img src=x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "What was &lt;expected&gt;" in text and "run it &amp; see" in text


def test_verdicts_and_their_reasons_are_said(page: Path, outcomes: list[Outcome]) -> None:
    text = page.read_text(encoding="utf-8")
    for each in outcomes:
        for reason in each.verdict.because:
            assert escape(reason) in text
    assert "<title>1 different, 3 not comparable, 2 equivalent, 1 identical" in text


def test_the_json_beside_it_holds_everything(page: Path, outcomes: list[Outcome]) -> None:
    data = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert data["counts"] == {"different": 1, "not comparable": 3, "equivalent": 2, "identical": 1}
    assert [row["row"]["name"] for row in data["rows"]] == [each.row.name for each in outcomes]
    assert data["rows"][0]["runs"][0]["pixels"]["psnr"] == "inf"
    assert data["rows"][1]["expected_objective"]["style"][1] == 5200


def test_junit_says_the_same(outcomes: list[Outcome], tmp_path: Path) -> None:
    report.write_junit(tmp_path / "junit.xml", outcomes, "a suite")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("7", "1", "3")
    cases = {case.get("name"): case for case in suite}
    failure = cases["worse"].find("failure")
    assert failure is not None and "total loss" in str(failure.get("message"))
    skipped = cases["hostile"].find("skipped")
    assert skipped is not None and HOSTILE in str(skipped.get("message"))
    assert cases["the_same"].find("failure") is None and cases["the_same"].find("skipped") is None


def test_junit_leaves_out_what_xml_cannot_hold(outcomes: list[Outcome], tmp_path: Path) -> None:
    odd = dataclasses.replace(outcomes[0], command="a\x00b\x1bc\ud800d")
    report.write_junit(tmp_path / "junit.xml", [odd], "a\x07suite")
    output = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testcase/system-out")
    assert output is not None and str(output.text).endswith("a�b�c�d")


def test_pictures_that_are_gone_are_said_to_be(outcomes: list[Outcome]) -> None:
    lost = dataclasses.replace(outcomes[1], expected="gone.png", content="gone.png")
    assert report.html([lost], ABOUT).count("not at hand") == 2


@pytest.mark.parametrize("end", [0.0, 1e-12, 1.0])
def test_flat_and_vanishing_losses_are_drawn(outcomes: list[Outcome], end: float) -> None:
    flat = tuple(Printed(i, (end,), (0.0,) * 5, end) for i in range(1, 4))
    zero = MeasuredObjective((end,), (0.0,) * 5, 0.0, end, (0.0,) * 5)
    run = dataclasses.replace(outcomes[0].runs[0], losses=flat, objective=zero)
    Elements(report.html([dataclasses.replace(outcomes[0], runs=(run,), expected_objective=zero)], ABOUT))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123456, "0.001235"),
        (0.000123456, "1.23e-4"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (12345.6, "12.3 k"),
        (999999.0, "1000 k"),
        (12404635.15, "12.4 M"),
        (2.5e10, "25 G"),
        (float("inf"), "∞"),
        (float("nan"), "not a number"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


COLORS = re.compile(r"--([a-z-]+): (#[0-9a-f]{6});")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: str) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5 to 1."""
    css = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    light, dark = css.split("@media (prefers-color-scheme: dark)", 1)
    colors = dict(COLORS.findall(light)) | (dict(COLORS.findall(dark)) if scheme == "dark" else {})
    texts = ["ink", "soft", "link", "equivalent", "different"]
    pairs = [(text, behind) for text in texts for behind in ("wall", "card", "mat", "code")]
    pairs += [("on-badge", kind) for kind in ("identical", "equivalent", "different", "not-comparable")]
    for text, behind in pairs:
        assert contrast(colors[text], colors[behind]) >= 4.5, (text, behind)
    for line in ("ours", "expected"):  # 1.4.11: 3 to 1 for graphics
        assert contrast(colors[line], colors["card"]) >= 3, line


def contrast(a: str, b: str) -> float:
    def luminance(color: str) -> float:
        levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


# ---- in a real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    if chromium.find() is None:
        pytest.skip(f"NO BROWSER: the report was not looked at; install one of {', '.join(chromium.NAMES)}")
    with chromium.browser() as started:
        yield started


VIEWS = {"desktop": (1280, False), "phone": (390, False), "narrow": (320, False), "dark": (1280, True)}


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_renders(browser: chromium.Browser, page: Path, view: str, tmp_path: Path) -> None:
    width, dark = VIEWS[view]
    browser.open(page, width=width, dark=dark)
    assert browser.complaints() == []
    broken = "[...document.images].filter(each => !each.complete || !each.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    assert browser.evaluate("document.images.length") > 20
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    for folded in ("", "document.querySelectorAll('details').forEach(each => each.open = true)"):
        browser.evaluate(folded or "0")
        wide = (
            "[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll, svg, .skip'))"
            f".filter(each => each.getBoundingClientRect().right > {width} + 1)"
            ".map(each => each.outerHTML.slice(0, 80))"
        )
        assert browser.evaluate(wide) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.screenshot(tmp_path / f"{view}.png")
    background = metrics.load_bytes(tmp_path / f"{view}.png")[2, 2]
    assert (background.max() < 64) == dark


def test_a_click_enlarges_a_picture_without_a_script(browser: chromium.Browser, page: Path) -> None:
    browser.open(page, width=1280)
    width = "document.querySelector('.main-pictures img').getBoundingClientRect().width"
    before = browser.evaluate(width)
    spot = browser.evaluate(
        "(() => { const each = document.querySelector('.main-pictures img');"
        " each.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const box = each.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)
    assert browser.evaluate(width) > 2 * before


def test_a_screen_reader_finds_names_for_everything(browser: chromium.Browser, page: Path) -> None:
    browser.open(page, width=1280)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node.get("ignored")]
    by_role: dict[str, list[str]] = {}
    for node in seen:
        name = node.get("name", {}).get("value", "")
        by_role.setdefault(node["role"]["value"], []).append(name)
    for role in ("image", "link", "heading", "article", "region"):
        assert by_role.get(role), role
        assert all(by_role[role]), role
    assert "At a glance" in by_role["heading"]
    assert sum(name.startswith("Total loss over iterations") for name in by_role["image"]) >= 4
    assert len(by_role["article"]) == 7
