"""Score: compare a denoised volume with the clean volume or the reference; one row per plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.config.specs import ScoreSpec
from ssdenoise.errors import FormatError
from ssdenoise.grid import blocks
from ssdenoise.metrics import SSIM_HALO, SSIM_WINDOW, squared_error, ssim_map
from ssdenoise.noise import NoiseModel, noise_models
from ssdenoise.provenance import Clock, code_hash, file_digest, read_json, record
from ssdenoise.store import Volume

#: Pixels a side of what is compared at once.
BLOCK = 1024


def score(
    spec: ScoreSpec,
    noisy: Path,
    denoised: Path,
    calibration: Path,
    model: Path | None,
    truth: Path | None,
    output: Path,
    threads: int = 1,
) -> pd.DataFrame:
    """Score one denoised volume, plane by plane, and write the rows as Parquet.

    Parameters
    ----------
    spec : ScoreSpec
    noisy, denoised : Path
        Stores. For the scores of the noisy input itself `denoised` is `noisy`.
    calibration : Path
        Noise parameters of the noisy volume.
    model : Path or None
        Folder of the model, for its cost; None for the noisy input.
    truth : Path or None
        Store of the clean volume or the reference; None for archives, which get the residual's scores only.
    output : Path
        Parquet file.
    threads : int
        Planes scored at once.

    Returns
    -------
    DataFrame
        Per plane: mean squared error and SSIM against the truth, and sums from which `compare` gets two scores of the
        residual ``noisy - denoised`` that need no truth: its square and the calibrated variance of the noise (their
        ratio is 1 where all noise and no signal was removed; under 1, noise is left; over 1, signal is lost), and the
        products of residuals that are neighbours along Y and along X (their correlation is that of the noise, 0 where
        it is white, if no structure was removed and no noise left). With ``reference_fit="affine"`` a denoised plane
        is first mapped to the units of the reference, by the gain and offset of least squares.
    """
    clock = Clock()
    volumes = {"noisy": Volume(noisy), "denoised": Volume(denoised)} | ({"truth": Volume(truth)} if truth else {})
    for name, volume in volumes.items():
        if volume.shape != volumes["noisy"].shape:
            raise FormatError(
                f"{name} {volume.path} has shape {volume.shape} (TCZYX), the noisy volume {volumes['noisy'].shape}; "
                "they must be the same scene, voxel by voxel"
            )
    data_range = _data_range(spec, volumes.get("truth"))
    calibrated = read_json(calibration)
    noise = [models.poisson_gaussian for models in noise_models(calibrated)]
    t, c, z, _, _ = volumes["noisy"].shape
    affine = spec.reference_fit == "affine"
    planes = [
        dask.delayed(_plane)(volumes, (i, j, k), data_range, noise[j], affine=affine) for i, j, k in np.ndindex(t, c, z)
    ]
    rows = pd.DataFrame(list(dask.compute(*planes, scheduler="threads", num_workers=threads)))
    for axis in "yx":
        lags = [channel["correlation"][axis] for channel in calibrated["channels"]]
        rows[f"noise_correlation_{axis}"] = [lags[j][0] if lags[j] else float("nan") for j in rows["c"]]
    cost = _cost(volumes["denoised"], model) if model else {}
    names = {k: getattr(spec, k) for k in ("dataset", "situation", "noise", "method", "seed", "reference_fit")}
    rows = rows.assign(**names, data_range=data_range, **cost)
    inputs = {name: volume.digest for name, volume in volumes.items()} | {"calibration": file_digest(calibration)}
    options = spec.model_dump(mode="json")
    rows.attrs["provenance"] = record("score", spec=options, inputs=inputs, code=code_hash("score"), clock=clock)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(output, index=False)
    return rows


def _data_range(spec: ScoreSpec, truth: Volume | None) -> float:
    if truth is None:
        return float("nan")
    if spec.data_range != "reference":
        return spec.data_range
    channels = truth.intensities()
    return max(channel.maximum for channel in channels) - min(channel.minimum for channel in channels)


def _cost(denoised: Volume, model: Path) -> dict[str, Any]:
    trained, done = read_json(model / "model.json"), denoised.record
    training = trained["provenance"]
    return {
        "parameters": trained["parameters"],
        "train_seconds": training["seconds"] + training["seconds_before_resume"],
        "denoise_seconds": done["seconds"],
        "megavoxels_per_second": done["voxels"] / 1e6 / max(done["seconds"], 1e-3),
        "peak_memory_mb": max(training["peak_memory_mb"], done["peak_memory_mb"]),
        "clipped_share": done["clipped_voxels"] / done["voxels"],
    }


def _plane(
    volumes: dict[str, Volume], at: tuple[int, int, int], data_range: float, noise: NoiseModel, *, affine: bool
) -> dict[str, float | int]:
    """Scores of one plane, from blocks of it."""
    height, width = volumes["noisy"].shape[3:]
    known = "truth" in volumes
    gain, offset = _fit(volumes, at) if affine and known else (1.0, 0.0)
    error, similarity, windows, removed, expected = 0.0, 0.0, 0, 0.0, 0.0
    neighbours = {"y": np.zeros(3), "x": np.zeros(3)}  # sums over neighbouring residuals a, b of a*b, a*a, b*b
    for _, core in blocks((height, width), (BLOCK, BLOCK)):
        # SSIM windows centred in this block reach over its ends
        reach = tuple(
            slice(max(0, s.start - SSIM_HALO), min(n, s.stop + SSIM_HALO))
            for s, n in zip(core, (height, width), strict=True)
        )
        inside = tuple(slice(s.start - r.start, s.stop - r.start) for s, r in zip(core, reach, strict=True))
        images = {name: _pixels(volume, at, reach) for name, volume in volumes.items()}
        if known:
            fitted = gain * images["denoised"] + offset
            error += squared_error(images["truth"][inside], fitted[inside])
            if min(height, width) >= SSIM_WINDOW:
                part = ssim_map(images["truth"], fitted, data_range=data_range)
                similarity, windows = similarity + float(part.sum()), windows + part.size
        residual = (images["noisy"] - images["denoised"])[inside]
        removed += float(np.sum(residual**2))
        expected += float(np.sum(noise.variance(images["denoised"][inside])))
        for axis, (a, b) in {"y": (residual[:-1], residual[1:]), "x": (residual[:, :-1], residual[:, 1:])}.items():
            neighbours[axis] += (np.sum(a * b), np.sum(a**2), np.sum(b**2))
    n = height * width
    row = {
        "t": at[0],
        "c": at[1],
        "z": at[2],
        "mean_squared_error": error / n if known else float("nan"),
        "ssim": similarity / windows if known and windows else float("nan"),
        "residual_square": removed,
        "noise_variance": expected,
    }
    for axis, sums in neighbours.items():
        names = [f"residual_{what}_{axis}" for what in ("product", "first_square", "second_square")]
        row |= dict(zip(names, sums.tolist(), strict=True))
    return row


def _fit(volumes: dict[str, Volume], at: tuple[int, int, int]) -> tuple[float, float]:
    """Gain and offset that bring a denoised plane closest to the true one."""
    height, width = volumes["noisy"].shape[3:]
    sums, n = np.zeros(4), height * width
    shift = [volumes[name].intensities()[at[1]].minimum for name in ("denoised", "truth")]
    for _, core in blocks((height, width), (BLOCK, BLOCK)):
        # from the minimum: sums of squares of numbers far from zero would cancel
        x, y = (_pixels(volumes[name], at, core) - s for name, s in zip(("denoised", "truth"), shift, strict=True))
        sums += (x.sum(), y.sum(), np.sum(x * x), np.sum(x * y))
    x_mean, y_mean, xx, xy = sums / n
    spread = xx - x_mean**2
    gain = (xy - x_mean * y_mean) / spread if spread > 0 else 0.0
    return gain, (y_mean + shift[1]) - gain * (x_mean + shift[0])


def _pixels(volume: Volume, at: tuple[int, int, int], region: tuple[slice, ...]) -> npt.NDArray[np.float64]:
    place = tuple(slice(i, i + 1) for i in at)
    return np.asarray(volume.read((*place, *region))[0, 0, 0], np.float64)
