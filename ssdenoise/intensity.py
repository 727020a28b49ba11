"""Intensities of a whole dataset in one pass: extrema, histogram, normalisation. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdenoise.errors import FormatError

#: Share of voxels at either end that normalisation sees only as "at least this bright": hot pixels and dust.
TAIL = 0.001

#: Short integers that are counted at once.
_AT_ONCE = 2**17

#: Bits of a float32 that tell the bin of an integer: sign, exponent and ten bits of mantissa.
_SHIFT = 13


@dataclass(frozen=True)
class Normalization:
    """Affine map from a dataset's intensities to the units networks see: ``(value - offset) / scale``.

    One offset and one scale per channel: a dim channel counts as much as a bright one. Arrays are (..., C, Z, Y, X).
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, channels: Sequence[Intensities]) -> Normalization:
        """The normalisation that each channel's intensities ask for.

        Raises
        ------
        FormatError
            If intensities differ by less than the histogram tells apart.
        """
        for channel in channels:
            channel.check_resolved()
        offsets, scales = zip(*(channel.mean_and_spread() for channel in channels), strict=True)
        return cls(offsets, scales)

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Intensities to normalised units, as float32."""
        return np.asarray((values.astype(np.float32) - _by_channel(self.offset)) / _by_channel(self.scale))


def _by_channel(values: Sequence[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None, None]


@dataclass(frozen=True)
class Intensities:
    """Extrema and histogram of some voxels; those of the parts add up to those of the whole, in any order.

    A bin is what the upper bits of a float32 share, so that no range has to be known beforehand: of integers ten bits
    of mantissa (exact up to 2047, a relative width of 0.1 % above), of floating-point numbers seven (1 %), as these use
    many more bins. A spread smaller than that share of the level is not resolved (`check_resolved`).

    Attributes
    ----------
    minimum, maximum : float
    bins : ndarray of uint32
        The bins that occur, ascending.
    counts : ndarray of int64
        Voxels in each.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    bins: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Intensities:
        """Intensities of an array of finite numbers."""
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
            return cls._of_short(values)
        bins = values.astype(np.float32).ravel().view(np.uint32) >> _SHIFT
        if values.dtype.kind == "f":
            bins = (bins & ~np.uint32(0b111)) | np.uint32(0b100)
        counts = np.bincount(bins)
        used = np.flatnonzero(counts)
        return cls(float(values.min()), float(values.max()), used.astype(np.uint32), counts[used].astype(np.int64))

    @classmethod
    def _of_short(cls, values: npt.NDArray[Any]) -> Intensities:
        """The same of integers so short that each value can be counted, five times as fast."""
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        flat = np.ascontiguousarray(values).ravel().view(unsigned)
        counts = np.zeros(2 ** (8 * unsigned.itemsize), np.int64)
        for start in range(0, flat.size, _AT_ONCE):  # what `bincount` makes of them stays in the cache
            part = np.bincount(flat[start : start + _AT_ONCE])
            counts[: len(part)] += part
        used = np.flatnonzero(counts)
        found = used.astype(unsigned).view(values.dtype)
        bins, place = np.unique(found.astype(np.float32).view(np.uint32) >> _SHIFT, return_inverse=True)
        binned = np.bincount(place, counts[used]).astype(np.int64)
        return cls(float(found.min()), float(found.max()), bins.astype(np.uint32), binned)

    def __add__(self, other: Intensities) -> Intensities:
        bins, place = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Intensities(min(self.minimum, other.minimum), max(self.maximum, other.maximum), bins, counts)

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
        mean, std = self._moments()
        return mean, std or 1.0

    def check_resolved(self) -> None:
        """Refuse intensities that spread by less than a bin, so that their histogram does not tell by how much."""
        mean, std = self._moments()
        floats = bool((self.bins & 0b111 == 0b100).all())
        # zeros alone are no high level; the centre of their bin is a little beside them
        width = 2.0 ** (np.floor(np.log2(abs(mean))) - (7 if floats else 10)) if abs(mean) > 1e-30 else 0.0
        if self.minimum < self.maximum and std < width:
            raise FormatError(
                f"intensities from {self.minimum:.8g} to {self.maximum:.8g} lie so close to {mean:.8g} that they "
                "cannot be normalised; subtract what they have in common"
            )

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "histogram": {"bins": self.bins.tolist(), "counts": self.counts.tolist()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Intensities:
        """Inverse of `to_json`."""
        histogram = value["histogram"]
        bins, counts = np.array(histogram["bins"], np.uint32), np.array(histogram["counts"], np.int64)
        return cls(value["minimum"], value["maximum"], bins, counts)

    def _moments(self) -> tuple[float, float]:
        centres, counts = self._sorted()
        pulled = np.clip(centres, self.quantile(TAIL), self.quantile(1 - TAIL))
        mean = np.average(pulled, weights=counts)
        return float(mean), float(np.sqrt(np.average((pulled - mean) ** 2, weights=counts)))

    def _sorted(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Centres of the bins, ascending, and their counts."""
        centres = ((self.bins << _SHIFT) | np.uint32(1 << (_SHIFT - 1))).view(np.float32).astype(np.float64)
        centres = np.clip(centres, self.minimum, self.maximum)
        order = np.argsort(centres, kind="stable")  # negative numbers come last and backwards
        return centres[order], self.counts[order]
