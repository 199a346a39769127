"""Where the recordings of anishathalye/neural-style lie; `ATHALYE_SHIPPED` is described in its README.md."""

import json
from pathlib import Path
from typing import Any

from recordings import SHARED

ATHALYE_SHIPPED = Path(__file__).parent / "golden" / "athalye"
ATHALYE = SHARED / "golden" / "athalye"

NETWORK = ATHALYE_SHIPPED / "vgg19thin_old.mat"

FLAVOURS = {"anishathalye": "current", "an": "current", "seed": "2017"}


def cases(kind: str) -> list[dict[str, Any]]:
    """The recorded runs of one kind ("cli" or "trace"); none where the recordings are not there."""
    if not ATHALYE.is_dir():
        return []
    index = json.loads((ATHALYE / "INDEX.json").read_text())
    found: list[dict[str, Any]] = [case for case in index["cases"] if case["kind"] == kind]
    return found
