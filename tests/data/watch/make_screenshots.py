"""Writes docs/studio.jpg and docs/watch.jpg: the studio and the page of a run, while they paint.

Run from the checkout, where Chromium is: python tests/data/watch/make_screenshots.py [SIZE [STEPS]]
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import chromium
from PIL import Image

CHECKOUT = Path(__file__).parents[3]

chromium._PATIENCE = 900.0  # a painting takes minutes on a busy machine

STUDIO = """
import sys
from legacy_style.watch import studio
studio._SIZES[int(sys.argv[1])] = "Small"
studio._STEPS[int(sys.argv[2])] = "Sketch"
from legacy_style.cli.legacy_style import main
main(["studio", "--no-browser"])
"""
ORDER = """{{
const choose = (name, value) => {{
  const field = document.querySelector(`select[name=${{name}}]`);
  field.querySelector(`option[value="${{value}}"]`).selected = true;
}};
choose("size", {size});
choose("steps", {steps});
document.querySelector("input[name={kind}][value='{value}']").click();
document.querySelector("button.main").click();
}}"""


def main(size: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder, chromium.browser() as browser:
        with started(folder, "-c", STUDIO, str(size), str(steps)) as studio:
            browser.visit(address(studio.stdout), width=1400, height=960)
            browser.wait_for("run.state === 'waiting'")
            browser.evaluate(ORDER.format(size=size, steps=steps, kind="style", value=4))
            browser.evaluate(ORDER.format(size=size, steps=steps, kind="style", value=5))
            browser.wait_for("document.querySelectorAll('#jobs a').length > 0")
            browser.wait_for(f"run.points.length > {0.8 * steps} && !after.hidden")
            browser.evaluate("setSplit(34)")
            save(browser, "studio.jpg")
        words = (
            "-content_image examples/coffee.jpg -style_image examples/mosaic.jpg -init image -gpu -1 --watch"
        )
        more = [
            "-output_image",
            f"{folder}/out.png",
            "-image_size",
            str(size),
            "-num_iterations",
            str(2 * steps),
        ]
        with started(str(CHECKOUT), "-m", "legacy_style", *words.split(), *more) as run:
            browser.visit(address(run.stderr), width=1200, height=800, dark=True)
            browser.wait_for(f"run.points.length > {steps} && !after.hidden")
            browser.evaluate("setSplit(40)")
            save(browser, "watch.jpg")


@contextlib.contextmanager
def started(folder: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs for as long as the block, and is killed then."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def address(stream: io.TextIOBase) -> str:
    return next(found[0] for line in stream if (found := re.search(r"http\S+", line)))


def save(browser: chromium.Browser, name: str) -> None:
    browser.wait_for("new Promise(done => setTimeout(() => done(true), 1500))")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.screenshot(Path(file.name))
        with Image.open(file.name) as image:
            image.convert("RGB").save(CHECKOUT / "docs" / name, quality=82, optimize=True)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "256", "40"][:2]))
