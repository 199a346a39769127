"""legacy-style: neural_style.lua of 2015, ported faithfully to PyTorch."""

__version__ = "0.1.0"
