"""Noise2Void: hide voxels and predict them from their surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssdenoise.errors import ConfigError
from ssdenoise.methods.base import Batch, TrainedMethod
from ssdenoise.networks import Network, Plain, UNet

Radius = Annotated[int, Field(ge=0)]

Replacement = Literal["uniform", "uniform_with_centre", "mean", "median"]
REPLACES = "What replaces a hidden voxel: a random neighbour, or the mean or median of them."


class N2V(TrainedMethod):
    """Noise2Void (Krull et al. 2019).

    Notes
    -----
    A few voxels of each patch are replaced by the value of a random neighbour, and the loss compares the network's
    output at those voxels with the values they had [1]_. The network cannot copy what it does not see, and noise that
    is independent from voxel to voxel cannot be told from the surroundings; what remains is the signal. Noise that is
    correlated between voxels is therefore kept.

    Hidden voxels are stratified: the patch is cut into boxes of about ``(100 / masked_percent)**(1 / ndim)`` voxels a
    side, a whole number of them along each axis, and one voxel of each box is hidden, drawn for each sample and channel
    on its own. The neighbour is drawn uniformly from the ``(2 * radius + 1)**ndim - 1`` others around that lie inside
    the patch (`uniform`). The paper's draw includes the voxel itself (`uniform_with_centre`), which then stands there
    unhidden once in ``(2 * radius + 1)**ndim`` times, so that the network keeps about as large a share of it. That
    leaves some noise, but less error where the share is under ``2 S / (S + N)``, with the squared error S of the
    prediction and the variance N of the noise. `mean` and `median` are those of all these neighbours.

    `network="paper"` is the U-Net of the authors' csbdeep: depth 2, 32 channels, batch normalisation.

    References
    ----------
    .. [1] A. Krull, T.-O. Buchholz and F. Jug, "Noise2Void - Learning Denoising from Single Noisy Images", CVPR 2019,
       arXiv:1811.10980.
    """

    independent_along: ClassVar[str] = "zyx"
    alias_free: ClassVar[bool] = False

    name: Literal["n2v"] = "n2v"
    masked_percent: float = Field(6.0, gt=0, le=25, description="Share of hidden voxels in per cent.")
    radius: Radius | tuple[Radius, Radius, Radius] = Field(
        5, description="Largest distance per axis of the neighbours that replace a voxel: one number, or Z, Y, X."
    )
    replacement: Replacement = Field("uniform", description=REPLACES)

    @model_validator(mode="after")
    def _has_neighbours(self) -> Self:
        if max(self._radii(2)) == 0:
            raise ValueError("`radius` leaves a voxel no neighbours in its plane")
        return self

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        small = self.network == "small"
        unet = UNet(
            ndim,
            inputs,
            width=24 if small else 32,
            depth=2,
            head=(24, 24) if small else (32, 32),
            skips="features",
            batch_norm=not small,
            flat=small,
            alias_free=self.alias_free,
        )
        return Plain(unet, channels)

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        noisy = batch.noisy
        hidden = stratified(noisy.shape, self.masked_percent, rng)
        masked = self.hide(noisy, hidden, rng)
        hidden = hidden.to(noisy.device)
        loss: Tensor = (net(masked).flatten(2).gather(2, hidden) - noisy.flatten(2).gather(2, hidden)).square().mean()
        return loss

    def hide(self, noisy: Tensor, hidden: Tensor, rng: torch.Generator) -> Tensor:
        """The patches with their hidden voxels (flat positions, shape (B, C, n)) replaced."""
        replaced = self.replaced(noisy, hidden, rng)
        return noisy.flatten(2).scatter(2, hidden.to(noisy.device), replaced).view_as(noisy)

    def replaced(self, noisy: Tensor, hidden: Tensor, rng: torch.Generator) -> Tensor:
        """What replaces each hidden voxel, shape (B, C, n): always values of the patches as they were."""
        spatial, radii, values = noisy.shape[2:], self._radii(noisy.ndim - 2), noisy.flatten(2)
        if self.replacement in ("mean", "median"):
            concealed = set(self.concealed(len(spatial)))
            shown = [o for o in offsets(radii) if o not in concealed]
            if not shown:
                raise ConfigError(
                    f"{self.name}: the mask covers all neighbours up to `radius` {radii}; take a larger one"
                )
            around = surroundings(hidden, spatial, shown)
            around = around.to(noisy.device)
            found = values.gather(2, around.clamp(min=0).flatten(2)).view(around.shape)
            found = found.masked_fill(around < 0, torch.nan)
            found = found.nanmean(-1) if self.replacement == "mean" else found.nanmedian(-1).values
            return torch.where(found.isnan(), values.mean(-1, keepdim=True), found)  # all of them outside the patch
        others = neighbours(hidden, spatial, radii, rng, centre=self.replacement == "uniform_with_centre")
        return values.gather(2, others.to(noisy.device))

    def concealed(self, ndim: int) -> list[tuple[int, ...]]:
        """Offsets of the neighbours that are hidden together with a voxel, and so no source of its replacement."""
        return []

    def _radii(self, ndim: int) -> tuple[int, ...]:
        return (self.radius if isinstance(self.radius, tuple) else (self.radius,) * 3)[-ndim:]


def stratified(shape: torch.Size, percent: float, rng: torch.Generator) -> Tensor:
    """Flat positions of hidden voxels, one per box, shape (B, C, n).

    The patch is cut into boxes of as many voxels as there are to one hidden, as cubic as the patch allows; boxes along
    an axis differ in length by one voxel at most.
    """
    boxes, volume, left = [0] * (len(shape) - 2), 100 / percent, len(shape) - 2
    # shortest axis first: what an axis is too short for, the others have to give
    for axis in sorted(range(left), key=lambda axis: shape[2 + axis]):
        n = shape[2 + axis]
        boxes[axis] = max(1, round(n / volume ** (1 / left)))
        volume, left = max(1.0, volume * boxes[axis] / n), left - 1
    flat = torch.zeros((*shape[:2], *(1,) * len(boxes)), dtype=torch.long)
    for axis, (n, m) in enumerate(zip(shape[2:], boxes, strict=True)):
        edges = torch.arange(m + 1) * n // m
        along = [1] * len(boxes)
        along[axis] = m
        start, length = (part.view(along) for part in (edges[:-1], edges.diff()))
        drawn = torch.rand((*shape[:2], *boxes), generator=rng, dtype=torch.float64)
        flat = flat * n + start + (drawn * length).long()
    return flat.flatten(2)


def neighbours(
    positions: Tensor, spatial: torch.Size, radii: Sequence[int], rng: torch.Generator, *, centre: bool = False
) -> Tensor:
    """For each flat position a uniformly drawn voxel at most `radii` away, inside the patch.

    The voxel itself is drawn only with `centre`.
    """
    at = torch.unravel_index(positions, spatial)
    lows = [(a - r).clamp(min=0) for a, r in zip(at, radii, strict=True)]
    sizes = [(a + r).clamp(max=n - 1) - low + 1 for a, r, n, low in zip(at, radii, spatial, lows, strict=True)]
    own, count = (
        torch.zeros_like(positions),
        torch.ones_like(positions),
    )  # the voxel's place among them, and their number
    for a, low, size in zip(at, lows, sizes, strict=True):
        own, count = own * size + a - low, count * size
    draw = torch.rand(positions.shape, generator=rng, dtype=torch.float64)
    if centre:
        draw = (draw * count).long()
    else:
        draw = (draw * (count - 1)).long()
        draw = draw + (draw >= own)  # skips the voxel itself; the others stay equally likely
    found = []
    for low, size in zip(reversed(lows), reversed(sizes), strict=True):
        found.append(low + draw % size)
        draw = draw // size
    return _flat(found[::-1], spatial)


def offsets(radii: Sequence[int]) -> list[tuple[int, ...]]:
    """Offsets of all neighbours at most `radii` away, the voxel itself left out."""
    return [o for o in product(*(range(-r, r + 1) for r in radii)) if any(o)]


def surroundings(positions: Tensor, spatial: torch.Size, around: Sequence[tuple[int, ...]]) -> Tensor:
    """Flat positions of the voxels at given offsets from each position, shape (..., m); -1 outside the patch."""
    at = torch.unravel_index(positions.unsqueeze(-1), spatial)
    found = [a + torch.tensor(steps) for a, steps in zip(at, zip(*around, strict=True), strict=True)]
    inside = [(a >= 0) & (a < n) for a, n in zip(found, spatial, strict=True)]
    return _flat(found, spatial).masked_fill(~torch.stack(inside).all(0), -1)


def _flat(index: Sequence[Tensor], spatial: torch.Size) -> Tensor:
    """Flat positions from those along each axis; the inverse of `torch.unravel_index`."""
    flat = torch.zeros_like(index[0])
    for a, n in zip(index, spatial, strict=True):
        flat = flat * n + a
    return flat
