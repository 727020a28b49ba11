"""What noise is like: its parameters, by likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


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


def correlated_offsets(calibration: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Neighbours (Z, Y, X) that the noise of any calibrated channel is correlated with; of opposite ones, one."""
    return [(z, y, x) for channel in calibration["channels"] for z, y, x in channel["correlation"]["offsets"]]
