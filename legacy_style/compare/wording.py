"""Numbers and HTML text as people read them."""

from __future__ import annotations

import html
import math


def esc(text: object) -> str:
    """Text for HTML, inside elements and inside quoted attributes."""
    return html.escape(str(text), quote=True)


def number(value: float) -> str:
    """Three or four digits: 0.0123, 12.3, 1234, 12.3 k, 4.56 M."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if size >= limit:
            scaled = value / {" G": 1e9, " M": 1e6, " k": 1e3}[unit]
            return f"{scaled:.3g}{unit}" if abs(scaled) < 999.5 else f"{scaled:.0f}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}" if size < 1000 else f"{value:.0f}"
