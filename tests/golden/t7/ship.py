"""Copy from ../shared what is shipped of fast-neural-style's .t7 files: python tests/golden/t7/ship.py

in_rs.t7 is what convert_network.lua of jcjohnson/fast-neural-style 813c834 wrote, of a thin network that its
train.lua had trained (torch7 814ea4a, nn 8726825 with real instance norm). in_rs.npz holds feature maps in the
middle of that network, before its residual blocks and after its second transposed convolution, as Torch7
computed them. The image that went in is a photograph and stays out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RECORDED = HERE.parents[2].parent / "shared" / "golden" / "fast-neural-style"

if __name__ == "__main__":
    shutil.copyfile(RECORDED / "runs" / "convert_ckpt" / "files" / "conv.t7", HERE / "in_rs.t7")
    with np.load(RECORDED / "traces" / "m_in_rs_s33" / "arrays.npz") as arrays:
        np.savez_compressed(HERE / "in_rs.npz", before=arrays["L010_10"], after=arrays["L032_16"])
