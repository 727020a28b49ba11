"""Noise: its parameters, how to draw it, how to split photon counts. NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ssdenoise.grid import Region, extent

FloatArray = npt.NDArray[np.floating]

#: Blocks of this shape (T, C, Z, Y, X) each have a random stream of their own, so that what is drawn for a voxel
#: depends on where it lies and on nothing else: not on chunks, shards, workers or their order.
STREAM_BLOCK = (1, 1, 8, 128, 128)


@dataclass(frozen=True)
class NoiseModel:
    """Variance of the noise at a signal x: ``gain * max(x - offset, 0) + read_noise**2``, in intensity units.

    ``gain = 0`` is Gaussian noise, ``read_noise = 0`` Poisson noise.
    """

    gain: float
    offset: float
    read_noise: float

    def normalized(self, offset: float, scale: float) -> NoiseModel:
        """The same noise in the units ``(value - offset) / scale``; the form of the variance survives such a map."""
        return NoiseModel(self.gain / scale, (self.offset - offset) / scale, self.read_noise / scale)

    def variance(self, signal: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Variance at each value of `signal`."""
        x = np.asarray(signal, np.float64)
        return self.gain * np.maximum(x - self.offset, 0) + self.read_noise**2


@dataclass(frozen=True)
class ImpulseModel:
    """A `share` of the voxels replaced by values drawn uniformly from `low` to `high`; None: share unknown."""

    share: float | None
    low: float
    high: float

    def normalized(self, offset: float, scale: float) -> ImpulseModel:
        """The same noise in the units ``(value - offset) / scale``."""
        return ImpulseModel(self.share, (self.low - offset) / scale, (self.high - offset) / scale)


@dataclass(frozen=True)
class NoiseModels:
    """The same noise of one channel described by each likelihood a method can ask for."""

    gaussian: NoiseModel
    poisson: NoiseModel
    poisson_gaussian: NoiseModel
    impulse: ImpulseModel

    def normalized(self, offset: float, scale: float) -> NoiseModels:
        """All of them in the units ``(value - offset) / scale``."""
        return NoiseModels(
            self.gaussian.normalized(offset, scale),
            self.poisson.normalized(offset, scale),
            self.poisson_gaussian.normalized(offset, scale),
            self.impulse.normalized(offset, scale),
        )


def noise_models(calibration: Mapping[str, Any]) -> list[NoiseModels]:
    """The models of each channel in a calibration file."""
    return [
        NoiseModels(
            NoiseModel(**models["gaussian"]),
            NoiseModel(**models["poisson"]),
            NoiseModel(**models["poisson_gaussian"]),
            ImpulseModel(**models["impulse"]),
        )
        for models in (channel["models"] for channel in calibration["channels"])
    ]


def stream(*key: str | int) -> np.random.Generator:
    """Counter-based generator for a key: the same key gives the same numbers on every machine and in any order."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class _Noise(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def draw(self, clean: FloatArray, rng: np.random.Generator, common: np.random.Generator) -> FloatArray:
        """One realization of `clean`, unclipped and unrounded; `common` draws the same for all channels."""
        raise NotImplementedError

    def model(self) -> NoiseModel | ImpulseModel:
        """The parameters as a noise model."""
        raise NotImplementedError


class GaussianNoise(_Noise):
    """Additive Gaussian noise."""

    kind: Literal["gaussian"]
    sigma: float = Field(gt=0, description="Standard deviation in intensity units.")

    def draw(self, clean: FloatArray, rng: np.random.Generator, common: np.random.Generator) -> FloatArray:
        return clean + rng.normal(0, self.sigma, clean.shape)

    def model(self) -> NoiseModel:
        return NoiseModel(gain=0, offset=0, read_noise=self.sigma)


class PoissonGaussianNoise(_Noise):
    """Photon noise of a detector with a gain, then Gaussian read noise."""

    kind: Literal["poisson_gaussian"]
    gain: float = Field(gt=0, description="Intensity units per photon.")
    offset: float = Field(0, description="Intensity at which no photon arrives.")
    read_noise: float = Field(0, ge=0, description="Standard deviation of the read noise in intensity units.")

    def draw(self, clean: FloatArray, rng: np.random.Generator, common: np.random.Generator) -> FloatArray:
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

    def draw(self, clean: FloatArray, rng: np.random.Generator, common: np.random.Generator) -> FloatArray:
        replaced = common.random(clean.shape) < self.share
        return np.where(replaced, rng.uniform(self.low, self.high, clean.shape), clean)

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
        rng, common = stream(*key, *block), stream(*key, "all channels", block[0], *block[2:])
        drawn = noise.draw(read_clean(whole).astype(np.float64), rng, common)
        wanted = tuple(slice(max(w.start, r.start), min(w.stop, r.stop)) for w, r in zip(whole, region, strict=True))
        inside = tuple(slice(a.start - w.start, a.stop - w.start) for a, w in zip(wanted, whole, strict=True))
        target = tuple(slice(a.start - r.start, a.stop - r.start) for a, r in zip(wanted, region, strict=True))
        out[target] = drawn[inside]
    return out


def thin(
    intensities: npt.NDArray[Any],
    fraction: float,
    rng: np.random.Generator,
    gain: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Split an image of photons into a pair of independent images by binomial thinning.

    Each photon goes to the first image with probability `fraction`, else to the second. Of Poisson counts with mean x,
    the parts are independent Poisson with means ``fraction * x`` and ``(1 - fraction) * x`` [1]_; both are rescaled
    here to the intensities of the whole.

    Parameters
    ----------
    intensities : ndarray
        ``gain * photons + offset``. Where that gives no whole number of photons (a gain that is only an estimate, read
        noise), it is rounded up or down at random, by which the parts of a voxel become correlated by at most a
        quarter of a photon: read noise must be small against the gain.
    fraction : float
        Between 0 and 1, exclusive.
    rng : numpy.random.Generator
    gain, offset : float or array that broadcasts

    Returns
    -------
    pair of ndarray of float32

    References
    ----------
    .. [1] J. F. C. Kingman, Poisson Processes, Oxford University Press 1993, section 2 (colouring theorem).
    """
    gain, offset = np.asarray(gain, np.float64), np.asarray(offset, np.float64)
    if intensities.dtype.kind == "u" and (gain == 1).all() and (offset == 0).all():
        photons = intensities.astype(np.int64)
    else:
        exact = np.maximum((intensities - offset) / gain, 0)
        photons = np.floor(exact + rng.random(exact.shape)).astype(np.int64)
    first = rng.binomial(photons, fraction)
    second = photons - first
    return (
        (gain * (first / fraction) + offset).astype(np.float32),
        (gain * (second / (1 - fraction)) + offset).astype(np.float32),
    )
