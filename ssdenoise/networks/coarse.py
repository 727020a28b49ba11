"""A convolution after upsampling, computed at the coarse resolution.

A row of three fine voxels lies in two coarse ones, of which nearest-neighbour upsampling repeats the values, so that
the nine weights of a kernel are added up to four, another four for each of the four places of a fine voxel in its
coarse one: less than half of the multiplications, and no upsampled image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def coarse_kernel(weight: Tensor, bias: Tensor, upsampled: int, causal: int | None) -> tuple[Tensor, Tensor]:
    """Kernel and bias at the coarse resolution.

    Parameters
    ----------
    weight : Tensor of shape (O, C + C', [K,] 3, 3)
        Of the convolution of fine voxels.
    bias : Tensor of shape (O,)
    upsampled : int
        C, how many of its inputs are upsampled. The others come as quarters: by channel, then by place Y, X.
    causal : int, optional
        The axis along which the kernel looks back only.

    Returns
    -------
    tuple of Tensor
        Shapes (4 * O, C + 4 * C', [K,] 2, 2) and (4 * O,); outputs by place Y, X of the fine voxel, then by channel.
    """
    in_plane = weight.ndim - 4
    y, x = (_places(axis == causal).to(weight) for axis in (in_plane, in_plane + 1))
    repeated = torch.einsum("ptu,qsv,oc...ts->pqoc...uv", y.sum(-1), x.sum(-1), weight[:, :upsampled])
    beside = torch.einsum("ptua,qsvb,oc...ts->pqocab...uv", y, x, weight[:, upsampled:])
    return torch.cat([repeated.flatten(0, 2), beside.flatten(3, 5).flatten(0, 2)], dim=1), bias.repeat(4)


def interleaved(y: Tensor, ahead: Sequence[bool]) -> Tensor:
    """Fine voxels, (B, C, [Z,] 2 * Y, 2 * X), from a convolution by `coarse_kernel`, (B, 4 * C, [Z,] Y + 1, X + 1).

    Of axes, Y and X, that the kernel looks `ahead` along, second halves are one coarse voxel further.
    """
    fine: Tensor = _Interleave.apply(y, *ahead)  # type: ignore[no-untyped-call]
    return fine


def _places(causal: bool) -> Tensor:
    """Where the taps of three along an axis lie in coarse voxels, shape (place, tap, coarse tap, half).

    A fine voxel is the first or the second half of its coarse one (its place). A tap of its kernel falls on either half
    of that coarse voxel or of the one before; of the second half, where the kernel looks ahead, of that or the next.
    """
    found = torch.zeros(2, 3, 2, 2)
    for place in range(2):
        for tap in range(3):
            coarse, half = divmod(place + tap - (2 if causal else 1), 2)
            found[place, tap, coarse + (1 if causal else 1 - place), half] = 1
    return found


class _Interleave(torch.autograd.Function):
    """`interleaved`, with its gradient."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, ahead_y: bool, ahead_x: bool) -> Tensor:
        ctx.ahead, ctx.shape, ctx.layout = (ahead_y, ahead_x), y.shape, layout_of(y)
        size = [y.shape[0], y.shape[1] // 4, *y.shape[2:-2], 2 * (y.shape[-2] - 1), 2 * (y.shape[-1] - 1)]
        fine = torch.empty(size, dtype=y.dtype, device=y.device, memory_format=ctx.layout)
        for part, place in _Interleave.parts(y, fine, ctx.ahead):
            place.copy_(part)
        return fine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        fine = gradients[0]
        y = torch.empty(ctx.shape, dtype=fine.dtype, device=fine.device, memory_format=ctx.layout).zero_()
        for part, place in _Interleave.parts(y, fine, ctx.ahead):
            part.copy_(place)
        return y, None, None

    @staticmethod
    def parts(y: Tensor, fine: Tensor, ahead: Sequence[bool]) -> Iterator[tuple[Tensor, Tensor]]:
        rows, columns = y.shape[-2] - 1, y.shape[-1] - 1
        for number, part in enumerate(y.chunk(4, dim=1)):
            place = divmod(number, 2)
            first = [p * a for p, a in zip(place, ahead, strict=True)]
            yield (
                part[..., first[0] : first[0] + rows, first[1] : first[1] + columns],
                fine[..., place[0] :: 2, place[1] :: 2],
            )


def layout_of(x: Tensor) -> torch.memory_format:
    """Order in memory: channels last or first."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}[x.ndim]
    return last if x.is_contiguous(memory_format=last) and not x.is_contiguous() else torch.contiguous_format
