"""Writes docs/report.png: how a report looks, with every picture in it blurred beyond recognition.

Run from the checkout, where Chromium is: python tests/data/compare/make_screenshot.py REPORT.html
docs/report.png The pictures of a published gallery belong to others, so they are not shown; with --sharp
they are, for a report of one's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import chromium
from PIL import Image

WIDTH, HEIGHT = 1280, 1500
_BLUR = (
    "document.head.insertAdjacentHTML('beforeend',"
    " '<style>img { filter: blur(7px) saturate(1.2); clip-path: inset(0) }</style>')"
)


def main(report: Path, output: Path, *, sharp: bool) -> None:
    with chromium.browser() as browser:
        browser.open(report, width=WIDTH, height=HEIGHT)
        if not sharp:
            browser.evaluate(_BLUR)
        browser.screenshot(output)
    with Image.open(output) as picture:
        picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT).save(output, optimize=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--sharp"]
    main(Path(words[0]), Path(words[1]), sharp="--sharp" in sys.argv)
