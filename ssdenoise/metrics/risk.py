"""The mean squared error of an estimate without a clean image, from the noise's parameters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssdenoise.noise import NoiseModel

Values = npt.NDArray[np.floating]

#: Scores of a model without a reference, by sums over a sample, and what these are divided by.
SAMPLED = {"risk": "voxels", "blind_error": "blind_voxels", "thinned_error": "voxels", "repeat_variance": "voxels"}


def unbiased_variance(noisy: Values, noise: NoiseModel) -> Values:
    """Variance of the noise at each voxel, from the noisy voxel itself: right on average, also below 0 at some."""
    return np.asarray(noise.gain * (noisy - noise.offset) + noise.read_noise**2)


def risk(
    noisy: Values, estimate: Values, difference: Values, direction: Values, noise: NoiseModel
) -> npt.NDArray[np.float64]:
    """Unbiased estimate of the squared error of an estimate, voxel by voxel; its mean is what counts.

    Parameters
    ----------
    noisy, estimate : array
        Same shape and unit.
    difference : array
        Derivative of the estimate along `direction`: what it changes by, for a small step, over the step.
    direction : array
        Random signs, times any positive factors that do not depend on them, such as the noise's standard deviation.
    noise : NoiseModel

    Notes
    -----
    With y = x + n, E[(f(y) - x)^2] = E[(f(y) - y)^2 - v + 2 n f(y)], and for noise of variance v the last expectation
    is that of v times the derivative of f at a voxel by that voxel: exactly, for Gaussian noise (Stein 1981), and to
    first order in the gain for Poisson noise (Luisier et al. 2011; with read noise Le Montagner et al. 2014, whose
    finite difference f(y) - f(y - gain) is replaced by the derivative). ``v = gain * (y - offset) + read_noise^2`` is
    unbiased. The derivatives of all voxels are probed at once by a random direction (Ramani et al. 2008): for signs b,
    E[b_i (df/dy b)_i] = df_i/dy_i.

    References
    ----------
    Stein, Annals of Statistics 9:1135, 1981. Ramani, Blu & Unser, IEEE Transactions on Image Processing 17:1540, 2008.
    Luisier, Blu & Unser, ibid. 20:696, 2011. Le Montagner, Angelini & Olivo-Marin, ibid. 23:1255, 2014.
    """
    y, f = noisy.astype(np.float64), estimate.astype(np.float64)
    variance = unbiased_variance(y, noise)
    return np.square(f - y) - variance + 2 * variance * difference / direction
