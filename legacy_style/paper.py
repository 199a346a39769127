"""`python -m legacy_style.paper`: the experiments of the 2015 paper."""

from __future__ import annotations

import sys

from legacy_style.cli.paper import main

if __name__ == "__main__":
    sys.exit(main())
