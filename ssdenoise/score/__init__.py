"""Score: compare a denoised volume with the clean volume or the reference; one row per plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd

from ssdenoise.config.specs import ScoreSpec
from ssdenoise.errors import FormatError
from ssdenoise.metrics import Window
from ssdenoise.noise import noise_models
from ssdenoise.provenance import Clock, canonical, code_hash, file_digest, read_json, record
from ssdenoise.score.planes import Scene, plane, volume_similarity
from ssdenoise.store import Volume


def score(
    spec: ScoreSpec,
    noisy: Path,
    denoised: Path,
    calibration: Path,
    model: Path | None,
    truth: Path | None,
    output: Path,
    threads: int = 1,
    *,
    pair: Path | None = None,
    uncertainty: Path | None = None,
    sibling: Path | None = None,
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
        Store of the clean volume or the reference; None for archives.
    output : Path
        Parquet file.
    threads : int
        Planes scored at once.
    pair : Path, optional
        Store of a second realization, on which the denoised volume does not depend.
    uncertainty : Path, optional
        Store of the denoised volume's standard deviation.
    sibling : Path, optional
        Store of what the model of another seed makes of the same noisy volume.

    Returns
    -------
    DataFrame
        A row for each plane, whose columns `compare` adds up.

        - Against the truth: `mean_squared_error`, `fitted_squared_error` (after gain and offset of least squares),
          `reference_square` (the truth's mean square), `ssim`, `ms_ssim` (of planes over 160 pixels a side),
          `micro_ssim`, and the sums of Fourier rings (`rings_truth_*`). With ``reference_fit="affine"`` a denoised
          plane is first mapped to the units of the reference, by `fit_gain` and `fit_offset`.
        - Without: of the residual ``noisy - denoised`` its square and the calibrated variance of the noise (their ratio
          is 1 where all noise and no signal was removed; under 1, noise is left; over 1, signal is lost), and the
          products of residuals that are neighbours along Y and along X (their correlation is that of the noise, 0
          where it is white, if no structure was removed and no noise left).
        - Against another realization: mean squared differences to the denoised plane (`pair_error`) and to the noisy
          one (`pair_difference`), and sums of Fourier rings (`rings_pair_*`).
        - Against the denoised volume of another seed: mean squared difference (`sibling_difference`), twice the
          variance over seeds.
        - Of a stated standard deviation: its mean square (`stated_variance`); against the truth the mean squared error
          (`unfitted_error`, best is as large) and the share of errors within what it says of 95 % (`within_95`).
    """
    clock = Clock()
    given = {"noisy": noisy, "denoised": denoised, "truth": truth, "pair": pair}
    given |= {"uncertainty": uncertainty, "sibling": sibling}
    volumes = {name: Volume(path) for name, path in given.items() if path}
    for name, volume in volumes.items():
        if volume.shape != volumes["noisy"].shape:
            raise FormatError(
                f"{name} {volume.path} has shape {volume.shape} (TCZYX), the noisy volume {volumes['noisy'].shape}; "
                "they must be the same scene, voxel by voxel"
            )
    calibrated = read_json(calibration)
    scene = Scene(
        volumes,
        noise=[models.poisson_gaussian for models in noise_models(calibrated)],
        data_range=_data_range(spec, volumes.get("truth")),
        window=Window(spec.ssim_window),
        affine=spec.reference_fit == "affine",
        repeats=spec.repeats and volumes["noisy"].shape[0] > 1,
    )
    rows = _planes(scene, threads, ssim_ndim=spec.ssim_ndim)
    for axis in "yx":
        lags = [channel["correlation"][axis] for channel in calibrated["channels"]]
        rows[f"noise_correlation_{axis}"] = [lags[j][0] if lags[j] else float("nan") for j in rows["c"]]
    # what clipped and rounded the synthesized noise, for the table to state
    rows["detector"] = canonical(volumes["noisy"].record.get("detector") or {})
    cost = _cost(volumes["denoised"], model) if model else {}
    names = {k: getattr(spec, k) for k in ("dataset", "situation", "noise", "method", "seed", "reference_fit")}
    rows = rows.assign(**names, data_range=scene.data_range, **cost)
    inputs = {name: volume.digest for name, volume in volumes.items()} | {"calibration": file_digest(calibration)}
    options = spec.model_dump(mode="json")
    rows.attrs["provenance"] = record("score", spec=options, inputs=inputs, code=code_hash("score"), clock=clock)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(output, index=False)
    return rows


def _planes(scene: Scene, threads: int, *, ssim_ndim: int) -> pd.DataFrame:
    """A row for each plane, in order."""
    t, c, z, _, _ = scene.shape
    tasks = [dask.delayed(plane)(scene, at, similarity=ssim_ndim == 2) for at in np.ndindex(t, c, z)]
    rows = pd.DataFrame(list(dask.compute(*tasks, scheduler="threads", num_workers=threads)))
    if ssim_ndim == 3 and "truth" in scene.volumes:
        fits = rows[["fit_gain", "fit_offset"]].to_numpy().reshape(t, c, z, 2)
        stacks = [dask.delayed(volume_similarity)(scene, i, j, fits[i, j]) for i, j in np.ndindex(t, c)]
        rows["ssim"] = np.concatenate(dask.compute(*stacks, scheduler="threads", num_workers=threads))
    return rows


def _data_range(spec: ScoreSpec, truth: Volume | None) -> float:
    if spec.data_range != "reference":
        return spec.data_range
    if truth is None:
        return float("nan")
    channels = truth.intensities()
    return max(channel.maximum for channel in channels) - min(channel.minimum for channel in channels)


def _cost(denoised: Volume, model: Path) -> dict[str, Any]:
    trained, done = read_json(model / "model.json"), denoised.record
    training, unknown = trained["provenance"], float("nan")
    # of a training that was interrupted only the last part's are known
    joules = None if training["seconds_before_resume"] else training["joules"]
    return {
        "parameters": trained["parameters"],
        "train_seconds": training["seconds"] + training["seconds_before_resume"],
        "denoise_seconds": done["seconds"],
        "train_joules": unknown if joules is None else joules,
        "denoise_joules": done.get("joules", unknown),
        "megavoxels_per_second": done["voxels"] / 1e6 / max(done["seconds"], 1e-3),
        "peak_memory_mb": max(training["peak_memory_mb"], done["peak_memory_mb"]),
        "clipped_share": done["clipped_voxels"] / done["voxels"],
        "chosen": trained.get("chosen"),
    }
