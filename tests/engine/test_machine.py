"""legacy_style.engine.machine: what is set up on a device before anything is computed there."""

import pytest
import torch
from torch.nn import functional

from legacy_style.engine import machine

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def cuda_settings():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in backends], torch.backends.cudnn.benchmark
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[0]
    torch.backends.cudnn.benchmark = before[1]


@pytest.mark.parametrize("autotune", [False, True])
def test_float32_on_cuda_is_float32(autotune, cuda_settings):
    """PyTorch's default for convolutions is TF32, whose mantissa has 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    machine.set_up_cuda(autotune=autotune)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark == autotune


@pytest.mark.gpu
@needs_gpu
def test_a_convolution_and_a_product_on_a_gpu_have_the_digits_of_float32(cuda_settings):
    machine.set_up_cuda(autotune=False)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1, 256, 64, 64, generator=random)
    weight = torch.randn(256, 256, 3, 3, generator=random)
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    ours = functional.conv2d(x.cuda(), weight.cuda(), padding=1).cpu()
    assert (ours - exact).norm() < 5e-6 * exact.norm()  # TF32 is 3e-4 off
    flat = x.flatten(2)[0]
    exact = flat.double() @ flat.double().T
    assert ((flat.cuda() @ flat.cuda().T).cpu() - exact).norm() < 5e-6 * exact.norm()
