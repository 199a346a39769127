"""How fast a VGG-19 .caffemodel hands over the layers that style transfer uses, against Google's protobuf.

    python tests/reading_speed.py [ROUNDS]

Both readers run in a process of their own each time, so that memory is measured too. The file is written for the
purpose: weights are random, shapes are VGG-19's.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, NetParameter

_VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
_VGG19_FULLY_CONNECTED = (("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 1000, 4096))

# PATH CHECKOUT -> seconds, bytes that the process grew by, bytes of the layers used.
_PROGRAM = """
import sys, time
from pathlib import Path
{imports}
def peak():
    # Not getrusage: its figure includes what the parent process held.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before, began = peak(), time.perf_counter()
used = []
{read}
print(time.perf_counter() - began, peak() - before, sum(array.nbytes for array in used))
"""
_OURS = _PROGRAM.format(
    imports="from legacy_style.formats.caffe import caffemodel",
    read="""
for layer in caffemodel.read(sys.argv[1]).layers:
    used += [blob.copy() for blob in layer.blobs]
    if layer.name == "conv5_1":
        break
""",
)
_PROTOBUF = _PROGRAM.format(
    imports='sys.path.insert(0, str(Path(sys.argv[2]) / "tests")); import caffe_messages',
    read='caffe_messages.CLASSES["NetParameter"]().ParseFromString(Path(sys.argv[1]).read_bytes())',
)


@dataclass(frozen=True)
class Reading:
    """Medians: seconds, bytes by which the process grew, bytes of the layers used (0 for protobuf, which reads all)."""

    seconds: float
    grown: float
    used: float


def measure(rounds: int) -> tuple[int, Reading, Reading, float]:
    """The file's bytes, our reading and protobuf's, and the median of how many times as fast ours is."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    rows: dict[str, list[list[float]]] = {_OURS: [], _PROTOBUF: []}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "vgg19.caffemodel")
        caffemodel.write(path, _random_vgg19(), "V1")
        for _ in range(rounds):
            for program, found in rows.items():
                command = [sys.executable, "-c", program, path, str(root)]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                found.append([float(word) for word in done.stdout.split()])
        size = Path(path).stat().st_size
    ours, protobuf = (
        Reading(*(statistics.median(column) for column in zip(*found, strict=True)))
        for found in rows.values()
    )
    times = statistics.median(b[0] / a[0] for a, b in zip(*rows.values(), strict=True))
    return size, ours, protobuf, times


def _random_vgg19() -> NetParameter:
    rng = np.random.default_rng(0)
    layers = []

    def add(name: str, kind: str, *shape: int) -> None:
        blobs = [
            Blob.from_array(rng.random(size, np.float32))
            for size in (shape, (1, 1, 1, max(shape[0], shape[2])))
        ]
        layers.append(LayerParameter(name, kind, blobs=blobs))

    inside = 3
    for block, (channels, count) in enumerate(_VGG19_BLOCKS, 1):
        for number in range(1, count + 1):
            add(f"conv{block}_{number}", "Convolution", channels, inside, 3, 3)
            inside = channels
    for name, outputs, inputs in _VGG19_FULLY_CONNECTED:
        add(name, "InnerProduct", 1, 1, outputs, inputs)
    return NetParameter("VGG_ILSVRC_19_layers", layers)


if __name__ == "__main__":
    size, ours, protobuf, times = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(f"{size / 1e6:.0f} MB, ours is {times:.1f} times as fast")
    for name, reading in (("ours", ours), ("protobuf", protobuf)):
        print(f"{name:9} {reading.seconds:.3f} s, grows by {reading.grown / 1e6:.0f} MB")
    print(f"ours grows by {ours.grown / ours.used:.2f} of the layers used")
