"""How alike two images are, from sums over blocks, so that a volume of any size gives the value of the whole array.

The data range is always given, never guessed; values are compared as they are, neither rounded nor clipped.
"""

from ssdenoise.metrics.bootstrap import Runs
from ssdenoise.metrics.error import Moments, psnr
from ssdenoise.metrics.fourier import Rings, resolution, ring_correlation
from ssdenoise.metrics.risk import SAMPLED
from ssdenoise.metrics.significance import SIGNIFICANT, critical_difference, holm, least_p, paired, run_means
from ssdenoise.metrics.similarity import BETAS, MultiScale, Window, micro_ssim, ms_ssim, similarity_maps

__all__ = [
    "BETAS",
    "SAMPLED",
    "SIGNIFICANT",
    "Moments",
    "MultiScale",
    "Rings",
    "Runs",
    "Window",
    "critical_difference",
    "holm",
    "least_p",
    "micro_ssim",
    "ms_ssim",
    "paired",
    "psnr",
    "resolution",
    "ring_correlation",
    "run_means",
    "similarity_maps",
]
