"""Verdicts as JUnit XML, which continuous integration shows as test results.

A row that is different is a failure, one that is not comparable is skipped, with its reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from legacy_style.compare.results import Outcome
from legacy_style.files import write_whole

# What XML 1.0 cannot hold, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(path: Path, outcomes: Sequence[Outcome], suite: str) -> None:
    """Write one test suite with a test case per row."""
    kinds = [outcome.verdict.kind for outcome in outcomes]
    root = ElementTree.Element(
        "testsuite",
        name=_clean(suite),
        tests=str(len(outcomes)),
        failures=str(kinds.count("different")),
        skipped=str(kinds.count("not comparable")),
        errors="0",
    )
    for outcome in outcomes:
        seconds = sum(run.seconds for run in outcome.runs)
        case = ElementTree.SubElement(
            root, "testcase", classname="compare", name=_clean(outcome.row.name), time=f"{seconds:.3f}"
        )
        because = [_clean(each) for each in outcome.verdict.because]
        if outcome.verdict.kind == "different":
            failure = ElementTree.SubElement(case, "failure", message=because[0])
            failure.text = "\n".join(because)
        elif outcome.verdict.kind == "not comparable":
            ElementTree.SubElement(case, "skipped", message="; ".join(because))
        output = ElementTree.SubElement(case, "system-out")
        measures = [_clean(measure.text) for measure in outcome.verdict.measures]
        output.text = "\n".join([outcome.verdict.kind, *measures, _clean(outcome.command)])
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
