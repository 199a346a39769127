"""Windows that convolutions and poolings move over an axis: what one covers, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """What one output position covers along one axis, and how many positions there are."""

    kernel: int = 1
    stride: int = 1
    pad: int = 0
    dilation: int = 1
    ceil: bool = False

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def size(self, n: int) -> int:
        """How many positions an axis of n has; 0 or less where the window does not fit.

        With `ceil`, the last window may reach over the end, but must start before the end and its padding
        (caffe/layers/pooling_layer.cpp, Reshape; nn/SpatialMaxPooling does the same). Both forgot that where nothing is
        padded and the stride is larger than the kernel: then their last window covers nothing, the maximum of which is
        the lowest number and the gradient of which goes astray. Here such a window is dropped, too.
        """
        span = n + 2 * self.pad - self.extent
        if not self.ceil:
            return span // self.stride + 1
        count = -(-span // self.stride) + 1
        return count - 1 if (count - 1) * self.stride >= n + self.pad else count
