"""Make models/vgg16_conv.pth, the network that the package carries, from Oxford's VGG-16 .caffemodel.

It holds the 13 convolutions in half precision, which is all that style transfer needs and a twentieth of the
file.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import _checkout  # noqa: F401 (for its effect on the path)
import click
import numpy as np

from legacy_style.errors import LegacyStyleError
from legacy_style.formats import state_dict
from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import NetParameter

BUNDLED = Path(__file__).parents[1] / "models" / "vgg16_conv.pth"


@click.command(help=__doc__)
@click.argument("caffemodel_path", metavar="CAFFEMODEL", type=click.Path(exists=True, dir_okay=False))
@click.option("--output", default=str(BUNDLED), show_default=True, help="The file to write.")
def main(caffemodel_path: str, output: str) -> None:
    """Writes the file, reads it back, and prints what it is."""
    try:
        click.echo(make(caffemodel_path, output))
    except (LegacyStyleError, OSError) as error:
        click.echo(f"make_bundled_model: {error}", err=True)
        sys.exit(1)


def make(source: str, output: str) -> str:
    """Writes `output` from the .caffemodel `source` and compares what it reads back; the line to print."""
    net = until_last_pooling(caffemodel.read(source))
    state_dict.write_pth(output, net, half=True)
    expected = dict(state_dict.weights(net, half=True))
    written = dict(state_dict.weights(state_dict.read_pth(output)))
    if expected.keys() != written.keys():
        raise LegacyStyleError(f"{output}: has the weights {sorted(written)}, expected {sorted(expected)}")
    for key, values in expected.items():
        if not np.array_equal(values.astype(np.float32), written[key]):
            raise LegacyStyleError(f"{output}: {key} reads back differently")
    payload = Path(output).read_bytes()
    return (
        f"{output}: {len(written)} arrays, {len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()}"
    )


def until_last_pooling(net: NetParameter) -> NetParameter:
    """`net` without whatever comes before conv1_1 or after pool5."""
    names = [layer.name for layer in net.layers]
    net.layers = net.layers[names.index("conv1_1") : names.index("pool5") + 1]
    return net


if __name__ == "__main__":
    main()
