"""Kinds of noise that are drawn on clean volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssdenoise.grid import Region, extent
from ssdenoise.noise.models import FloatArray, ImpulseModel, NoiseModel
from ssdenoise.noise.streams import STREAM_BLOCK, Streams

Positive = Annotated[float, Field(gt=0)]


class _Noise(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        """One realization of a block (T, C, Z, Y, X) of one time point, unclipped and unrounded."""
        raise NotImplementedError

    def model(self) -> NoiseModel | ImpulseModel | None:
        """The parameters as a noise model; None where they vary."""
        raise NotImplementedError


class GaussianNoise(_Noise):
    """Additive Gaussian noise."""

    kind: Literal["gaussian"]
    sigma: Positive | tuple[Positive, Positive] = Field(
        description="Standard deviation in intensity units; or a range, from which each plane draws its own."
    )

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if isinstance(self.sigma, tuple) and self.sigma[0] > self.sigma[1]:
            raise ValueError(f"`sigma` is a range from low to high, found {list(self.sigma)}")
        return self

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        flat = streams.voxels.normal(0, 1, clean.shape)
        if not isinstance(self.sigma, tuple):
            return clean + self.sigma * flat
        sigmas = [streams.plane(z).uniform(*self.sigma) for z in range(clean.shape[2])]
        return np.asarray(clean + np.array(sigmas)[:, None, None] * flat)

    def model(self) -> NoiseModel | None:
        return None if isinstance(self.sigma, tuple) else NoiseModel(gain=0, offset=0, read_noise=self.sigma)


class PoissonGaussianNoise(_Noise):
    """Photon noise of a detector with a gain, then Gaussian read noise."""

    kind: Literal["poisson_gaussian"]
    gain: float = Field(gt=0, description="Intensity units per photon.")
    offset: float = Field(0, description="Intensity at which no photon arrives.")
    read_noise: float = Field(0, ge=0, description="Standard deviation of the read noise in intensity units.")

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        rng = streams.voxels
        photons = rng.poisson(np.maximum(clean - self.offset, 0) / self.gain)
        return np.asarray(self.offset + self.gain * photons + rng.normal(0, 1, clean.shape) * self.read_noise)

    def model(self) -> NoiseModel:
        return NoiseModel(gain=self.gain, offset=self.offset, read_noise=self.read_noise)


class ImpulseNoise(_Noise):
    """Some voxels, all their channels alike, replaced by values drawn uniformly from a range."""

    kind: Literal["impulse"]
    share: float = Field(gt=0, lt=1, description="Share of the voxels replaced.")
    low: float = Field(description="Lowest intensity drawn.")
    high: float = Field(description="Highest intensity drawn.")

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"`high` must be above `low`, found {self.high:g} and {self.low:g}")
        return self

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        replaced = streams.common.random(clean.shape) < self.share
        return np.where(replaced, streams.voxels.uniform(self.low, self.high, clean.shape), clean)

    def model(self) -> ImpulseModel:
        return ImpulseModel(self.share, self.low, self.high)


AnyNoise = GaussianNoise | PoissonGaussianNoise | ImpulseNoise
Noise = Annotated[AnyNoise, Field(discriminator="kind")]


def synthesize(
    read_clean: Callable[[Region], npt.NDArray[Any]],
    shape: Sequence[int],
    region: Region,
    noise: AnyNoise,
    key: tuple[str | int, ...],
) -> npt.NDArray[np.float32]:
    """Draw the noise of one region of a volume; the same values whatever the regions are.

    Parameters
    ----------
    read_clean : callable
        Returns the clean voxels of a region.
    shape : sequence of int
        Shape of the volume, TCZYX.
    region : Region
        The voxels wanted.
    noise : GaussianNoise, PoissonGaussianNoise or ImpulseNoise
        What to draw.
    key : tuple
        What the random streams derive from, such as (seed, dataset, noise level, realization).

    Returns
    -------
    ndarray of float32, shape of the region
    """
    out = np.empty(extent(region), np.float32)
    first = tuple(s.start // b for s, b in zip(region, STREAM_BLOCK, strict=True))
    stop = tuple(-(-s.stop // b) for s, b in zip(region, STREAM_BLOCK, strict=True))
    for index in np.ndindex(*(b - a for a, b in zip(first, stop, strict=True))):
        block = tuple(int(i + a) for i, a in zip(index, first, strict=True))
        whole = tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(block, STREAM_BLOCK, shape, strict=True))
        drawn = noise.draw(read_clean(whole).astype(np.float64), Streams(key, block))
        wanted = tuple(slice(max(w.start, r.start), min(w.stop, r.stop)) for w, r in zip(whole, region, strict=True))
        inside = tuple(slice(a.start - w.start, a.stop - w.start) for a, w in zip(wanted, whole, strict=True))
        target = tuple(slice(a.start - r.start, a.stop - r.start) for a, r in zip(wanted, region, strict=True))
        out[target] = drawn[inside]
    return out
