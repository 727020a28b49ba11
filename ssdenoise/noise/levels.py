"""What kinds of noise have in common: a detector that clips and rounds, and levels by decibels of the noisy volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssdenoise.errors import ConfigError
from ssdenoise.grid import Region, blocks
from ssdenoise.noise.models import FloatArray, ImpulseModel, NoiseModel
from ssdenoise.noise.streams import STREAM_BLOCK, Streams

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Decibels = Annotated[float, Field(ge=-100, le=100)]


@dataclass(frozen=True)
class Clean:
    """A clean volume, as far as levels of noise depend on it.

    Attributes
    ----------
    read : callable
        Returns the voxels of a region.
    shape : sequence of int
        TCZYX.
    minimum, maximum : float
        Over all channels.
    """

    read: Callable[[Region], npt.NDArray[Any]]
    shape: Sequence[int]
    minimum: float
    maximum: float

    def mean(self, of: Callable[[FloatArray], FloatArray]) -> float:
        """Mean of a function of the voxels over all channels; exact, by blocks of a fixed grid, whatever the chunks."""
        parts = (of(self.read(region).astype(np.float64)).sum() for _, region in blocks(self.shape, STREAM_BLOCK))
        return math.fsum(parts) / math.prod(self.shape)

    def variance(self) -> float:
        """Variance of the intensities of all channels together."""
        mean = self.mean(lambda x: x)
        return self.mean(lambda x: (x - mean) ** 2)


class KindOfNoise(BaseModel):
    """Base of all kinds: a frozen model whose fields are the options; what the detector does comes last."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    clip: tuple[float | None, float | None] | None = Field(
        None,
        description="Lowest and highest intensity that the detector gives, null where there is no limit; the highest "
        "is its saturation.",
    )
    step: Positive | None = Field(None, description="Intensities are rounded to multiples of this.")
    bits: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None, description="Grey values of so many bits: `step: 1` and `clip: [0, 2**bits - 1]`."
    )

    @model_validator(mode="after")
    def _detector_is_told_once(self) -> Self:
        if self.bits and (self.step or self.clip):
            raise ValueError(
                f"`bits: {self.bits}` stands for `step: 1` and `clip: [0, {2**self.bits - 1}]`; write these for a "
                "detector with other limits, and leave `bits` out"
            )
        limits = [limit for limit in self.clip or (0, 1) if limit is not None]
        if not limits or limits != sorted(set(limits)):
            raise ValueError("`clip` is a range from low to high, one of which may be null")
        return self

    @property
    def likelihoods(self) -> frozenset[str]:
        """Likelihoods that describe it as it is drawn; none where its parameters vary or voxels are correlated."""
        return frozenset()

    @property
    def detector(self) -> dict[str, Any]:
        """What is done to the intensities after the noise is drawn: `clip` and `step`; empty: nothing."""
        if self.bits:
            return {"clip": [0, 2**self.bits - 1], "step": 1}
        return self.model_dump(mode="json", include={"clip", "step"}, exclude_none=True)

    def resolved(self, clean: Clean) -> Self:
        """The same noise with its parameters as numbers, whatever they were given by."""
        return self

    def draw(self, clean: FloatArray, streams: Streams) -> FloatArray:
        """One realization of a block (T, C, Z, Y, X) of one time point and channel, unclipped and unrounded."""
        raise NotImplementedError

    def model(self) -> NoiseModel | ImpulseModel | None:
        """What the noise of single voxels is like, though they may be correlated; None where it varies."""
        raise NotImplementedError

    def detected(self, intensities: FloatArray) -> FloatArray:
        """What the detector makes of them: clipped, then rounded."""
        does = self.detector
        if "clip" in does:
            intensities = np.clip(intensities, *does["clip"])
        if "step" in does:
            intensities = np.rint(intensities / does["step"]) * does["step"]
        return intensities


class Levelled(KindOfNoise):
    """Noise whose level is either a parameter or a target for the noisy volume.

    Notes
    -----
    With E the mean squared error of the noisy volume against the clean one, over all of its voxels, before the
    detector clips and rounds: PSNR = 10 log10(R**2 / E), where R is the clean volume's maximum minus its minimum over
    all channels, and SNR = 10 log10(V / E), where V is the variance of its intensities, all channels together. E is
    that of the whole volume; planes of other brightness have other photon noise, and their own PSNR.
    """

    #: Parameters that set the level, if the decibels do not.
    PARAMETERS: ClassVar[tuple[str, ...]]

    psnr: Decibels | None = Field(
        None,
        description="Instead: PSNR of the noisy volume in decibels, before the detector; the data range is maximum "
        "minus minimum of the clean volume.",
    )
    snr: Decibels | None = Field(
        None,
        description="Instead: ratio of the variance of the clean volume to that of the noise in decibels, before the "
        "detector.",
    )

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        ways = (*self.PARAMETERS, "psnr", "snr")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"needed exactly one of {', '.join(f'`{name}`' for name in ways)}; given: {what}")
        return self

    def resolved(self, clean: Clean) -> Self:
        """The same noise with its parameters as numbers.

        Raises
        ------
        ConfigError
            If no level reaches the target on this volume.
        """
        if self.psnr is not None:
            name, target, signal = "psnr", self.psnr, (clean.maximum - clean.minimum) ** 2
        elif self.snr is not None:
            name, target, signal = "snr", self.snr, clean.variance()
        else:
            return self
        if not signal > 0:
            raise ConfigError(
                f"`{name}` needs a clean volume that is not of one intensity, {clean.minimum:g}; give one of "
                + ", ".join(f"`{parameter}`" for parameter in self.PARAMETERS)
            )
        least, why = self._least(clean)
        error = signal / 10 ** (target / 10) - least
        if not error > 0:
            raise ConfigError(
                f"`{name}: {target:g}` cannot be reached: {why} alone makes it {10 * np.log10(signal / least):.2f} dB; "
                "take a target below that"
            )
        return self.model_copy(update={name: None, **self._reaching(error, clean)})

    def _least(self, clean: Clean) -> tuple[float, str]:
        """Mean squared error that is there at any level, and what makes it."""
        return 0.0, "nothing"

    def _reaching(self, error: float, clean: Clean) -> dict[str, float]:
        """The parameter by which the level adds so much mean squared error."""
        raise NotImplementedError


def known(value: float | None) -> float:
    """A parameter of resolved noise."""
    assert value is not None, "the level is a target: draw from `noise.resolved(clean)`"
    return value
