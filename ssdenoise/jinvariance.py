"""Options of filters without training, by the error at voxels that the filter could not see (Batson & Royer 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ssdenoise.noise import FloatArray


def best_options(
    denoiser: Callable[..., Any],
    sample: Tensor,
    candidates: Mapping[str, Sequence[float]],
    **by_channel: Sequence[float],
) -> dict[str, float]:
    """Options with the smallest J-invariant loss.

    Parameters
    ----------
    denoiser : callable
        Of an image ([Z,] Y, X) and the options.
    sample : Tensor
        Noisy images (B, C, [Z,] Y, X), whose losses are added up.
    candidates : mapping
        Values of each option to choose from.
    **by_channel
        Options of the denoiser that each channel has its own value of.
    """
    from skimage.restoration import calibrate_denoiser  # half a second, and every dry run imports the methods

    listed = {name: list(values) for name, values in candidates.items()}
    total: FloatArray | None = None
    options: list[dict[str, float]] = []
    for images in sample.numpy():
        for channel, image in enumerate(images):
            own = partial(denoiser, **{name: values[channel] for name, values in by_channel.items()})
            stride = min(4, *image.shape)  # of the grid of hidden voxels; no wider than the image
            _, (options, losses) = calibrate_denoiser(image, own, listed, stride=stride, extra_output=True)
            total = np.asarray(losses) if total is None else total + np.asarray(losses)
    assert total is not None, "a sample has at least one image"
    return options[int(np.argmin(total))]
