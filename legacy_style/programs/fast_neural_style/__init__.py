"""jcjohnson/fast-neural-style (2016): a network is trained once for a style, and then draws an image in one pass."""
