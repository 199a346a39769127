"""An image goes in, losses and a gradient come out, and an optimiser goes down them.

The engine takes plain values, never a program's options, and what it offers is what all programs share: a
network, losses on its layers, tiles, processes, checkpoints. It may import torch7/, formats/ and the modules
beside the rooms.
"""
