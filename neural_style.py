"""`python neural_style.py …`, in either of the two dialects that had a script of this name."""

import sys

from legacy_style.cli import main

if __name__ == "__main__":
    sys.exit(main())
