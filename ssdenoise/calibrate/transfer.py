"""The photon transfer curve: variance of the noise by brightness, and the gain, offset and read noise it tells.

In each plane a high-pass filter removes what is smooth and leaves a known share of the noise's variance, and of places
equally bright those with the least texture around them count; of repeats, the deviations from their mean are the noise.
Photon noise has ``variance = gain * (signal - offset) + read_noise**2``, a line of which one volume gives slope and
intercept only. What separates offset from read noise is the third cumulant, which a normal distribution does not have
and photons do: ``gain**2 * (signal - offset)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, uniform_filter

from ssdenoise.calibrate.highpass import FINEST, HighPass
from ssdenoise.errors import FormatError
from ssdenoise.noise import FloatArray, NoiseModel

Values = npt.NDArray[np.float64]

#: Points of the curve.
BINS = 24

#: Share of each point's voxels that is kept, those in the smoothest surroundings, but not fewer than so many voxels.
SMOOTHEST, FEWEST = 0.25, 1000

#: Fewest photons where a plane's noise is compared with the model: below, brightness is itself mostly noise.
MIN_PHOTONS = 2.0

#: Values further from zero than this many standard deviations are edges and hot pixels, not noise; so many times the
#: variance of a normal distribution lies within.
OUTLIER, INSIDE = 3.0, 0.973

#: The same for third powers, which want the tails that photons have.
OUTLIER_CUBED = 6.0

#: Photons in one place that are noise however rare they are.
FEW_PHOTONS = 3.0

#: Voxels among which the smallest step between intensities is looked for.
MOST = 2**21

#: Largest share of a point's voxels beside which one is saturated.
CUT_OFF = 0.01

#: The offset is taken from the third cumulant if its standard error is under this share of the brightness above it,
#: and if it is so many standard errors below the darkest brightness, where it would lie if some places sent no photons.
OFFSET_ERROR, OFFSET_ABOVE = 0.25, 2.0


@dataclass(frozen=True)
class TransferCurve:
    """Points of equally many voxels each, darkest first: brightness, variance, third cumulant and its error."""

    brightness: Values
    variance: Values
    cumulant: Values
    cumulant_error: Values

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers; what is not finite becomes null."""
        return {name: [v if np.isfinite(v) else None for v in values.tolist()] for name, values in vars(self).items()}


def transfer_curve(
    planes: FloatArray, *, repeats: bool = False, saturated: float | None = None, high_pass: HighPass = FINEST
) -> TransferCurve:
    """Noise by local brightness; points where saturation cut the noise off are left out.

    Parameters
    ----------
    planes : array of shape (T, Z, Y, X)
    repeats : bool
        Whether the time points show the same scene.
    saturated : float, optional
        Value at which voxels saturate.
    high_pass : HighPass
        What noise is measured through, unless there are repeats; the default suits noise that is not correlated.

    Raises
    ------
    FormatError
        If planes are too small, unless there are repeats.
    """
    top = np.inf if saturated is None else saturated
    if repeats:
        n = len(planes)
        mean = planes.mean(axis=0)
        local, key = (np.broadcast_to(part, planes.shape).ravel() for part in (mean, _around(mean)))
        noise = ((planes - mean) / np.sqrt((n - 1) / n)).ravel()
        cut_off = np.broadcast_to((planes >= top).any(axis=0), planes.shape).ravel()
        # a deviation from the mean of n is the sum of the voxel's noise times 1 - 1/n and n - 1 others' times -1/n
        cubes = ((1 - 1 / n) ** 3 - (n - 1) / n**3) / ((n - 1) / n) ** 1.5
    else:
        flat = planes.reshape(-1, *planes.shape[-2:])
        window = high_pass.window
        if any(n < side for n, side in zip(flat.shape[1:], window, strict=True)):
            raise FormatError(
                f"planes of {flat.shape[1:]} pixels (YX): noise is measured in windows of {window[0]}x{window[1]}"
            )

        def inner(function: Callable[[FloatArray], FloatArray]) -> FloatArray:
            return np.concatenate([function(plane)[high_pass.rim].ravel() for plane in flat])

        local, key = inner(lambda plane: uniform_filter(plane, 3)), inner(_around)
        noise, texture = inner(high_pass.filtered), inner(high_pass.texture)
        cut_off = inner(lambda plane: maximum_filter(plane, high_pass.kernel.shape)) >= top
        cubes = high_pass.cubes
    quantum = step_of(planes)
    groups = np.array_split(np.argsort(key, kind="stable"), min(BINS, max(1, len(local) // 64)))
    # whole points, as leaving out the voxels alone would cut the noise of those that remain
    groups = [group for group in groups if cut_off[group].mean() <= CUT_OFF] or groups
    if not repeats:
        groups = [group[np.argsort(texture[group])[: max(FEWEST, int(SMOOTHEST * len(group)))]] for group in groups]
    brightness = np.array([local[group].mean() for group in groups])
    spreads = [_spread(noise[group], quantum) for group in groups]
    thirds = [_third(noise[group], spread, quantum) for group, spread in zip(groups, spreads, strict=True)]
    cumulant, error = np.array(thirds).T / cubes if cubes > 1e-6 else np.full((2, len(groups)), np.inf)
    variance = np.array(spreads) / (1.0 if repeats else high_pass.passes)
    return TransferCurve(brightness, variance, cumulant, np.abs(error))


def step_of(planes: FloatArray) -> float:
    """Smallest step between the intensities that occur: of photon counts one photon, of a camera's image one unit."""
    values = np.unique(planes.ravel()[:: max(1, planes.size // MOST)])
    return float(np.diff(values).min()) if len(values) > 1 else 0.0


def strengths(planes: FloatArray, model: NoiseModel, high_pass: HighPass = FINEST) -> Values:
    """Variance of each plane's noise, where it is smoothest, over what the model of all says.

    Planes (T, Z, Y, X) with too few photons to tell are left out.
    """
    found = []
    for plane in planes.reshape(-1, *planes.shape[-2:]):
        parts = (model.variance(uniform_filter(plane, 3)), high_pass.filtered(plane), high_pass.texture(plane))
        expected, noise, texture = (part[high_pass.rim].ravel() for part in parts)
        known = expected > MIN_PHOTONS * model.gain**2
        if known.sum() < FEWEST:
            continue
        units, relief = noise[known] / np.sqrt(expected[known]), texture[known] / expected[known]
        found.append(_spread(units[np.argsort(relief)[: max(FEWEST, int(SMOOTHEST * len(units)))]]))
    return np.array(found) / high_pass.passes


def _around(image: FloatArray) -> FloatArray:
    """Mean of the 16 pixels around the 3x3 in the middle of 5x5, or of neighbours in planes of a volume.

    Pixels are grouped by this and their brightness is measured inside: sorted by their own brightness, the darkest
    would be those that noise made dark.
    """
    size = (1,) * (image.ndim - 2)
    return np.asarray(25 * uniform_filter(image, (*size, 5, 5)) - 9 * uniform_filter(image, (*size, 3, 3))) / 16


def _spread(noise: Values, quantum: float = 0.0) -> float:
    """Variance, without the few values far out that edges and hot pixels leave.

    Values beyond three standard deviations are set aside until none is left; of a normal distribution that takes
    2.7 % of the variance away, which the factor puts back. A few quanta never are: where nearly no photons arrive, each
    of them is far out, and is the noise.
    """
    kept, limit = noise, np.inf
    for _ in range(10):
        limit = max(OUTLIER * np.sqrt(np.mean(kept**2)), FEW_PHOTONS * quantum)
        inside = np.abs(kept) <= limit
        if inside.all():
            break
        kept = kept[inside]
    variance = float(np.mean(kept**2))
    return variance / INSIDE if len(kept) < len(noise) and limit > FEW_PHOTONS * quantum else variance


def _third(noise: Values, variance: float, quantum: float) -> tuple[float, float]:
    """Mean third power and its standard error."""
    kept = noise[np.abs(noise) <= max(OUTLIER_CUBED * np.sqrt(variance), FEW_PHOTONS * quantum)]
    cubes = kept**3
    return float(cubes.mean()), float(cubes.std() / np.sqrt(max(1, len(cubes)))) or np.inf


def fit(
    curve: TransferCurve, mean: float
) -> tuple[dict[str, NoiseModel], Literal["third cumulant", "darkest brightness"], float | None]:
    """Fit each likelihood to a photon transfer curve.

    Points weigh by the inverse of their own variance (a variance estimate is as uncertain as it is large), with
    rounds of reweighting from the fitted line.

    Parameters
    ----------
    curve : TransferCurve
    mean : float
        Mean brightness of the volume.

    Returns
    -------
    models : dict
        `gaussian`, the noise at the mean brightness; `poisson`; `poisson_gaussian`.
    offset_from : str
        Where the offset of `poisson_gaussian` comes from. Unless the third cumulant says otherwise, it is the darkest
        brightness that occurs. If no place was without photons, and they are too many to tell from the third cumulant,
        offset and read noise are both too high then, but the variance is right at each brightness.
    offset_error : float or None
        Standard error of the offset from the third cumulant; None if it tells nothing.
    """
    brightness, variance = curve.brightness, curve.variance
    # without a floor, an empty background of variance zero would outweigh every other point
    floor = 0.01 * float(variance.max()) or 1.0
    weight = 1 / np.maximum(variance, floor)
    gain, intercept = 0.0, float(variance.mean())
    for _ in range(3):
        gain, intercept = _line(brightness, variance, weight)
        if gain <= 0:
            gain, intercept = 0.0, float(np.average(variance, weights=weight**2))
        weight = 1 / np.maximum(gain * brightness + intercept, floor)
    dark, offset_from, error = float(brightness.min()), "darkest brightness", None
    if gain > 0:
        offset, error = _offset(curve, gain)
        certain = error < OFFSET_ERROR * max(float(np.median(brightness)) - offset, 0.0)
        if certain and offset < dark - OFFSET_ABOVE * error:
            dark, offset_from = offset, "third cumulant"
    at_dark = gain * dark + intercept
    if at_dark < 0:  # the line meets zero above that: no read noise
        dark, at_dark = -intercept / gain, 0.0
    square = float(np.sum(weight**2 * brightness**2))
    poisson = float(np.sum(weight**2 * variance * brightness)) / square if square > 0 else 0.0
    models = {
        "gaussian": NoiseModel(0.0, 0.0, float(np.sqrt(max(gain * mean + intercept, 0.0)))),
        "poisson": NoiseModel(max(poisson, 0.0), 0.0, 0.0),
        "poisson_gaussian": NoiseModel(float(gain), dark, float(np.sqrt(at_dark))),
    }
    return models, offset_from, error if error is None or np.isfinite(error) else None  # type: ignore[return-value]


def _offset(curve: TransferCurve, gain: float) -> tuple[float, float]:
    """Offset at which the third cumulant vanishes, and its standard error: a weighted mean over the points."""
    weight = (gain**2 / curve.cumulant_error) ** 2
    if not weight.sum() > 0:
        return float("nan"), np.inf
    offsets = curve.brightness - curve.cumulant / gain**2
    known = weight > 0
    return float(np.average(offsets[known], weights=weight[known])), float(weight.sum() ** -0.5)


def _line(x: Values, y: Values, weight: Values) -> tuple[float, float]:
    """Weighted least squares: slope and intercept; slope 0 where all x are alike."""
    squares = weight**2 / np.sum(weight**2)
    mean_x, mean_y = np.sum(squares * x), np.sum(squares * y)
    spread = np.sum(squares * (x - mean_x) ** 2)
    slope = np.sum(squares * (x - mean_x) * (y - mean_y)) / spread if spread > 0 else 0.0
    return float(slope), float(mean_y - slope * mean_x)
