"""Compare: gather the scores of all volumes into the tables of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.config.specs import CompareSpec
from ssdenoise.metrics import block_bootstrap, psnr
from ssdenoise.noise import stream
from ssdenoise.provenance import Clock, code_hash, file_digest, listed, record, write_json, write_text

KEYS = ["dataset", "situation", "noise", "method", "seed"]
COSTS = ["parameters", "train_seconds", "denoise_seconds", "megavoxels_per_second", "peak_memory_mb", "clipped_share"]

#: Columns of the printed tables, their heads and their formats.
PRINTED = {
    "dataset": ("dataset", "{}"),
    "noise": ("noise", "{}"),
    "method": ("method", "{}"),
    "seed": ("seed", "{}"),
    "psnr": ("PSNR/dB", "{:.2f}"),
    "psnr_interval": ("95 % interval", "{}"),
    "published_psnr": ("published", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "residual_ratio": ("residual ratio", "{:.2f}"),
    "residual_correlation_y": ("corr. Y", "{:+.2f}"),
    "residual_correlation_x": ("corr. X", "{:+.2f}"),
    "train_seconds": ("train/s", "{:.0f}"),
    "denoise_seconds": ("denoise/s", "{:.1f}"),
    "megavoxels_per_second": ("Mvoxel/s", "{:.2f}"),
    "peak_memory_mb": ("peak/MB", "{:.0f}"),
}

WITH_TRUTH = (
    "PSNR {average}, SSIM as the mean over planes and channels (uniform 7x7 window), both against "
    "{truth}; data range {range}; denoised values as they are stored, noisy ones neither rounded nor clipped by us. "
    "Intervals: 95 %, circular block bootstrap over planes (runs of up to {block}), none for a single plane. "
)
WITHOUT_TRUTH = "No dataset has a clean volume or a reference, hence no PSNR and no SSIM. "
FAR_OFF = (
    "The noisy input of {names} is below 0 dB, further from the reference than the data range is wide: are both in the "
    "same units? "
)
FITTED = "Planes of {names} were fitted to the reference by gain and offset first. "
RESIDUALS = (
    "Residual ratio: variance of noisy - denoised over the calibrated noise variance, 1 is best; corr. Y, X: "
    "correlation of neighbouring residuals, best as that of the noise, which stands in the row of the noisy input and "
    "is 0 where it is white; these need no reference."
)


def compare(spec: CompareSpec, scores: Sequence[Path], output: Path) -> pd.DataFrame:
    """Write `comparison.csv`, `.md`, `.tex`, `.json` (provenance) and `scores.parquet` of a run.

    Parameters
    ----------
    spec : CompareSpec
    scores : sequence of Path
        Parquet files of `score`.
    output : Path
        Folder of the run.

    Returns
    -------
    DataFrame
        One row per dataset, noise level, method entry and seed.
    """
    clock = Clock()
    planes = pd.concat([pd.read_parquet(path) for path in scores], ignore_index=True)
    table = pd.DataFrame([_row(spec, names, part) for names, part in planes.groupby(KEYS, sort=False)])
    inputs = table[table["method"] == "noisy"].set_index(["dataset", "noise"])["psnr"]
    # the level of the noise in decibels: what the noisy input scores
    table.insert(
        3, "level", [inputs.get((d, n), np.nan) for d, n in zip(table["dataset"], table["noise"], strict=True)]
    )
    table.insert(list(table.columns).index("psnr") + 3, "psnr_gain", table["psnr"] - table["level"])
    found = {(one.dataset, one.noise, one.method): one.psnr for one in spec.published}
    keys = zip(table["dataset"], table["noise"], table["method"], strict=True)
    table.insert(list(table.columns).index("psnr") + 3, "published_psnr", [found.get(key, np.nan) for key in keys])
    output.mkdir(parents=True, exist_ok=True)
    planes.to_parquet(output / "scores.parquet", index=False)
    files = {str(path): file_digest(path) for path in scores}
    provenance = record(
        "compare", spec=spec.model_dump(mode="json"), inputs=files, code=code_hash("compare"), clock=clock
    )
    write_json(output / "comparison.json", provenance)
    write_text(output / "comparison.csv", table.to_csv(index=False, float_format="%.6g"))
    caption = _caption(spec, table)
    printed = _printed(table)
    write_text(
        output / "comparison.md",
        f"# {spec.run}\n\n{printed.to_markdown(index=False, disable_numparse=True)}\n\n{caption}\n",
    )
    tex = printed.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    write_text(
        output / "comparison.tex",
        tex.to_latex(
            hrules=True, caption=re.sub(r"([%&_#$])", r"\\\1", caption), label="tab:comparison", position="htbp"
        ),
    )
    return table


def _row(spec: CompareSpec, names: tuple[object, ...], part: pd.DataFrame) -> dict[str, object]:
    # the channels of a plane are one picture: its error is over all of them, and they are no independent samples
    pictures = part.groupby(["t", "z"])[["mean_squared_error", "ssim"]].mean()
    errors, ssims = (pictures[column].to_numpy() for column in pictures)
    data_range = float(part["data_range"].iloc[0])
    known = bool(np.isfinite(errors).all())

    def to_average(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return psnr(errors, data_range) if spec.average == "psnr" else errors

    def averaged(mean: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.asarray(mean) if spec.average == "psnr" else psnr(mean, data_range)

    row: dict[str, object] = dict(zip(KEYS, names, strict=True)) | {
        "planes": len(pictures),
        "data_range": data_range,
        "reference_fit": part["reference_fit"].iloc[0],
    }
    psnr_lo, psnr_hi, ssim_lo, ssim_hi = [np.nan] * 4
    if known and len(pictures) > 1:
        # of few planes, runs that long would all be the whole volume
        block = min(spec.bootstrap_block, max(1, len(pictures) // 4))
        # one key for all methods: the same planes are resampled for each, so that rows can be compared
        drawn = [
            block_bootstrap(values, stream("bootstrap", *map(str, names[:3])), block=block)
            for values in (to_average(errors), ssims)
        ]
        psnr_lo, psnr_hi = np.quantile(averaged(drawn[0]), [0.025, 0.975])
        ssim_lo, ssim_hi = np.quantile(drawn[1], [0.025, 0.975])
    value = float(averaged(to_average(errors).mean())) if known else np.nan
    row |= {"psnr": value, "psnr_lo": psnr_lo, "psnr_hi": psnr_hi}
    row |= {"ssim": ssims.mean() if known else np.nan, "ssim_lo": ssim_lo, "ssim_hi": ssim_hi}
    # pooled over planes, as the errors are: a ratio of single planes would be ruled by the darkest
    total = part.sum(numeric_only=True)
    row["residual_ratio"] = total["residual_square"] / total["noise_variance"] if total["noise_variance"] else np.nan
    for axis in "yx":
        squares = np.sqrt(total[f"residual_first_square_{axis}"] * total[f"residual_second_square_{axis}"])
        row[f"residual_correlation_{axis}"] = total[f"residual_product_{axis}"] / squares if squares else np.nan
    if row["method"] == "noisy":  # whose residual is zero and says nothing: the noise's own takes the place
        row["residual_ratio"] = np.nan
        row |= {f"residual_correlation_{axis}": part[f"noise_correlation_{axis}"].mean() for axis in "yx"}
    return row | {name: part[name].iloc[0] if name in part else np.nan for name in COSTS}


def _printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text; a dash where there is nothing to say."""
    interval = [
        f"{low:.2f} to {high:.2f}" if np.isfinite(low) else "-"
        for low, high in zip(table["psnr_lo"], table["psnr_hi"], strict=True)
    ]
    shown = table.assign(psnr_interval=interval)
    columns = {}
    for name, (head, form) in PRINTED.items():
        if name == "published_psnr" and shown[name].isna().all():
            continue
        columns[head] = ["-" if pd.isna(value) else form.format(value) for value in shown[name]]
    return pd.DataFrame(columns)


def _caption(spec: CompareSpec, table: pd.DataFrame) -> str:
    known = table.dropna(subset=["psnr"]).drop_duplicates("dataset")
    kinds = {"benchmark": "the clean volume", "reference": "the reference"}
    if known.empty:
        return WITHOUT_TRUTH + RESIDUALS
    sources = [f"{one.dataset}, {one.noise}, {one.method}: {one.source}" for one in spec.published]
    truth = " or ".join(kinds[s] for s in dict.fromkeys(known["situation"]))
    ranges = ", ".join(f"{r:g} ({d})" for d, r in zip(known["dataset"], known["data_range"], strict=True))
    average = {
        "error": "over the pooled squared error of all planes",
        "psnr": "as the mean over planes, of all channels of a plane together",
    }[spec.average]
    caption = WITH_TRUTH.format(average=average, truth=truth, range=ranges, block=spec.bootstrap_block)
    if far_off := list(dict.fromkeys(table.loc[table["level"] < 0, "dataset"])):
        caption += FAR_OFF.format(names=listed(far_off))
    if fitted := list(dict.fromkeys(table.loc[table["reference_fit"] == "affine", "dataset"])):
        caption += FITTED.format(names=listed(fitted))
    return caption + RESIDUALS + (f" Published figures: {'; '.join(sources)}." if sources else "")
