"""The commands of `legacy-style`, a module each; cli/legacy_style.py lists them."""
