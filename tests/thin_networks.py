"""The networks of the recordings that are shipped, built with losses, and smooth images to run through them.

Smooth, and of different contrast: where the Gram matrices of two images are nearly the same, as those of two noises
are, a style loss is a difference that cancels, and has none of float32's digits to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from recordings import SHIPPED

from legacy_style.engine import loadcaffe, network
from legacy_style.engine.network import Network
from legacy_style.engine.session import Session
from legacy_style.formats import model_files
from legacy_style.formats.caffe.netparam import NetParameter
from legacy_style.programs.neural_style.building import build_network
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.settings import read

FILES = {
    "vgg19": "VGG_ILSVRC_19_layers.caffemodel",
    "nin": "nin_thin.caffemodel",
    "nin_padded": "nin_thin.caffemodel",
    "caffenet": "caffenet_thin_k2.caffemodel",
    "oddconv": "oddconv.caffemodel",
}

# Losses on convolutions, on what they become after rectifying, pooling and normalisation, down to the deepest.
LAYERS = {
    "vgg19": (["relu2_2", "conv4_2"], ["relu1_1", "conv2_1", "pool2", "relu3_1", "relu4_1", "relu5_1"]),
    "nin": (["relu3", "cccp4"], ["relu0", "pool0", "relu5", "relu7", "relu10"]),
    "nin_padded": (["relu3"], ["relu0", "pool0", "relu5", "pool2", "relu7"]),
    "caffenet": (["relu3"], ["conv1", "norm1", "pool2", "relu5", "pool5"]),
    "oddconv": (["c1", "r3"], ["c1", "t2", "p3", "n4", "p5"]),
}

# Where float32 itself, in one piece, is within 1e-6 of float64. Behind oddconv's sigmoid it is not: that hardly moves,
# and the weights behind it make 80 of 1.
EXACT_IN_FLOAT32 = {**LAYERS, "oddconv": (["c1", "r3"], ["c1", "t2", "p3"])}

# -pooling avg refuses padded max pooling.
POOLINGS = [(name, pooling) for name in FILES for pooling in ("max", "avg")]
POOLINGS = [each for each in POOLINGS if each not in (("nin_padded", "avg"), ("oddconv", "avg"))]


def path(name: str) -> str:
    return str(SHIPPED / "models" / FILES[name])


def load(name: str) -> NetParameter:
    net = model_files.load(path(name))
    if name == "nin_padded":
        # As the recorded nin_thin_padded has it.
        net.layer("pool2").params["pooling_param"].values["pad"] = 1
    return net


def build(
    net: NetParameter,
    content: Sequence[str],
    style: Sequence[str],
    *,
    dtype: torch.dtype = torch.float32,
    pooling: str = "max",
    normalize: bool = False,
) -> Network:
    """`net` with losses, up to the last of them, on the CPU."""
    chain, _ = loadcaffe.modules(net, [*content, *style])
    options = Options(
        content_layers=",".join(content),
        style_layers=",".join(style),
        pooling=pooling,
        normalize_gradients=normalize,
    )
    built = build_network(read(options, save=False), chain, lambda line: None)
    built.dtype = dtype
    network.place(built, [torch.device("cpu")])
    return built


def smooth(height: int, width: int, seed: int, deviation: float = 60) -> torch.Tensor:
    """Blurred noise, (1, 3, H, W) float64 in Caffe units."""
    noise = torch.randn(
        1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    blurred = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return blurred / blurred.std() * deviation


@torch.no_grad()
def evaluate(
    net: Network, content: torch.Tensor, style: torch.Tensor, image: torch.Tensor, tile: int
) -> tuple[list[float], torch.Tensor]:
    """All losses and the gradient at `image`, in tiles or (0) in one piece."""
    content, style, image = (
        x.to(torch.promote_types(net.dtype, torch.float32)) for x in (content, style, image)
    )
    session = Session(net, tile=tile)
    session.set_content(content)
    session.set_styles([style])
    values, grad = session.evaluate(image)
    return [*net.values_from("content", values), *net.values_from("style", values)], grad
