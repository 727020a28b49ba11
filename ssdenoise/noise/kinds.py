"""Kinds of noise that are drawn on clean volumes."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, TypeAdapter, model_validator
from scipy.ndimage import convolve1d

from ssdenoise.errors import ConfigError
from ssdenoise.noise.levels import Clean, KindOfNoise, Levelled, NotNegative, Positive, known
from ssdenoise.noise.models import FloatArray, ImpulseModel, NoiseModel
from ssdenoise.noise.streams import STREAM_BLOCK, Streams

#: Standard deviations of a Gaussian filter after which it ends.
REACH = 4


class GaussianNoise(Levelled):
    """Additive Gaussian noise."""

    PARAMETERS: ClassVar = ("sigma",)

    kind: Literal["gaussian"]
    sigma: Positive | tuple[Positive, Positive] | None = Field(
        None, description="Standard deviation in intensity units; or a range, from which each plane draws its own."
    )

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if isinstance(self.sigma, tuple) and self.sigma[0] > self.sigma[1]:
            raise ValueError(f"`sigma` is a range from low to high, found {list(self.sigma)}")
        return self

    @property
    def likelihoods(self) -> frozenset[str]:
        return frozenset() if isinstance(self.sigma, tuple) else frozenset({"gaussian", "poisson_gaussian"})

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        flat = streams.voxels.normal(0, 1, clean.shape)
        if not isinstance(self.sigma, tuple):
            return clean + known(self.sigma) * flat
        sigmas = [streams.plane(z).uniform(*self.sigma) for z in range(clean.shape[2])]
        return np.asarray(clean + np.array(sigmas)[:, None, None] * flat)

    def model(self) -> NoiseModel | None:
        return None if isinstance(self.sigma, tuple) else NoiseModel(0, 0, known(self.sigma))

    def _reaching(self, error: float, clean: Clean) -> dict[str, float]:
        return {"sigma": error**0.5}


class PhotonNoise(Levelled):
    """Base of what photons do behind a gain."""

    PARAMETERS: ClassVar = ("gain", "peak")

    gain: Positive | None = Field(None, description="Intensity units per photon.")
    peak: Positive | None = Field(
        None, description="Instead: mean number of photons where the clean volume is brightest."
    )
    offset: float = Field(0, description="Intensity at which no photon arrives.")

    def resolved(self, clean: Clean) -> Self:
        if self.gain is None and not clean.maximum > self.offset:
            raise ConfigError(
                f"no photon arrives anywhere: the clean volume is at most {clean.maximum:g}, and `offset` is "
                f"{self.offset:g}; take a lower one"
            )
        if self.peak is None:
            return super().resolved(clean)
        return self.model_copy(update={"peak": None, "gain": (clean.maximum - self.offset) / self.peak})

    def _photons(self, clean: FloatArray, rng: np.random.Generator) -> FloatArray:
        """What the photons that arrive make of a block."""
        gain = known(self.gain)
        return np.asarray(self.offset + gain * rng.poisson(np.maximum(clean - self.offset, 0) / gain))

    def _least(self, clean: Clean) -> tuple[float, str]:
        # where the clean volume is darker, no photon arrives, and `offset` is what is drawn
        return clean.mean(lambda x: np.minimum(x - self.offset, 0) ** 2), "what is darker than `offset`"

    def _reaching(self, error: float, clean: Clean) -> dict[str, float]:
        return {"gain": error / clean.mean(lambda x: np.maximum(x - self.offset, 0))}


class PoissonNoise(PhotonNoise):
    """Photon noise of a detector with a gain."""

    kind: Literal["poisson"]

    @property
    def likelihoods(self) -> frozenset[str]:
        return frozenset({"poisson", "poisson_gaussian"})

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        return self._photons(clean, streams.voxels)

    def model(self) -> NoiseModel:
        return NoiseModel(known(self.gain), self.offset, 0)


class PoissonGaussianNoise(PhotonNoise):
    """Photon noise of a detector with a gain, then Gaussian read noise."""

    kind: Literal["poisson_gaussian"]
    read_noise: NotNegative = Field(0, description="Standard deviation of the read noise in intensity units.")

    @property
    def likelihoods(self) -> frozenset[str]:
        return frozenset({"poisson_gaussian"} if self.read_noise else {"poisson", "poisson_gaussian"})

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        rng = streams.voxels
        return np.asarray(self._photons(clean, rng) + rng.normal(0, 1, clean.shape) * self.read_noise)

    def model(self) -> NoiseModel:
        return NoiseModel(known(self.gain), self.offset, self.read_noise)

    def _least(self, clean: Clean) -> tuple[float, str]:
        dark, why = super()._least(clean)
        return dark + self.read_noise**2, f"`read_noise` and {why}" if dark else "`read_noise`"


class ImpulseNoise(KindOfNoise):
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

    @property
    def likelihoods(self) -> frozenset[str]:
        return frozenset({"impulse"})

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        replaced = streams.common.random(clean.shape) < self.share
        return np.where(replaced, streams.voxels.uniform(self.low, self.high, clean.shape), clean)

    def model(self) -> ImpulseModel:
        return ImpulseModel(self.share, self.low, self.high)


class StripedNoise(Levelled):
    """Each row, or each column, of a plane is brighter or darker as a whole; white Gaussian noise on top.

    Voxels of one line are correlated by ``sigma**2 / (sigma**2 + white**2)``, those of others are independent.
    """

    PARAMETERS: ClassVar = ("sigma",)

    kind: Literal["striped"]
    lines: Literal["rows", "columns"] = Field("rows", description="`rows`, along X, or `columns`, along Y.")
    sigma: Positive | None = Field(None, description="Standard deviation of the lines in intensity units.")
    white: NotNegative = Field(0, description="Standard deviation of the white noise in intensity units.")

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        along = 4 if self.lines == "rows" else 3
        shape = [1 if axis == along else n for axis, n in enumerate(clean.shape)]
        noisy = clean + known(self.sigma) * streams.lines(along).normal(0, 1, shape)
        return np.asarray(noisy + self.white * streams.voxels.normal(0, 1, clean.shape) if self.white else noisy)

    def model(self) -> NoiseModel:
        return NoiseModel(0, 0, float(np.hypot(known(self.sigma), self.white)))

    def _least(self, clean: Clean) -> tuple[float, str]:
        return self.white**2, "`white`"

    def _reaching(self, error: float, clean: Clean) -> dict[str, float]:
        return {"sigma": error**0.5}


class CorrelatedNoise(Levelled):
    """White Gaussian noise behind a Gaussian filter within each plane, as interpolation and cross-talk leave it.

    Of voxels d apart along Y or X, the correlation is that of the filter with itself, about
    ``exp(-(d / (2 * radius))**2)``. The filter's squares add up to one, so that `sigma` is exact; what it reaches
    beyond a block of the fixed grid, or beyond the volume, is drawn from the streams of the blocks there.
    """

    PARAMETERS: ClassVar = ("sigma",)

    kind: Literal["correlated"]
    sigma: Positive | None = Field(None, description="Standard deviation of the noise in intensity units.")
    radius: (
        Annotated[float, Field(gt=0, le=32)]
        | tuple[Annotated[float, Field(ge=0, le=32)], Annotated[float, Field(ge=0, le=32)]]
    ) = Field(description="Standard deviation of the filter in pixels; or that along Y and that along X.")

    @model_validator(mode="after")
    def _filters(self) -> Self:
        if self.radius == (0, 0):
            raise ValueError("a `radius` of 0 along Y and X filters nothing; take `kind: gaussian`")
        return self

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        radii = self.radius if isinstance(self.radius, tuple) else (self.radius, self.radius)
        filters = [_filter(radius) for radius in radii]
        noise = _white(clean.shape[2:], [len(one) // 2 for one in filters], streams)
        for axis, one in zip((1, 2), filters, strict=True):
            whole = convolve1d(noise, one, axis=axis)
            reach = len(one) // 2
            noise = np.take(whole, range(reach, whole.shape[axis] - reach), axis=axis)
        return np.asarray(clean + known(self.sigma) * noise)

    def model(self) -> NoiseModel:
        return NoiseModel(0, 0, known(self.sigma))

    def _reaching(self, error: float, clean: Clean) -> dict[str, float]:
        return {"sigma": error**0.5}


def _filter(radius: float) -> FloatArray:
    """A Gaussian, scaled so that white noise keeps its variance."""
    if radius == 0:
        return np.ones(1)
    reach = int(np.ceil(REACH * radius))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    return np.asarray(weights / np.sqrt(np.sum(weights**2)))


def _white(shape: tuple[int, ...], reach: list[int], streams: Streams) -> FloatArray:
    """White noise (Z, Y, X) of a block and of so many voxels beside it along Y and X."""
    block = STREAM_BLOCK[3:]
    rows, columns = (range(-r // b, -(-(n + r) // b)) for n, r, b in zip(shape[1:], reach, block, strict=True))
    drawn = [[_white_block(streams.beside(i, j), shape[0]) for j in columns] for i in rows]
    starts = [-r - found.start * b for r, found, b in zip(reach, (rows, columns), block, strict=True)]
    part = [slice(start, start + n + 2 * r) for start, n, r in zip(starts, shape[1:], reach, strict=True)]
    return np.asarray(np.block(drawn)[:, *part])


# each is wanted by the blocks around it, too, and lies there for them; up to 32 MB
@lru_cache(maxsize=32)
def _white_block(streams: Streams, planes: int) -> FloatArray:
    """White noise of a whole block, with as many of its planes as the volume has."""
    return streams.voxels.normal(0, 1, (planes, *STREAM_BLOCK[3:]))


AnyNoise = GaussianNoise | PoissonNoise | PoissonGaussianNoise | ImpulseNoise | StripedNoise | CorrelatedNoise
Noise = Annotated[AnyNoise, Field(discriminator="kind")]

_NOISE: TypeAdapter[AnyNoise] = TypeAdapter(Noise)


def noise_from(record: dict[str, Any]) -> AnyNoise:
    """Noise from its fields, as a commit record holds them."""
    return _NOISE.validate_python(record)
