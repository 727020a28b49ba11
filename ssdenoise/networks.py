"""The networks: two published U-Nets and the blind-spot network. Each derives its halo from its own layers.

How far a network sees is computed by walking its layers backwards from an output interval (`reach`), per axis, with
max-pooling replaced by its support. For an output core aligned to the stride this is exact, not a bound over all
alignments; a test compares it with autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssdenoise.grid import ceil_to

#: First and last voxel per spatial axis.
Interval = tuple[tuple[int, int], ...]


def _union(a: Interval, b: Interval) -> Interval:
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


class Conv(nn.Module):
    """Convolution of odd size k with zero padding, optional batch normalisation, and leaky ReLU.

    With `causal` an axis, the kernel looks along it at the own row and the k-1 rows before, never after: the padding
    that makes the four half-planes of Laine et al. 2019, section 3.
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
    ) -> None:
        super().__init__()
        self.causal, self.kernel, self.slope = causal, kernel, slope
        padding = [kernel // 2] * ndim
        if causal is not None:
            padding[causal] = kernel - 1
        layer = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.conv = layer(inputs, outputs, kernel, padding=tuple(padding))  # type: ignore[arg-type]
        # He et al. 2015; gain 1 where no rectifier follows
        nn.init.normal_(self.conv.weight, std=(1.0 if slope is None else 2**0.5) / (inputs * kernel**ndim) ** 0.5)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[ndim](outputs) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.causal is not None and self.kernel > 1:
            axis = self.causal + 2
            y = y.narrow(axis, 0, x.shape[axis])  # symmetric padding by k-1 made k-1 rows too many at the end
        if self.norm is not None:
            y = self.norm(y)
        return y if self.slope is None else functional.leaky_relu_(y, self.slope)

    def reach(self, need: Interval) -> Interval:
        half, full = self.kernel // 2, self.kernel - 1
        return tuple((a - full, b) if axis == self.causal else (a - half, b + half) for axis, (a, b) in enumerate(need))


class Shift(nn.Module):
    """Move an image one row along an axis; the first row becomes zero, the last is dropped."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        axis = self.axis + 2
        pad = [0, 0] * (x.ndim - 1 - axis) + [1, 0]
        return functional.pad(x.narrow(axis, 0, x.shape[axis] - 1), pad)

    def reach(self, need: Interval) -> Interval:
        return tuple((a - 1, b - 1) if axis == self.axis else (a, b) for axis, (a, b) in enumerate(need))


class Pool(nn.Module):
    """2x2 max-pooling in Y and X; never in Z, which is short and coarsely sampled in microscopy."""

    def __init__(self, ndim: int, causal: int | None = None) -> None:
        super().__init__()
        self.factor = (1, 2, 2)[-ndim:]
        # a pooling window must not reach past the own row: shift first (section 3 of the paper)
        self.shift = Shift(causal) if causal is not None and self.factor[causal] > 1 else None
        self.pool = {2: functional.max_pool2d, 3: functional.max_pool3d}[ndim]

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x if self.shift is None else self.shift(x), self.factor)

    def up(self, x: Tensor) -> Tensor:
        """Nearest-neighbour upsampling, the way back."""
        return functional.interpolate(x, scale_factor=tuple(float(f) for f in self.factor))

    def reach(self, need: Interval) -> Interval:
        fine = tuple((a * f, b * f + f - 1) for (a, b), f in zip(need, self.factor, strict=True))
        return fine if self.shift is None else self.shift.reach(fine)

    def reach_up(self, need: Interval) -> Interval:
        """Coarse voxels that an interval of fine ones is upsampled from."""
        return tuple((a // f, b // f) for (a, b), f in zip(need, self.factor, strict=True))


class Chain(nn.Sequential):
    """Layers one after the other, with a reach."""

    def reach(self, need: Interval) -> Interval:
        for layer in reversed(self):
            need = layer.reach(need)  # type: ignore[operator]
        return need


class UNet(nn.Module):
    """U-Net in one of two published forms.

    `skips="pooled"`: constant width, each skip is the input of its level and the top skip the image itself; no
    normalisation (Lehtinen et al. 2018, appendix A.1). `skips="features"`: two convolutions per level, width doubling
    with depth, each skip is the output of its level, batch normalisation (Krull et al. 2019, after csbdeep).

    Parameters
    ----------
    ndim : {2, 3}
    inputs : int
        Channels of the image.
    width : int
        Channels at full resolution.
    depth : int
        Number of poolings; the stride is 2**depth in Y and X.
    head : sequence of int
        Channels of the 3x3 convolutions at full resolution after the last skip.
    skips : {"pooled", "features"}
    causal : int or None
        Spatial axis of a half-space network: its output sees, along that axis, only the own row and those before.
    batch_norm : bool
        Normalise over the batch after each convolution.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        *,
        width: int,
        depth: int,
        head: Sequence[int],
        skips: Literal["pooled", "features"],
        causal: int | None = None,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        slope = 0.1 if skips == "pooled" else 0.0

        def chain(*channels: int) -> Chain:
            return Chain(
                *(Conv(ndim, a, b, slope=slope, causal=causal, batch_norm=batch_norm) for a, b in pairwise(channels))
            )

        self.ndim, self.depth, self.pooled = ndim, depth, skips == "pooled"
        self.pool = Pool(ndim, causal)
        if self.pooled:
            w, up = width, 2 * width
            self.encoder = nn.ModuleList([chain(inputs, w, w), *(chain(w, w) for _ in range(depth - 1))])
            self.bottom = chain(w, w)
            self.decoder = nn.ModuleList(
                [chain((up if level < depth - 1 else w) + w, up, up) for level in range(depth - 1, 0, -1)]
                + [chain((up if depth > 1 else w) + inputs, *head)]
            )
        else:
            widths = [width * 2**level for level in range(depth + 1)]
            self.encoder = nn.ModuleList(
                [
                    chain(inputs if level == 0 else widths[level - 1], widths[level], widths[level])
                    for level in range(depth)
                ]
            )
            self.bottom = chain(widths[depth - 1], widths[depth], widths[depth - 1])
            self.decoder = nn.ModuleList(
                [chain(2 * widths[level], widths[level], widths[level - 1]) for level in range(depth - 1, 0, -1)]
                + [chain(2 * widths[0], *head)]
            )
        self.outputs = head[-1]

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encode in self.encoder:
            if self.pooled:
                skips.append(x)
                x = encode(x)
            else:
                x = encode(x)
                skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for decode in self.decoder:
            x = decode(torch.cat([self.pool.up(x), skips.pop()], dim=1))
        return x

    def reach(self, need: Interval) -> Interval:
        skips = []
        for decode in reversed(self.decoder):
            need = decode.reach(need)  # type: ignore[operator]
            skips.append(need)
            need = self.pool.reach_up(need)
        need = self.bottom.reach(need)
        for encode in reversed(self.encoder):
            need, skip = self.pool.reach(need), skips.pop()
            need = _union(encode.reach(need), skip) if self.pooled else encode.reach(_union(need, skip))  # type: ignore[operator]
        return need


def halo_of(reach: Interval, stride: Sequence[int]) -> tuple[int, ...]:
    """Halo of a network whose output over one stride, ``[0, stride - 1]``, needs `reach`; multiples of the stride."""
    return tuple(ceil_to(max(-a, b - (s - 1)), s) for (a, b), s in zip(reach, stride, strict=True))


class Network(nn.Module):
    """A module with a halo and a stride, one entry per spatial axis ([Z,] Y, X), in voxels."""

    halo: tuple[int, ...]
    stride: tuple[int, ...]


class Plain(Network):
    """A U-Net and a last convolution without rectifier: sees every voxel around, the centre included."""

    def __init__(self, unet: UNet, outputs: int, last_kernel: int) -> None:
        super().__init__()
        self.unet = unet
        self.last = Conv(unet.ndim, unet.outputs, outputs, kernel=last_kernel, slope=None)
        self.stride = tuple(f**unet.depth for f in unet.pool.factor)
        core = tuple((0, s - 1) for s in self.stride)
        self.halo = halo_of(unet.reach(self.last.reach(core)), self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.unet(x))  # type: ignore[no-any-return]


class BlindSpot(Network):
    """Network whose output at a voxel never sees that voxel, but may see every other (Laine et al. 2019, figure 2).

    A half-plane U-Net is run on the image in four rotations, so that it looks up, left, down and right; its output is
    moved by one row, which makes the own row blind; 1x1 convolutions combine the four. In 3-D, where four in-plane
    half-spaces leave the column through the voxel unseen, a second U-Net of its own weights looks up and down along Z.

    Parameters
    ----------
    ndim : {2, 3}
    inputs, outputs : int
        Channels.
    width, depth, head
        Of the half-plane U-Nets.
    mix : sequence of int
        Channels of the 1x1 convolutions.
    """

    def __init__(
        self, ndim: int, inputs: int, outputs: int, *, width: int, depth: int, head: Sequence[int], mix: Sequence[int]
    ) -> None:
        super().__init__()
        axes = [ndim - 2] if ndim == 2 else [ndim - 2, 0]  # look along Y, turned into X too; and along Z
        self.unets = nn.ModuleList(
            UNet(ndim, inputs, width=width, depth=depth, head=head, skips="pooled", causal=axis) for axis in axes
        )
        self.shifts = nn.ModuleList(Shift(axis) for axis in axes)
        channels = [head[-1] * (4 if ndim == 2 else 6), *mix]
        self.mix = Chain(
            *(Conv(ndim, a, b, kernel=1) for a, b in pairwise(channels)),
            Conv(ndim, channels[-1], outputs, kernel=1, slope=None),
        )
        pool: Pool = self.unets[0].pool  # type: ignore[assignment]
        self.stride = tuple(f**depth for f in pool.factor)
        need = tuple((0, s - 1) for s in self.stride)
        self.halo = (0,) * ndim
        for unet, shift in zip(self.unets, self.shifts, strict=True):
            reach = unet.reach(shift.reach(need))  # type: ignore[operator]
            size = halo_of(reach, self.stride)
            # the rotated copies look as far to the other sides: Y, X and both their ends alike
            in_plane = max(size[-2:])
            size = (*size[:-2], in_plane, in_plane)
            self.halo = tuple(map(max, self.halo, size))

    def forward(self, x: Tensor) -> Tensor:
        views = [self._look(0, x.rot90(turns, (-2, -1))).rot90(-turns, (-2, -1)) for turns in range(4)]
        if len(self.unets) == 2:
            views += [self._look(1, x), self._look(1, x.flip(2)).flip(2)]
        return self.mix(torch.cat(views, dim=1))  # type: ignore[no-any-return]

    def _look(self, branch: int, x: Tensor) -> Tensor:
        return self.shifts[branch](self.unets[branch](x))  # type: ignore[no-any-return]
