"""The blind-spot network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ssdenoise.networks.layers import Chain, Conv, Network, Pool, Shift, halo_of
from ssdenoise.networks.unet import UNet


class BlindSpot(Network):
    """Network whose output at a voxel never sees that voxel, but may see every other (Laine et al. 2019, figure 2).

    A half-plane U-Net is run on the image in four rotations, so that it looks up, left, down and right; its output is
    moved by one row, which makes the own row blind; 1x1 convolutions combine the four. In 3-D, where four in-plane
    half-spaces leave the column through the voxel unseen, a second U-Net of its own weights looks up and down along Z.
    Input channels that hold nothing of the voxel, such as the planes above and below, may be looked at in full: by one
    more U-Net, which is not blind.

    Parameters
    ----------
    ndim : {2, 3}
    inputs, outputs : int
        Channels.
    width, depth, head, up, flat
        Of the half-plane U-Nets.
    mix : sequence of int
        Channels of the 1x1 convolutions.
    beside : sequence of int
        Input channels that need not be hidden; 2-D only.
    radius : int
        Blind are all voxels of the plane up to this many away along Y and X; 0: the voxel alone.
    """

    padding = "constant"

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: int,
        *,
        width: int,
        depth: int,
        head: Sequence[int],
        mix: Sequence[int],
        up: int | None = None,
        flat: bool = False,
        beside: Sequence[int] = (),
        radius: int = 0,
    ) -> None:
        super().__init__()
        axes = [ndim - 2] if ndim == 2 else [ndim - 2, 0]  # look along Y, turned into X too; and along Z
        self.unets = nn.ModuleList(
            UNet(ndim, inputs, width=width, depth=depth, head=head, up=up, skips="pooled", causal=axis, flat=flat)
            for axis in axes
        )
        self.shifts = nn.ModuleList(Shift(axis, radius + 1 if axis == ndim - 2 else 1) for axis in axes)
        self.beside = tuple(beside)
        self.aside = (
            UNet(ndim, len(beside), width=width, depth=depth, head=head, up=up, skips="pooled") if beside else None
        )
        channels = [head[-1] * ((4 if ndim == 2 else 6) + bool(beside)), *mix]
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
        if self.aside is not None:
            self.halo = tuple(map(max, self.halo, halo_of(self.aside.reach(need), self.stride)))

    def forward(self, x: Tensor) -> Tensor:
        turned = [x.rot90(turns, (-2, -1)) for turns in range(4)]
        if self.training and x.shape[-2] == x.shape[-1]:
            # in one go: faster on small patches, but four times the memory, which large tiles cannot spare
            seen: Sequence[Tensor] = self._look(0, torch.cat(turned)).chunk(4)
        else:
            seen = [self._look(0, view) for view in turned]
        views = [view.rot90(-turns, (-2, -1)) for turns, view in enumerate(seen)]
        if len(self.unets) == 2:
            views += [self._look(1, x), self._look(1, x.flip(2)).flip(2)]
        if self.aside is not None:
            views.append(self.aside(x[:, self.beside]))
        return self.mix(torch.cat(views, dim=1))  # type: ignore[no-any-return]

    def _look(self, branch: int, x: Tensor) -> Tensor:
        return self.shifts[branch](self.unets[branch](x))  # type: ignore[no-any-return]
