"""Noise: its parameters, how to draw it, how to split photon counts. NumPy only."""

from ssdenoise.noise.drawing import AnyNoise, GaussianNoise, ImpulseNoise, Noise, PoissonGaussianNoise, synthesize
from ssdenoise.noise.models import (
    FloatArray,
    ImpulseModel,
    NoiseModel,
    NoiseModels,
    correlated_offsets,
    likelihoods,
    noise_models,
)
from ssdenoise.noise.streams import STREAM_BLOCK, Streams, stream
from ssdenoise.noise.thinning import thin

__all__ = [
    "STREAM_BLOCK",
    "AnyNoise",
    "FloatArray",
    "GaussianNoise",
    "ImpulseModel",
    "ImpulseNoise",
    "Noise",
    "NoiseModel",
    "NoiseModels",
    "PoissonGaussianNoise",
    "Streams",
    "correlated_offsets",
    "likelihoods",
    "noise_models",
    "stream",
    "synthesize",
    "thin",
]
