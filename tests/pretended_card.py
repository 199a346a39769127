"""A GPU that is pretended: PyTorch's fake tensors, which have a device, a shape and a layout, but no content.

`pretend(monkeypatch)` lets the engine see such GPUs, of Hopper's kind, on any machine, and gives a `Watch`; within it
tensors are fake, and each operation on them is noted: what it launches, reads and writes, what memory is taken, and
what a CUDA graph that is being recorded would not take. Fake tensors refuse to mix devices; a number that is read is
0.5. Of Triton's kernels, all but the launch is run. How fast, and how exact, a GPU is, nothing of this can tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import sys
import types
import warnings
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch._dynamo  # looks for Triton, before there is a stand-in for it
from tf32_units import allowed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from legacy_style.engine import network
from legacy_style.engine.kernels import fused

CARD, OTHER = torch.device("cuda", 0), torch.device("cuda", 1)

_aten = torch.ops.aten

# What allocates, or tells of a tensor, and launches nothing.
_SILENT = ("empty", "detach", "alias", "device", "is_pinned", "lift")

# In inference mode, operations come as they are called.
_COPIES = ("aten.copy_.", "aten._to_copy.", "aten.to.", "aten.cpu.")

# What a graph cannot have: results whose size the GPU tells, and random numbers of a generator that it does not know.
_FORBIDDEN = (
    *("nonzero", "masked_select", "unique", "repeat_interleave.Tensor", "bincount", "pin_memory"),
    *("rand", "normal", "bernoulli", "uniform", "dropout", "multinomial"),
)


@contextlib.contextmanager
def _guard():
    """What makes a GPU the current one, which methods of tensors there want, is lent by the device "meta": it does
    nothing. PyTorch without CUDA has none, and that with CUDA wants a driver.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    except (OSError, ValueError):
        if sys.platform == "linux":
            raise
        pytest.skip("PyTorch's libraries have these names on Linux alone")
    cuda, meta = 1, 14  # c10::DeviceType
    before, guards[cuda] = guards[cuda], guards[meta]
    try:
        yield
    finally:
        guards[cuda] = before


class Graph:
    """A stand-in for a CUDA graph, whose memory is its own as long as it lives; `watch` counts it."""

    def __init__(self, watch):
        self.watch, self.live, self.peak, self.held = watch, 0, 0, [0]
        weakref.finalize(self, Graph._end, watch, self.held)

    def replay(self):
        self.watch.replays += 1

    def grow(self, size):
        self.live += size
        more = max(self.live - self.peak, 0)
        self.peak += more
        self.held[0] += more
        self.watch.take(more)

    def shrink(self, size):
        self.live -= size

    @staticmethod
    def _end(watch, held):
        watch.live -= held[0]


class Watch(TorchDispatchMode):
    """Fake tensors, and notes on what is done with them.

    `launches`, `moved`: operations on GPUs, and the bytes that they read and write; `names` counts them. `live`,
    `peak`: bytes of the tensors on the GPU, and of the graphs. `copies`: (from, to, bytes) between devices. `reads`:
    numbers that were read. `graphs`: (launches, bytes moved) of each that was recorded, `replays`: of all. `wrong`:
    what was done meanwhile and must not be. `products`: (name, shapes, type, whether TF32 was allowed).
    """

    def __init__(self):
        super().__init__()
        self.launches = self.moved = self.live = self.peak = 0
        self.reads = self.replays = 0
        self.names, self.copies, self.wrong, self.products, self.graphs = Counter(), [], [], [], []
        self.current, self.recording, self.warns = CARD, None, False
        self._known = weakref.WeakSet()

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_guard())
        self._stack.enter_context(FakeTensorMode())
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(function)
        given = _tensors((args, kwargs))
        if function == _aten._local_scalar_dense.default:
            self.reads += 1
            self._is_wrong(given[0].is_cuda, "a number was read")
            if given[0].is_cuda and self.warns:
                warnings.warn("called a synchronizing CUDA operation", stacklevel=2)
            return 0.5
        result = _convolved(function, given, args)
        if result is None:
            result = function(*args, **kwargs)
        made = _tensors(result)
        for each in made:
            self._own(each)
        if name.startswith(_COPIES):
            self._copied(given[-1], made[0])
        masks = any(each.dtype == torch.bool for each in given[1:]) and name.startswith("aten.index")
        self._is_wrong(masks or any(word in name for word in _FORBIDDEN), name)
        is_view = any(each.alias_info and not each.alias_info.is_write for each in function._schema.returns)
        on_card = any(each.is_cuda and each.numel() for each in made)
        if on_card and not is_view and not any(word in name for word in _SILENT):
            read = [each for each in given if each is not kwargs.get("out")]
            if name.startswith(("aten.copy_.", "aten.fill_.", "aten.zero_.", "aten.index_copy_.")):
                read = given[1:]
            if name.startswith("aten.index_copy_."):
                made = given[-1:]
            has_bias = function == _aten.convolution.default and args[2] is not None
            self.launched(name, [*{id(each): each for each in read}.values(), *made], 1 + has_bias)
            if any(word in name for word in ("mm", "convolution")):
                what = "conv" if "convolution" in name else "matmul"
                shapes = [tuple(each.shape) for each in given]
                self.products.append((name, shapes, given[-1].dtype, allowed(what)))
        return result

    def launched(self, name, tensors, count=1):
        self.launches += count
        self.names[name] += count
        self.moved += sum(each.numel() * each.itemsize for each in tensors)

    def _is_wrong(self, fault, what):
        if self.recording and fault:
            self.wrong.append(what)

    def _copied(self, source, target):
        if source.device != target.device and source.numel():
            self.copies.append((source.device, target.device, source.numel() * source.itemsize))
            self._is_wrong(True, f"a copy from {source.device} to {target.device}")

    def _own(self, tensor):
        """Note the memory of `tensor`, if that is new, and on the first GPU."""
        if tensor.device != CARD:
            return
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = -(-storage.nbytes() // 512) * 512  # as PyTorch hands it out
        if self.recording:
            self.recording.grow(size)
            weakref.finalize(storage, self.recording.shrink, size)
        else:
            self.take(size)
            weakref.finalize(storage, self._give_back, size)

    def take(self, size):
        self.live += size
        self.peak = max(self.peak, self.live)

    def _give_back(self, size):
        self.live -= size


def _tensors(tree):
    return [each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]


def _convolved(function, given, args):
    """What a convolution, or its way back, gives on a GPU; None for others. PyTorch asks a driver for the layout."""
    if function == _aten.convolution.default and given[0].is_cuda and not args[6]:
        (_, _, *sizes), (channels, _, *kernel) = given[0].shape, given[1].shape
        size = [
            (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for n, k, stride, pad, dilation in zip(sizes, kernel, *args[3:6], strict=True)
        ]
        result = given[0].new_empty((1, channels, *size))
    elif function == _aten.convolution_backward.default and given[0].is_cuda:
        result = torch.empty_like(given[1])
    else:
        return None
    # As cuDNN does: channels-last where one of the factors is.
    if any(each.is_contiguous(memory_format=torch.channels_last) for each in given[:3]):
        result = torch.empty_like(result, memory_format=torch.channels_last)
    return result if function == _aten.convolution.default else (result, None, None)


class _Kernel:
    """A stand-in for a kernel of Triton: notes a launch, and that its tensors and its grid are as it wants them."""

    def __init__(self, function, watch):
        self.name, self.watch = f"triton{function.__name__}", watch

    def __getitem__(self, grid):
        return lambda *args, **more: self._launch(grid, args, more)

    def _launch(self, grid, args, more):
        tensors = _tensors(args)
        assert {each.device for each in tensors} == {self.watch.current}, "launched on another GPU"
        for each in tensors:
            assert each.is_contiguous() or each.is_contiguous(memory_format=torch.channels_last)
        *_, pixels, channels = (each for each in args if isinstance(each, int))
        assert grid == (-(-pixels // more["ROWS"]), -(-channels // more["COLUMNS"])) and math.prod(grid) > 0
        written = tensors[:1] if self.name == "triton_add_bias" else []
        self.watch.launched(self.name, [*{id(each): each for each in tensors}.values(), *written])


class _Event:
    def record(self, stream=None):
        pass

    def synchronize(self):
        pass


def pretend(monkeypatch, *, triton=True):
    """Let PyTorch tell of such GPUs, with or without Triton; returns the Watch to enter."""
    watch = Watch()

    @contextlib.contextmanager
    def record(graph, stream=None, capture_error_mode="global"):
        assert capture_error_mode == "thread_local", "other threads may use the GPU"
        watch.recording, launches, moved = graph, watch.launches, watch.moved
        try:
            yield
        finally:
            watch.recording = None
        watch.graphs.append((watch.launches - launches, watch.moved - moved))

    @contextlib.contextmanager
    def current(device):
        before, watch.current = watch.current, torch.device(device)
        try:
            yield
        finally:
            watch.current = before

    for name, stand_in in {
        "get_device_capability": lambda device=None: (9, 0),
        "current_device": lambda: watch.current.index,
        "device": current,
        "current_stream": lambda device=None: None,
        "set_stream": lambda stream: None,
        "Stream": lambda device=None: None,
        "Event": _Event,
        "CUDAGraph": lambda: Graph(watch),
        "graph": record,
        "empty_cache": lambda: None,
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: setattr(watch, "warns", mode == "warn"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    kernels = _tritons(monkeypatch, watch)
    monkeypatch.setattr(fused, "works", lambda device: triton and device.type == "cuda")
    monkeypatch.setattr(fused, "_kernels", lambda: kernels)
    return watch


def _tritons(monkeypatch, watch):
    """The module of Triton's kernels, without Triton."""
    language = types.ModuleType("triton.language")
    stand_in = types.ModuleType("triton")
    vars(language)["constexpr"] = int
    vars(stand_in).update(
        language=language,
        jit=lambda function: _Kernel(function, watch),
        cdiv=lambda a, b: -(-a // b),
        TritonError=type("TritonError", (Exception,), {}),
    )
    spec = importlib.util.find_spec("legacy_style.engine.kernels.tritons")
    assert spec is not None and spec.loader is not None
    tritons = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "triton", stand_in)
        patch.setitem(sys.modules, "triton.language", language)
        spec.loader.exec_module(tritons)
    return tritons


def place(net, devices=(CARD,), splits=None):
    """Put a network on GPUs, its weights without content; within a Watch."""
    for layer in net.layers:
        for name in ("weight", "bias"):
            if isinstance(getattr(layer, name, None), torch.Tensor):
                setattr(layer, name, torch.empty(getattr(layer, name).shape))
    network.place(net, list(devices), splits)
