"""Lets tools run from a checkout that is not installed: importing this puts the checkout on Python's path."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])

if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
