"""Copy from ../shared what is shipped of the recorded runs and traces: python tests/golden/torch7/ship.py

Runs are shipped without images (the recordings are of photographs and paintings that are not ours) and are
replayed with stand-ins for them. Traces that start from noise are shipped, cut to their first evaluations.
Model files are thin networks of random weights, written by Google's protobuf.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RECORDED = HERE.parents[2].parent / "shared" / "golden" / "torch7"

MODELS = ("VGG_ILSVRC_19_layers", "caffenet_thin_k2", "nin_thin", "oddconv")

RUNS = """
    adam_init_image base cli_bad_init cli_blend_count cli_gpu0 cli_no_style cli_num_inf init_image_missing
    layers_conv layers_dup layers_missing_random layers_multi layers_no_content m_caffenet_k2 m_missing m_nin
    m_oddconv niter0_adam niter1 out_dots out_err_missingdir out_err_noext print7 save_iter1 styles2_w13
    styles_double_comma tv0 wc_lbfgs
    cli_bad_number cli_double_dash cli_eq_form cli_flag_with_value cli_help cli_help_dd cli_help_h
    cli_missing_value cli_number_comma cli_orig_colors_text cli_unknown_opt
"""

TRACES = {
    "m_caffenet_k2": ("x_eval001", "grad_eval001"),
    "odd2": ("x_eval001", "grad_eval001", "x_eval002", "grad_eval002"),
    "wc_lbfgs": (
        *("x_eval001", "grad_eval001", "x_eval002", "grad_eval002", "x_eval003", "grad_eval003"),
        *(f"module_{module}_gradInput_eval001" for module in range(14, 38)),
    ),
    "wc_norm": ("x_eval001", "grad_eval001"),
}


def main() -> None:
    index = json.loads((RECORDED / "INDEX.json").read_text())
    runs = [each for each in index["runs"] if each["name"] in RUNS.split()]
    traces = [each for each in index["traces"] if each["name"] in TRACES]
    assert len(runs) == len(RUNS.split())
    assert len(traces) == len(TRACES)
    kept = {
        "about": index["about"],
        "runs": [
            {key: each[key] for key in ("name", "argv", "exit_code", "files", "shows")} for each in runs
        ],
        "traces": [{key: each[key] for key in ("name", "args", "shows")} for each in traces],
    }
    (HERE / "INDEX.json").write_text(json.dumps(kept, indent=1) + "\n")
    for each in runs:
        _copy(Path("runs", each["name"], "stdout.txt"))
    for name, keys in TRACES.items():
        _copy(Path("traces", name, "losses.txt"))
        with np.load(RECORDED / "traces" / name / "arrays.npz") as arrays:
            targets = [key for key in arrays if "_target_" in key or key.startswith("style_G_eval001")]
            np.savez_compressed(
                HERE / "traces" / name / "arrays.npz", **{key: arrays[key] for key in (*keys, *targets)}
            )
    for name in MODELS:
        _copy(Path("models", f"{name}.caffemodel"))


def _copy(path: Path) -> None:
    (HERE / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RECORDED / path, HERE / path)


if __name__ == "__main__":
    main()
