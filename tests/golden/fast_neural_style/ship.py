"""Copy from ../shared what is shipped of the recordings: python tests/golden/fast_neural_style/ship.py

Runs that end before an image is opened; and, of one trace, feature maps behind the strides, which show no photograph
any more.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RECORDED = HERE.parents[2].parent / "shared" / "golden" / "fast-neural-style"

RUNS = """
    bad_number bare both_empty dashdash dir_missing dir_no_out help no_model out_empty unknown_opt
"""

FIRST, LAST = 10, 18  # of the layers of m_in_rs_s33, by Torch7's numbers


def main() -> None:
    cases = json.loads((RECORDED / "INDEX.json").read_text())["cases"]
    kept = {f"runs/{name}": cases[f"runs/{name}"] for name in RUNS.split()}
    (HERE / "INDEX.json").write_text(json.dumps({"cases": kept}, indent=1) + "\n")
    for key in kept:
        (HERE / key).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RECORDED / key / "stdout.txt", HERE / key / "stdout.txt")
    with np.load(RECORDED / "traces/m_in_rs_s33/arrays.npz") as archive:
        paths = {key[5:]: key for key in archive.files if key.startswith("L")}
        middle = {str(number): archive[paths[str(number)]] for number in range(FIRST, LAST + 1)}
    np.savez_compressed(HERE / "in_rs_middle.npz", **middle)


if __name__ == "__main__":
    main()
