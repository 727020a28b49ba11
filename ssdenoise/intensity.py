"""Intensities of a whole dataset in one pass: extrema, histogram, normalisation. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

#: Share of voxels at either end that normalisation sees only as "at least this bright": hot pixels and dust.
TAIL = 0.001

_BINS = 1 << 16


@dataclass(frozen=True)
class Normalization:
    """Affine map from a dataset's intensities to the units networks see: ``(value - offset) / scale``.

    One offset and one scale per channel: a dim channel counts as much as a bright one. Arrays are (..., C, Z, Y, X).
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, channels: Sequence[Intensities]) -> Normalization:
        """The normalisation that each channel's intensities ask for."""
        offsets, scales = zip(*(channel.mean_and_spread() for channel in channels), strict=True)
        return cls(offsets, scales)

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Intensities to normalised units, as float32."""
        return np.asarray((values.astype(np.float32) - _by_channel(self.offset)) / _by_channel(self.scale))

    def invert(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Normalised units to intensities, as float32."""
        return np.asarray(values * _by_channel(self.scale) + _by_channel(self.offset))

    def invert_std(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Standard deviations in normalised units to intensities, as float32."""
        return np.asarray(values * _by_channel(self.scale))


def _by_channel(values: Sequence[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None, None]


@dataclass(frozen=True)
class Intensities:
    """Extrema and histogram of some voxels; those of the parts add up to those of the whole, in any order.

    The bins are the 65,536 values of a float32's upper half (sign, exponent and seven bits of mantissa), which cover
    every intensity of every dtype at a relative width under 1 %; no range has to be known beforehand.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Intensities:
        """Intensities of an array of finite numbers."""
        ordered = values.astype(np.float32).ravel().view(np.uint32) >> 16
        return cls(float(values.min()), float(values.max()), np.bincount(ordered, minlength=_BINS).astype(np.int64))

    def __add__(self, other: Intensities) -> Intensities:
        return Intensities(
            min(self.minimum, other.minimum), max(self.maximum, other.maximum), self.counts + other.counts
        )

    def quantile(self, q: float) -> float:
        """Intensity below which a share `q` of the voxels lies, to the width of a bin."""
        centres, counts = self._sorted()
        return float(
            centres[np.searchsorted(np.cumsum(counts), q * counts.sum(), side="left").clip(0, len(centres) - 1)]
        )

    def mean_and_spread(self) -> tuple[float, float]:
        """Mean and standard deviation after pulling both tails in to their quantiles (see `TAIL`).

        Hot pixels would otherwise stretch the scale by their brightness; pulled in, by their number only.
        """
        centres, counts = self._sorted()
        pulled = np.clip(centres, self.quantile(TAIL), self.quantile(1 - TAIL))
        mean = np.average(pulled, weights=counts)
        std = np.sqrt(np.average((pulled - mean) ** 2, weights=counts))
        return float(mean), float(std) or 1.0

    def to_json(self) -> dict[str, Any]:
        """Only the bins that occur."""
        used = np.flatnonzero(self.counts)
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "histogram": {"bins": used.tolist(), "counts": self.counts[used].tolist()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Intensities:
        """Inverse of `to_json`."""
        counts = np.zeros(_BINS, np.int64)
        counts[value["histogram"]["bins"]] = value["histogram"]["counts"]
        return cls(value["minimum"], value["maximum"], counts)

    def _sorted(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Centres of the bins that occur, ascending, and their counts."""
        used = np.flatnonzero(self.counts).astype(np.uint32)
        # 0x8000 is the middle of what the lower half can add
        centres = ((used << 16) | 0x8000).view(np.float32).astype(np.float64)
        centres = np.clip(centres, self.minimum, self.maximum)
        order = np.argsort(centres, kind="stable")
        return centres[order], self.counts[used[order]]
