"""Every layer of every thin network against the recorded output of that layer, one after the other."""

import json
import re

import numpy as np
import pytest
import torch
from recordings import RECORDED, component, needs_shared

from legacy_style.engine import loadcaffe
from legacy_style.formats import model_files

pytestmark = needs_shared

FOLDERS = sorted(path.name for path in (RECORDED / "components").glob("act_*"))

# Up to 40 layers of float32 sums in another order.
TOLERANCE = 1e-5

# loadcaffe knew no TanH in V2 files, and left it out.
LEFT_OUT = {"act_oddconv_v2": "TanH"}


def chain_of(folder):
    """The layers of the network that a recording is of, without those that the original left out."""
    model = re.sub("^act_|_(odd|square)$", "", folder)
    chain, _ = loadcaffe.modules(model_files.load(RECORDED / "models" / f"{model}.caffemodel"))
    return [module for module in chain if module.kind != LEFT_OUT.get(folder)]


def info_of(folder):
    return json.loads((RECORDED / "components" / folder / "arrays.json").read_text())["info"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_layer_gives_what_was_recorded(folder):
    arrays, info = component(folder), info_of(folder)
    x = torch.from_numpy(arrays.pop("input")).unsqueeze(0)
    chain = chain_of(folder)
    assert len(arrays) > 10
    for module, (key, recorded) in zip(chain, arrays.items(), strict=False):
        number, _, name = key.partition("_")
        layer = module.build()
        layer.to(torch.device("cpu"))
        x = layer.forward(x)
        ours = x.numpy().reshape(recorded.shape)
        apart = np.linalg.norm(ours - recorded)
        assert apart <= TOLERANCE * np.linalg.norm(recorded), f"{key}: {apart / np.linalg.norm(recorded):.1e}"
        assert name == module.name
        assert info[f"{number}_type"].split(" ", 2)[1:] == [module.name, str(layer)]
    if not any(key.endswith("_ERROR") for key in info):
        assert len(chain) == len(arrays)


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.endswith("_odd")])
def test_where_the_original_could_not_go_on_neither_can_we(folder):
    """fc6 has another number of inputs; the last average pooling is larger than what is left."""
    arrays, info = component(folder), info_of(folder)
    errors = [key.removesuffix("_ERROR") for key in info if key.endswith("_ERROR")]
    for key in errors:
        module = chain_of(folder)[int(key[:2]) - 1]
        assert key[3:] == module.name
        last = torch.from_numpy(list(arrays.values())[-1]).unsqueeze(0)
        layer = module.build()
        layer.to(torch.device("cpu"))
        with pytest.raises(RuntimeError):
            layer.forward(last)
    assert errors or "vgg19" in folder
