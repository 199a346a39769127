"""legacy_style.engine.machine: what is set up where something is computed, and that nothing of it outlives a call."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recorded_runs import draw_stand_in
from recordings import SHIPPED
from torch.nn import functional

from legacy_style import Options, stylize
from legacy_style.engine import machine
from legacy_style.engine.losses import ContentLoss
from legacy_style.engine.optimisers import Adam
from legacy_style.engine.session import Session

VGG = SHIPPED / "models" / "VGG_ILSVRC_19_layers.caffemodel"
CHECKOUT = Path(__file__).parents[2]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def cuda_settings():
    """Convolutions, products, and whether cuDNN times its algorithms."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        return cudnn.conv.fp32_precision, matmul.fp32_precision, cudnn.benchmark
    return cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark


FLOAT32 = ("ieee", "ieee") if hasattr(torch.backends.cuda.matmul, "fp32_precision") else (False, False)


@pytest.fixture(params=["PyTorch's own", "TF32", "float32"])
def host(request, monkeypatch):
    """A process that has settings of its own."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    if request.param != "PyTorch's own":
        matmul.allow_tf32 = cudnn.allow_tf32 = request.param == "TF32"
        cudnn.benchmark = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class Probe:
    """Something that computes, and sees what it computes with."""

    def __init__(self, autotune: bool) -> None:
        self.autotune = autotune

    @machine.in_float32
    def settings(self):
        return cuda_settings()

    @machine.in_float32
    def fail(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("autotune", [False, True])
def test_float32_on_cuda_is_float32_and_the_settings_are_put_back(autotune, host):
    """PyTorch's default for convolutions is TF32, whose mantissa has 10 bits."""
    before = cuda_settings()
    assert Probe(autotune).settings() == (*FLOAT32, autotune)
    assert cuda_settings() == before
    with pytest.raises(ZeroDivisionError):
        Probe(autotune).fail()
    assert cuda_settings() == before


@pytest.fixture
def mallopt(monkeypatch):
    """What the C library's allocator is told."""
    told = []
    monkeypatch.setattr(machine, "_mallopt", told.append)
    monkeypatch.setattr(machine, "_kept", False)
    return told


def computing(seen):
    """A loss that sees what is set while it is computed."""

    class Seeing(ContentLoss):
        def accumulate(self, x, where):
            seen.append(cuda_settings())
            super().accumulate(x, where)

    return Seeing("content", 1.0)


def test_a_session_computes_in_float32_and_leaves_the_process_as_it_found_it(host, mallopt):
    before, seen = cuda_settings(), []
    session = Session.load(str(VGG), {"relu1_1": [computing(seen)]})
    session.set_content(torch.zeros(1, 3, 16, 16))
    session.evaluate(torch.ones(1, 3, 16, 16))
    session.run(session.noise(1), Adam(2, learning_rate=1.0))
    assert seen == 3 * [(*FLOAT32, False)]
    assert cuda_settings() == before
    assert mallopt == []


@pytest.mark.parametrize("tile", [0, 16])
def test_stylize_leaves_the_process_as_it_found_it(tile, host, mallopt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_stand_in(tmp_path / "a.png", 0)
    before = cuda_settings()
    options = Options(
        content_image="a.png",
        style_image="a.png",
        model_file=str(VGG),
        gpu="-1",
        image_size=24.0,
        num_iterations=2.0,
        content_layers="relu1_1",
        style_layers="relu1_1",
        cudnn_autotune=True,
        backend="cudnn",
        tile=tile,
    )
    stylize(options, save=False)
    assert cuda_settings() == before
    assert mallopt == []


def test_commands_of_ours_keep_freed_memory_unless_tiles_need_it(mallopt):
    machine.keep_freed_memory()
    machine.spare_memory()
    assert len(mallopt) == 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or later")
def test_memory_that_is_freed_after_a_library_call_goes_back_to_the_system(tmp_path):
    program = f"""
import ctypes, torch
from legacy_style.engine.losses import ContentLoss
from legacy_style.engine.session import Session
session = Session.load({str(VGG)!r}, {{"relu1_1": [ContentLoss("content", 1.0)]}})
session.set_content(torch.zeros(1, 3, 16, 16))
session.evaluate(torch.ones(1, 3, 16, 16))
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
large = torch.zeros(2**26)
print(mallinfo().hblkhd >= 2**28)  # mapped, and so given back when it is freed
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.gpu
@needs_gpu
def test_a_convolution_and_a_product_on_a_gpu_have_the_digits_of_float32():
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1, 256, 64, 64, generator=random)
    weight = torch.randn(256, 256, 3, 3, generator=random)
    flat = x.flatten(2)[0]
    with machine.float32(autotune=False):
        ours = functional.conv2d(x.cuda(), weight.cuda(), padding=1).cpu()
        product = (flat.cuda() @ flat.cuda().T).cpu()
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    assert (ours - exact).norm() < 5e-6 * exact.norm()  # TF32 is 3e-4 off
    exact = flat.double() @ flat.double().T
    assert (product - exact).norm() < 5e-6 * exact.norm()
