"""Manifests to compare against: the original's recordings on thin networks, and a small network made here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from recordings import RECORDED

from legacy_style.compare.manifest import File, Manifest, Printed, Row, Tolerances
from legacy_style.compare.rows import Files, RunSettings, Tick
from legacy_style.compare.runner import run_manifest
from legacy_style.compare.verdicts import Outcome
from legacy_style.files import sha256
from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import Blob, LayerParameter, Message, NetParameter

THIN = RECORDED / "models/vgg19_thin.caffemodel"


def silent(tick: Tick) -> None:
    pass


def printed_losses(stdout: str) -> tuple[Printed, ...]:
    """Every evaluation that the original printed."""
    result = []
    for block in re.split(r"^Iteration ", stdout, flags=re.MULTILINE)[1:]:
        content = re.findall(r"  Content \d+ loss: (\S+)", block)
        style = re.findall(r"  Style \d+ loss: (\S+)", block)
        (total,) = re.findall(r"  Total loss: (\S+)", block)
        result.append(
            Printed(int(block.split()[0]), tuple(map(float, content)), tuple(map(float, style)), float(total))
        )
    return tuple(result)


def recorded_row(case: str, tolerances: Tolerances) -> Row:
    """A run of the original on a thin network."""
    index = json.loads((RECORDED / "INDEX.json").read_text())
    (run,) = [each for each in index["runs"] if each["name"] == case]
    (output,) = [each for each in run["files"] if each.startswith("out.")]
    return Row(
        case,
        tuple(run["argv"][2:]),
        expected=f"runs/{case}/{output}",
        model="thin",
        printed=printed_losses((RECORDED / "runs" / case / "stdout.txt").read_text()),
        tolerances=tolerances,
    )


def recorded_manifest(rows: list[Row]) -> Manifest:
    files = {row.expected: File(sha256(RECORDED / row.expected)) for row in rows}
    return Manifest(RECORDED / "manifest.json", "recordings", tuple(rows), files, {"thin": (sha256(THIN),)})


def run_recorded(rows: list[Row], work: Path) -> dict[str, Outcome]:
    """Run rows of recordings in this process, so that patches apply; the outcomes by name."""
    made = recorded_manifest(rows)
    settings = RunSettings(models=(THIN,), work=work / "pictures")
    outcomes = run_manifest(made, Files(made, [RECORDED], work / "files"), settings, silent)
    return {outcome.row.name: outcome for outcome in outcomes}


def write_network(path: Path, seed: int = 0) -> None:
    """Two blocks of convolution, ReLU and pooling with Caffe's names, 6 and 8 channels, random weights."""
    random = np.random.default_rng(seed)
    layers, channels = [], 3
    for name, width in (("1_1", 6), ("2_1", 8)):
        weight = random.normal(0, (2 / channels / 9) ** 0.5, (width, channels, 3, 3)).astype(np.float32)
        bias = random.normal(0, 0.1, width).astype(np.float32)
        convolution = Message("ConvolutionParameter", num_output=width, kernel_size=[3], pad=[1])
        layers += [
            LayerParameter(
                f"conv{name}",
                "Convolution",
                blobs=[Blob.from_array(weight), Blob.from_array(bias)],
                params={"convolution_param": convolution},
            ),
            LayerParameter(f"relu{name}", "ReLU"),
            LayerParameter(
                f"pool{name[0]}",
                "Pooling",
                params={"pooling_param": Message("PoolingParameter", pool="MAX", kernel_size=2, stride=2)},
            ),
        ]
        channels = width
    below = "data"
    for layer in layers:
        layer.bottoms, layer.tops, below = [below], [layer.name], layer.name
    caffemodel.write(path, NetParameter("small", layers, "V2"))


def write_picture(path: Path, width: int, height: int, seed: int) -> None:
    """Blobs of colour with some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    noisy = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(path)
