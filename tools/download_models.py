"""The old name of `legacy-style models get`, and with --list and --verify of `models list` and `models verify`."""

import sys

import _checkout

from legacy_style.cli.legacy_style import main
from legacy_style.cli.tools.models import old_words

if __name__ == "__main__":
    sys.exit(main(["models", *old_words(sys.argv[1:], f"{_checkout.ROOT}/models")]))
