"""Write a painter's file for models/ from a checkpoint of th train.lua: weights in half precision, and what they are
for.

tools/make_painter.py CHECKPOINT.t7 models/NAME.pth
"""

from __future__ import annotations

import sys

import _checkout  # noqa: F401 (for its effect on the path)

from legacy_style.files import sha256
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import network, painter


def main(words: list[str]) -> int:
    if len(words) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    source, target = words
    painter.save(target, network.from_checkpoint(t7.read(source), source))
    print(f"{target}: SHA-256 {sha256(target)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
