"""The old name of `legacy-style inspect`, and with --diff A B of `legacy-style diff A B`."""

import sys

import _checkout  # noqa: F401 (for its effect on the path)

from legacy_style.cli.legacy_style import main

if __name__ == "__main__":
    command = "diff" if "--diff" in sys.argv else "inspect"
    sys.exit(main([command, *(word for word in sys.argv[1:] if word != "--diff")]))
