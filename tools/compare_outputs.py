"""The old name of `legacy-style compare`, for a checkout that is not installed."""

import sys

import _checkout  # noqa: F401 (for its effect on the path)

from legacy_style.cli.legacy_style import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
