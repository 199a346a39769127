"""The tables of one row in the report: every measure, and every layer's losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from legacy_style.compare.results import Measure, Objective, Outcome
from legacy_style.compare.wording import esc, number


def measure_table(outcome: Outcome) -> str:
    """Every measure with its limit and result, folded away; '' where nothing was measured."""
    measures = outcome.verdict.measures
    if not measures:
        return ""
    rows = (
        f"<tr><td>{esc(measure.text)}</td>{_number(measure.value)}{_number(measure.limit)}{_result(measure)}</tr>"
        for measure in measures
    )
    decided = sum(measure.passed is not None for measure in measures)
    return _table(
        f"{len(measures)} measures, of which {decided} decided",
        "Measures, and what was allowed",
        ("What was found", "Value", "Limit", "Result"),
        rows,
    )


def layer_table(outcome: Outcome) -> str:
    """Losses and Gram distances by layer, ours and the expected picture's, folded away; '' without any."""
    shown = outcome.shown
    if shown is None or shown.objective is None:
        return ""
    rows = (
        f'<tr><th scope="row">{esc(name)}</th>{"".join(map(_number, values))}</tr>'
        for name, values in _layer_lines(outcome, shown.objective, outcome.expected_objective)
    )
    return _table(
        "Losses and Gram distances, layer by layer",
        "Weighted losses, and relative distances of the Gram matrices from their targets",
        ("Layer", "Loss", "Expected", "Gram distance", "Expected"),
        rows,
    )


def _layer_lines(
    outcome: Outcome, ours: Objective, expected: Objective | None
) -> Iterator[tuple[str, tuple[float | None, ...]]]:
    theirs = expected or Objective((), (), 0.0, 0.0, ())
    for index, layer in enumerate(outcome.content_layers):
        yield f"content {layer}", (ours.content[index], _at(theirs.content, index), None, None)
    for index, layer in enumerate(outcome.style_layers):
        losses = (ours.style[index], _at(theirs.style, index))
        yield f"style {layer}", (*losses, ours.gram[index], _at(theirs.gram, index))
    yield "total", (ours.total, theirs.total if expected else None, None, None)
    yield "TV, not in the total", (ours.tv, theirs.tv if expected else None, None, None)


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if values else None


def _table(summary: str, caption: str, heads: Sequence[str], rows: Iterator[str]) -> str:
    head = "".join(
        f'<th scope="col"{"" if name in ("What was found", "Layer", "Result") else _NUMERIC}>{name}</th>'
        for name in heads
    )
    return (
        f'<details class="more"><summary>{esc(summary)}</summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(caption)}"><table>'
        f"<caption>{esc(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


_NUMERIC = ' class="num"'


def _number(value: float | None) -> str:
    return f"<td{_NUMERIC}>{'' if value is None else number(value)}</td>"


def _result(measure: Measure) -> str:
    if measure.passed is None:
        return '<td class="info">– informs</td>'
    return '<td class="yes">✓ passed</td>' if measure.passed else '<td class="no">✗ failed</td>'
