"""What is done with model files (download, inspect, convert, normalise, compare), plots and sheets, and benchmarks.

Functions for the tools and for `legacy-style`; they may import everything below cli/ and compare/.
"""
