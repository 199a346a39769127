"""What is done with model files: download, inspect, convert, normalise, compare.

Functions for the tools and for `legacy-style`; they may import everything below cli/ and compare/.
"""
