"""Copy from ../shared what is shipped of the recorded videos: python tests/golden/artistic-videos/ship.py

Flows are analytic, and masks were computed from them alone, so some are shipped. Frames and results come from
pictures that are not ours: runs are shipped without images, and are replayed with stand-ins for the frames.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RECORDED = HERE.parents[2].parent / "shared" / "golden" / "artistic-videos"

RUNS = """
    p_adam p_help p_init_bad p_save v_adam v_args v_args3 v_args_missing v_cont_first v_crit_foo v_folder_noslash v_help
    v_iters_zero v_iters_zero_adam v_noflow v_nostyle v_opt_bad v_rel12 v_saveinit v_start2 v_temporal0 v_toomany
    v_unknown
"""

PAIRS = ((1, 2), (1, 3), (2, 3))

WEIGHTS = {"v_rel12": ("flowweights_02_1", "flowweights_02_2")}


def main() -> None:
    index = json.loads((RECORDED / "INDEX.json").read_text())
    names = [f"runs/{name}" for name in RUNS.split()]
    kept = {
        name: {key: index["cases"][name][key] for key in ("argv", "exit", "files_written", "shows")}
        for name in names
    }
    (HERE / "INDEX.json").write_text(json.dumps({"about": index["about"], "cases": kept}, indent=1) + "\n")
    for name in names:
        _copy(Path(name, "stdout.txt"))
    for one, other in PAIRS:
        _copy(Path("flow", f"forward_{one}_{other}.flo"))
        _copy(Path("flow", f"backward_{other}_{one}.flo"))
        _copy(Path("flow", f"reliable_{one}_{other}.pgm"))
        _copy(Path("flow", f"reliable_{other}_{one}.pgm"))
    for path in RECORDED.glob("inputs/args*.txt"):
        _copy(path.relative_to(RECORDED))
    for name, keys in WEIGHTS.items():
        with np.load(RECORDED / "traces" / name / "arrays.npz") as arrays:
            (HERE / "traces" / name).mkdir(parents=True, exist_ok=True)
            np.savez_compressed(HERE / "traces" / name / "arrays.npz", **{key: arrays[key] for key in keys})


def _copy(path: Path) -> None:
    (HERE / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RECORDED / path, HERE / path)


if __name__ == "__main__":
    main()
