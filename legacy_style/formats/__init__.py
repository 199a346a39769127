"""Model files: between a file and a NetParameter, or named tensors.

Each module reads (and where it is useful writes) one format and is named after it; `model_files.load` finds
out which one a file has. It may import torch7/, errors and files; torch only where the format is PyTorch's
own.
"""
