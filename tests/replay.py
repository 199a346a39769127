"""The full set of recordings of the original against this program, in one command.

    python tests/replay.py [names...] [--recordings FOLDER] [--slow | --some]

Says for every run and trace at which stage it differs, and how many agree. Without names, everything but
what takes minutes is replayed; --slow adds that, --some makes it a selection of half a minute. The recordings
lie in ../shared/golden/torch7, beside the checkout; where they do not, the small part of them that is shipped
is replayed, with stand-ins for the images that are not ours to ship. Exits with 1 where anything differs, 2
where a name is not known.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, tests/ is on the path, the checkout is not

import expectations
import recorded_runs
import trace_stages
import vgg16_cases
from recorded_runs import Difference
from recordings import RECORDED, SHIPPED

SLOW = {"default_1000", *(f"vgg16:{name}" for name in vgg16_cases.CASES)}
"""Recordings that take longer than all others together."""

SOME = tuple(
    """
    adam_40 adam_init_image base init_image m_caffenet_k2 m_nin m_oddconv niter1 one_pixel save_iter1 size_tiny
    tv100_adam wc_lbfgs wc_lbfgs_40 wc_odd wc_styles2 trace:adam_40 trace:base_40 trace:m_caffenet
    trace:m_caffenet_k2 trace:odd2 trace:wc_lbfgs trace:wc_lbfgs_40 trace:wc_norm
    """.split()  # noqa: SIM905
)
"""Recordings of every kind: what roundings move far, and what they do not."""


def cases(root: Path) -> dict[str, Callable[[Path], list[Difference]]]:
    """Every recording under `root` as a function of an empty folder, by name: NAME, trace:NAME, vgg16:NAME."""
    runs = {
        name: lambda folder, run=run: expectations.replay(run, folder)
        for name, run in recorded_runs.recorded(root).items()
    }
    traces = {
        f"trace:{name}": lambda folder, trace=trace: trace_stages.differences(trace, folder)
        for name, trace in trace_stages.recorded(root).items()
    }
    vgg16 = {
        f"vgg16:{name}": lambda folder, name=name: vgg16_cases.replay(name, folder)
        for name in (vgg16_cases.CASES if root == RECORDED else ())
    }
    return {**runs, **traces, **vgg16}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="replay.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--recordings",
        type=lambda name: Path(name).resolve(),
        default=RECORDED if RECORDED.is_dir() else SHIPPED,
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--slow", action="store_true")
    extent.add_argument("--some", action="store_true")
    given = parser.parse_args(words)
    known = cases(given.recordings)
    unknown = [name for name in given.names if name not in known]
    if unknown:
        print(f"no recording of {', '.join(unknown)} in {given.recordings}", file=sys.stderr)
        return 2
    wanted = SOME if given.some else [name for name in known if given.slow or name not in SLOW]
    chosen = given.names or [name for name in wanted if name in known]
    different = [name for name in chosen if not _replay(name, known[name])]
    print(
        summary(
            given.recordings,
            chosen,
            different,
            [] if given.names or given.some else [name for name in known if name not in chosen],
        )
    )
    return 1 if different else 0


def _replay(name: str, case: Callable[[Path], list[Difference]]) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = case(Path(folder))
    seconds = time.monotonic() - began
    deviation = expectations.DEVIATIONS.get(name)
    said = f"deviates on purpose: {deviation.why}" if deviation else "agrees"
    print(f"{name:32} {seconds:5.1f} s  {'DIFFERS' if found else said}", flush=True)
    for difference in found:
        print(f"    {difference}")
    return not found


def summary(root: Path, chosen: list[str], different: list[str], left_out: list[str]) -> str:
    """One line of counts."""
    traces = [name for name in chosen if name.startswith("trace:")]
    deviating = [name for name in chosen if name in expectations.DEVIATIONS]
    parts = [f"{len(chosen) - len(traces)} runs and {len(traces)} traces of {root}"]
    parts.append(
        f"{len(chosen) - len(different)} as expected, {len(deviating)} of them deviations on purpose"
    )
    parts.append(f"{len(different)} different" + (f" ({', '.join(different)})" if different else ""))
    if left_out:
        parts.append(f"{len(left_out)} left out ({', '.join(left_out)})")
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
