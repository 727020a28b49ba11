"""Calibrate: what the noise of a volume is like, without a clean image, and which method suits it."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ssdenoise.calibrate.advice import recommend
from ssdenoise.calibrate.correlation import correlation
from ssdenoise.calibrate.defects import defects, saturation
from ssdenoise.calibrate.highpass import high_pass_for
from ssdenoise.calibrate.transfer import fit, step_of, strengths, transfer_curve
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.errors import FormatError
from ssdenoise.noise import FloatArray, ImpulseModel
from ssdenoise.provenance import Clock, code_hash, record, write_json
from ssdenoise.store import Volume

log = logging.getLogger(__name__)

#: Images looked at of each channel, and pixels a side of what is read of each.
IMAGES, SIDE = 16, 1024

#: Neighbouring planes looked at together, of volumes with more than that.
RUN = 4


def calibrate(spec: CalibrateSpec, noisy: Path, output: Path, figure: Path | None = None) -> dict[str, Any]:
    """Estimate the noise of a volume.

    Parameters
    ----------
    spec : CalibrateSpec
        `repeats`: the time points show the same scene, so that their differences are noise.
    noisy : Path
        Store of the noisy volume.
    output : Path
        JSON file. For each channel: the photon transfer curve and the fit of each likelihood; the noise's
        autocorrelation; `high_pass`, the filter that its variance was measured through; `plane_strengths`, the
        variance of the noise of single planes over that of the fit; `step`, the smallest between its intensities;
        saturation, zeros and hot pixels. For the volume: `recommendation` (a method entry and why; null
        where all voxels are equal) and `warnings`.
    figure : Path, optional
        PNG of all that.

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    FormatError
        If there is only one repeat.
    """
    clock, volume = Clock(), Volume(noisy)
    if spec.repeats and volume.shape[0] < 2:
        raise FormatError(f"{volume.path} has a single time point; repeats need at least two")
    channels = [_channel(volume, c, name, repeats=spec.repeats) for c, name in enumerate(volume.metadata.channels)]
    recommendation, warnings = recommend(channels, repeats=spec.repeats)
    result = {
        "channels": channels,
        "recommendation": recommendation,
        "warnings": warnings,
        "provenance": record(
            "calibrate",
            spec=spec.model_dump(mode="json"),
            inputs={"noisy": volume.digest},
            code=code_hash("calibrate"),
            clock=clock,
        ),
    }
    write_json(output, result)
    if figure is not None:
        from ssdenoise.calibrate.figure import draw  # matplotlib takes a second to import

        draw(result, volume.metadata.name, figure)
    for warning in warnings:
        log.warning(warning)
    if recommendation:
        log.info("recommended: %s, because %s", recommendation["entry"], recommendation["why"])
    return result


def _channel(volume: Volume, c: int, name: str, *, repeats: bool) -> dict[str, Any]:
    """All that is found of one channel."""
    rows, columns = (_middle(n) for n in volume.shape[3:])
    planes = _sample(volume, c, rows, columns, repeats=repeats)
    step = step_of(planes)
    saturated = saturation(planes, volume.array.dtype, step)
    correlated = correlation(planes, repeats=repeats)
    high_pass = high_pass_for(correlated)
    curve = transfer_curve(planes, repeats=repeats, saturated=saturated, high_pass=high_pass)
    intensities = volume.intensities()[c]
    models, offset_from, offset_error = fit(curve, intensities.mean_and_spread()[0])
    return {
        "name": name,
        "models": {kind: asdict(model) for kind, model in models.items()}
        | {"impulse": asdict(ImpulseModel(None, intensities.minimum, intensities.maximum))},
        "offset_from": offset_from,
        "offset_error": offset_error,
        "transfer_curve": curve.to_json(),
        "plane_strengths": strengths(planes, models["poisson_gaussian"], high_pass).tolist(),
        "step": step,
        "correlation": correlated,
        "high_pass": None if repeats else high_pass.to_json(),
        "saturated_share": 0.0 if saturated is None else float(np.mean(planes >= saturated)),
        **defects(planes, models["poisson_gaussian"], (rows.start, columns.start)),
    }


def _middle(n: int) -> slice:
    """The middle of an axis, up to `SIDE` pixels of it."""
    start = max(0, (n - SIDE) // 2)
    return slice(start, start + min(n, SIDE))


def _sample(volume: Volume, c: int, rows: slice, columns: slice, *, repeats: bool) -> FloatArray:
    """Crops of planes, (T, Z, Y, X): runs of neighbouring planes, as the correlation between them is looked at.

    The runs are spread over depth and time, so that what only a part of the volume shows is seen. Of repeats they are
    the same planes at all times, those in the middle.
    """
    t, _, z, _, _ = volume.shape
    if repeats:
        times = np.linspace(0, t - 1, min(t, IMAGES)).round()
        depth = max(1, min(z, IMAGES // len(times)))
        starts = np.full(len(times), (z - depth) // 2)
    else:
        depth = z if z * min(t, IMAGES) <= IMAGES else min(z, RUN)
        runs = min(IMAGES // depth, t * (z - depth + 1))
        times, starts = (np.linspace(0, n, runs).round() for n in (t - 1, z - depth))
    planes = [
        volume.read((slice(i, i + 1), slice(c, c + 1), slice(k, k + depth), rows, columns))[0, 0]
        for i, k in zip(times.astype(int).tolist(), starts.astype(int).tolist(), strict=True)
    ]
    return np.stack(planes).astype(np.float64)
