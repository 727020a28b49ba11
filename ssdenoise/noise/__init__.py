"""Noise: its parameters, how to draw it, how to split photon counts."""

from ssdenoise.noise.drawing import synthesize
from ssdenoise.noise.kinds import (
    AnyNoise,
    CorrelatedNoise,
    GaussianNoise,
    ImpulseNoise,
    Noise,
    PoissonGaussianNoise,
    PoissonNoise,
    StripedNoise,
    noise_from,
)
from ssdenoise.noise.levels import Clean
from ssdenoise.noise.models import (
    FloatArray,
    ImpulseModel,
    NoiseModel,
    NoiseModels,
    correlated_offsets,
    noise_models,
)
from ssdenoise.noise.streams import STREAM_BLOCK, Streams, stream
from ssdenoise.noise.thinning import thin

__all__ = [
    "STREAM_BLOCK",
    "AnyNoise",
    "Clean",
    "CorrelatedNoise",
    "FloatArray",
    "GaussianNoise",
    "ImpulseModel",
    "ImpulseNoise",
    "Noise",
    "NoiseModel",
    "NoiseModels",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "Streams",
    "StripedNoise",
    "correlated_offsets",
    "noise_from",
    "noise_models",
    "stream",
    "synthesize",
    "thin",
]
