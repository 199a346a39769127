"""Torch7's serialisation (.t7, .net): `read` and `write`, with NumPy alone; no code in a file is ever run.

    checkpoint = t7.read("candy.t7")          # what becomes of what: `objects`
    checkpoint["model"].typename              # "nn.Sequential"
    t7.write("mine.t7", {"opt": {"preprocessing": "vgg"}, "model": model})

What comes in is a path or bytes and what goes out is plain Python objects; for that nothing is imported but the
errors and the atomic write. On top of it, `nn` knows Torch7's modules as named layers, `network` turns them into a
NetParameter, and `building` turns one back into modules.
"""

from legacy_style.formats.t7.objects import Function, Pairs, Storage, TorchObject, shown
from legacy_style.formats.t7.reader import looks_like, parse, read
from legacy_style.formats.t7.writer import dump, write

__all__ = [
    "Function",
    "Pairs",
    "Storage",
    "TorchObject",
    "dump",
    "looks_like",
    "parse",
    "read",
    "shown",
    "write",
]
