"""The layers that the networks are made of; each knows what part of its input an interval of its output needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdenoise.grid import ceil_to
from ssdenoise.networks.coarse import coarse_kernel, interleaved, layout_of

#: First and last voxel per spatial axis.
Interval = tuple[tuple[int, int], ...]


class Network(nn.Module):
    """A module with a halo and a stride, one entry per spatial axis ([Z,] Y, X), in voxels.

    Attributes
    ----------
    halo, stride : tuple of int
    padding : {"reflect", "constant"}
        What a volume is filled up with to a multiple of the stride: its own voxels, mirrored, or zeros where these
        copies would open a blind spot.
    """

    halo: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Literal["reflect", "constant"] = "reflect"


class Conv(nn.Module):
    """Convolution of odd size k with zero padding, optional batch normalisation, and leaky ReLU.

    With `causal` an axis, the kernel looks along it at the own row and the k-1 rows before, never after: the padding
    that makes the four half-planes of Laine et al. 2019, section 3. With `flat` it looks at one plane: size 1 in Z.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        slope: float | None = 0.1,
        causal: int | None = None,
        batch_norm: bool = False,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.causal, self.slope = causal, slope
        self.kernel = (1 if flat and ndim == 3 else kernel, kernel, kernel)[-ndim:]
        padding = [k // 2 for k in self.kernel]
        self.ahead: list[int] = []  # rows before the first, as `functional.pad` wants them: last axis first
        if causal is not None and self.kernel[causal] > 1:
            padding[causal] = 0
            self.ahead = [0, 0] * (ndim - 1 - causal) + [kernel - 1, 0]
        layer = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.conv = layer(inputs, outputs, self.kernel, padding=tuple(padding))  # type: ignore[arg-type]
        # He et al. 2015; gain 1 where no rectifier follows
        fan_in = inputs * math.prod(self.kernel)
        nn.init.normal_(self.conv.weight, std=(1.0 if slope is None else 2**0.5) / fan_in**0.5)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[ndim](outputs) if batch_norm else None
        self.fused = False
        self.upsampled = 0  # channels of the input that are upsampled, if they are and `of_upsampled` pays
        self._coarse_kernel: tuple[Tensor, Tensor] | None = None  # once the weights are fixed

    def fuse(self) -> None:
        """Take the normalisation into the weights, for inference only; on CPUs the rectifier joins the convolution."""
        if self.norm is not None:
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), None
        self.fused = torch.backends.mkldnn.is_available()
        if self.upsampled:
            with torch.no_grad():
                self._coarse_kernel = self._of_coarse()

    def forward(self, x: Tensor) -> Tensor:
        if self.fused and x.device.type == "cpu":
            return self._fused(x)
        if self.ahead:
            x = functional.pad(x, self.ahead)
        if self.slope is None and torch.is_autocast_enabled(x.device.type):
            # what comes out is a mean or a variance: the eight bits of bfloat16 are too few
            with torch.autocast(x.device.type, enabled=False):
                y: Tensor = self.conv(x.float())
        else:
            y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        return y if self.slope is None else functional.leaky_relu_(y, self.slope)

    def expects(self, upsampled: int) -> None:
        """Learn that so many channels of the input are upsampled, to take the shorter way if it is one."""
        beside = self.conv.in_channels - upsampled
        if self.norm is None and 4 * (upsampled + 4 * beside) < 6 * (upsampled + beside):
            self.upsampled = upsampled

    def of_upsampled(self, x: Tensor, beside: Tensor, up: Callable[[Tensor], Tensor]) -> Tensor:
        """What `forward` gives of an image upsampled two times in Y and X beside a finer one.

        Where that pays, computed at the coarse resolution (`networks.coarse`); the finer image, of few channels, takes
        part as four coarse ones.

        Parameters
        ----------
        x : Tensor of shape (B, C, [Z,] Y, X)
        beside : Tensor of shape (B, C', [Z,] 2 * Y, 2 * X)
        up : callable
            The upsampling.
        """
        if not (self.upsampled and x.device.type == "cpu" and (self.training or self.fused)):
            return self.forward(torch.cat([up(x), beside], dim=1))
        quarters = beside.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).movedim((-3, -1), (2, 3)).flatten(1, 3)
        x = torch.cat([x, quarters.contiguous(memory_format=layout_of(x))], dim=1)
        in_plane = x.ndim - 4
        if self.causal is not None and self.causal < in_plane:
            x = functional.pad(x, self.ahead)
        kernel, bias = self._coarse_kernel or self._of_coarse()
        padding = (*self.conv.padding[:-2], 1, 1)
        if self.fused:
            y = self._pointwise(x, kernel, bias, padding)
        else:
            y = {4: functional.conv2d, 5: functional.conv3d}[x.ndim](x, kernel, bias, padding=padding)
            y = y if self.slope is None else functional.leaky_relu_(y, self.slope)
        return interleaved(y, (self.causal != in_plane, self.causal != in_plane + 1))

    def _of_coarse(self) -> tuple[Tensor, Tensor]:
        assert self.conv.bias is not None
        return coarse_kernel(self.conv.weight, self.conv.bias, self.upsampled, self.causal)

    def _fused(self, x: Tensor) -> Tensor:
        """Convolution and rectifier in one pass over memory: what `torch.compile` makes of them, without compiling."""
        weight, bias, padding = self.conv.weight, self.conv.bias, self.conv.padding
        if self.causal == 0 and self.ahead and len(x) == 1:
            # padded at both ends by the convolution itself, and cut: a view, where padding beforehand is a copy
            y = self._pointwise(x, weight, bias, (self.kernel[0] - 1, *padding[1:]))
            return y.narrow(2, 0, x.shape[2])
        return self._pointwise(functional.pad(x, self.ahead) if self.ahead else x, weight, bias, padding)

    def _pointwise(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: object) -> Tensor:
        kind, scalars = ("none", []) if self.slope is None else ("leaky_relu", [self.slope])
        geometry = padding, self.conv.stride, self.conv.dilation, self.conv.groups
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *geometry, kind, scalars, "")
        return y

    def reach(self, need: Interval) -> Interval:
        return tuple(
            (a - k + 1, b) if axis == self.causal else (a - k // 2, b + k // 2)
            for axis, (k, (a, b)) in enumerate(zip(self.kernel, need, strict=True))
        )


class Shift(nn.Module):
    """Move an image some rows along an axis; the first rows become zero, the last are dropped."""

    def __init__(self, axis: int, rows: int = 1) -> None:
        super().__init__()
        self.axis, self.rows = axis, rows

    def forward(self, x: Tensor) -> Tensor:
        axis = self.axis + 2
        rows = min(self.rows, x.shape[axis])
        pad = [0, 0] * (x.ndim - 1 - axis) + [rows, 0]
        return functional.pad(x.narrow(axis, 0, x.shape[axis] - rows), pad)

    def reach(self, need: Interval) -> Interval:
        return tuple(
            (a - self.rows, b - self.rows) if axis == self.axis else (a, b) for axis, (a, b) in enumerate(need)
        )


def by_plane(pool: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Pool each plane of an image or a volume: torch's pooling of volumes does not repeat its bits on GPUs."""
    if x.ndim == 4:
        return pool(x)
    pooled: Tensor
    if x.is_contiguous():  # either way a view
        pooled = pool(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
    else:
        planes = x.transpose(1, 2)
        pooled = pool(planes.flatten(0, 1)).unflatten(0, planes.shape[:2]).transpose(1, 2)
    return pooled


class Pool(nn.Module):
    """2x2 max-pooling in Y and X; never in Z, which is short and coarsely sampled in microscopy."""

    def __init__(self, ndim: int, causal: int | None = None) -> None:
        super().__init__()
        self.factor = (1, 2, 2)[-ndim:]
        # a pooling window must not reach past the own row: shift first (section 3 of the paper)
        self.shift = Shift(causal) if causal is not None and self.factor[causal] > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return by_plane(self.pool, x if self.shift is None else self.shift(x))

    def pool(self, planes: Tensor) -> Tensor:
        """Pool planes, shape (B, C, Y, X)."""
        return functional.max_pool2d(planes, 2)

    def up(self, x: Tensor) -> Tensor:
        """Nearest-neighbour upsampling, the way back."""
        return functional.interpolate(x, scale_factor=tuple(float(f) for f in self.factor))

    def reach(self, need: Interval) -> Interval:
        fine = tuple((a * f, b * f + f - 1) for (a, b), f in zip(need, self.factor, strict=True))
        return fine if self.shift is None else self.shift.reach(fine)

    def reach_up(self, need: Interval) -> Interval:
        """Coarse voxels that an interval of fine ones is upsampled from."""
        return tuple((a // f, b // f) for (a, b), f in zip(need, self.factor, strict=True))


class BlurPool(Pool):
    """Max-pooling that does not alias: maximum of 2x2 at each voxel, then a [1 2 1] blur at every second (Zhang 2019).

    The blur is two means of neighbours, one at every voxel and one at every second; padded by one voxel at either end,
    which puts the pooled voxel in the middle of the two that it stands for. The zeros of the padding lose against
    the features, which the rectifier leaves non-negative, so that the border counts its own values twice.
    """

    def pool(self, planes: Tensor) -> Tensor:
        largest = functional.max_pool2d(functional.pad(planes, (1, 1, 1, 1)), 2, stride=1)
        return functional.avg_pool2d(functional.avg_pool2d(largest, 2, stride=1), 2)

    def reach(self, need: Interval) -> Interval:
        fine = super().reach(need)
        return tuple((a - f + 1, b + f - 1) for (a, b), f in zip(fine, self.factor, strict=True))


class Chain(nn.Sequential):
    """Layers one after the other, with a reach."""

    def reach(self, need: Interval) -> Interval:
        for layer in reversed(self):
            need = layer.reach(need)  # type: ignore[operator]
        return need


def halo_of(reach: Interval, stride: Sequence[int]) -> tuple[int, ...]:
    """Halo of a network whose output over one stride, ``[0, stride - 1]``, needs `reach`; multiples of the stride."""
    return tuple(ceil_to(max(-a, b - (s - 1)), s) for (a, b), s in zip(reach, stride, strict=True))
