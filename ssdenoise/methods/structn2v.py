"""Structured Noise2Void: hide a voxel together with those that its noise is correlated with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssdenoise.methods.n2v import N2V, offsets, surroundings
from ssdenoise.noise import correlated_offsets


class StructN2V(N2V):
    """structN2V (Broaddus et al. 2020): Noise2Void for noise that is correlated between voxels.

    Notes
    -----
    Where noise is correlated, a hidden voxel's noise can be read from its neighbours, and Noise2Void learns it. So the
    neighbours under a mask around it are hidden too, each by the value of a random voxel of the patch, and the loss
    still compares the centre only [1]_. The mask should cover the noise's autocorrelation: one along a row for line
    artefacts. It is made symmetric to its centre, as autocorrelation is. Calibrated, it covers the neighbours that
    `ssdenoise.calibrate` found the noise correlated with. `radius` matters only to the mean and the median.

    Patches are augmented by half-turns only, which keep the noise's direction.

    References
    ----------
    .. [1] C. Broaddus, A. Krull, M. Weigert, U. Schmidt and G. Myers, "Removing Structured Noise with Self-Supervised
       Blind-Spot Networks", ISBI 2020, doi:10.1109/ISBI45749.2020.9098336.
    """

    half_turns_only: ClassVar[bool] = True
    independent_along: ClassVar[str] = ""

    name: Literal["structn2v"] = "structn2v"  # type: ignore[assignment]
    masked_percent: float = Field(
        1.5, gt=0, le=25, description="Share of hidden voxels in per cent, those under the mask not counted."
    )
    replacement: Literal["uniform", "mean", "median"] = Field(
        "uniform",
        description="What replaces a hidden voxel: a random voxel of the patch, or the mean or median of the "
        "neighbours that the mask leaves.",
    )
    mask: tuple[tuple[tuple[Literal[0, 1], ...], ...], ...] | Literal["calibrated"] = Field(
        "calibrated",
        description="Voxels hidden with each voxel: planes of rows of 0 and 1, odd sizes, hidden voxel in the middle; "
        "2-D training takes the middle plane. `calibrated`: the neighbours that the noise was found correlated with.",
    )

    @model_validator(mode="after")
    def _mask_is_odd(self) -> Self:
        if self.mask == "calibrated":
            return self
        sizes = {len(self.mask), *map(len, self.mask), *(len(row) for plane in self.mask for row in plane)}
        if any(size % 2 == 0 for size in sizes) or len({tuple(map(len, plane)) for plane in self.mask}) > 1:
            raise ValueError("`mask` needs planes of one size, with odd numbers of planes, rows and columns")
        if len({len(row) for row in self.mask[0]}) > 1:
            raise ValueError("`mask` has rows of different lengths")
        if self.replacement in ("mean", "median") and set(offsets(self._radii(2))) <= set(self.concealed(2)):
            raise ValueError(f"`mask` covers all neighbours up to `radius` {self.radius}; take a larger one")
        return self

    def calibrated(self, calibration: Mapping[str, Any]) -> Self:
        return self.model_copy(update={"mask": correlated(calibration)}) if self.mask == "calibrated" else self

    def hide(self, noisy: Tensor, hidden: Tensor, rng: torch.Generator) -> Tensor:
        if not (under := self.concealed(noisy.ndim - 2)):
            return super().hide(noisy, hidden, rng)
        around = surroundings(hidden, noisy.shape[2:], under).flatten(2)
        # outside the patch there is nothing to hide: hide a voxel in its place that is hidden anyway
        around = torch.where(around < 0, hidden[..., :1], around)
        drawn = torch.randint(noisy[0, 0].numel(), around.shape, generator=rng).to(noisy.device)
        values = noisy.flatten(2)
        masked = values.scatter(2, around.to(noisy.device), values.gather(2, drawn))
        return masked.scatter(2, hidden.to(noisy.device), self.replaced(noisy, hidden, rng)).view_as(noisy)

    def replaced(self, noisy: Tensor, hidden: Tensor, rng: torch.Generator) -> Tensor:
        if self.replacement in ("mean", "median"):
            return super().replaced(noisy, hidden, rng)
        # a neighbour may lie under the mask and tell what the voxel's noise is; a voxel from anywhere hardly ever does
        drawn = torch.randint(noisy[0, 0].numel(), hidden.shape, generator=rng).to(noisy.device)
        return noisy.flatten(2).gather(2, drawn)

    def concealed(self, ndim: int) -> list[tuple[int, ...]]:
        """Offsets under the mask or opposite to it, the centre left out."""
        assert self.mask != "calibrated", "the train stage fills the mask in"
        mask = np.array(self.mask, bool)
        mask = mask if ndim == 3 else mask[len(mask) // 2]
        mask = mask | np.flip(mask)
        middle = [n // 2 for n in mask.shape]
        found = (tuple(int(i - m) for i, m in zip(index, middle, strict=True)) for index in np.argwhere(mask))
        return [offset for offset in found if any(offset)]


def correlated(calibration: Mapping[str, Any]) -> tuple[tuple[tuple[Literal[0, 1], ...], ...], ...]:
    """Mask over the neighbours that the noise of any channel is correlated with."""
    offsets = [(0, 0, 0), *correlated_offsets(calibration)]
    reach = np.abs(offsets).max(axis=0)
    mask = np.zeros(2 * reach + 1, int)
    for offset in offsets:
        mask[tuple(reach + offset)] = mask[tuple(reach - offset)] = 1
    return tuple(tuple(tuple(row) for row in plane) for plane in mask.tolist())
