"""The tables as people read them: Markdown, LaTeX, HTML, with a caption that says how every figure came about."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ssdenoise.config.specs import CompareSpec
from ssdenoise.metrics import SIGNIFICANT
from ssdenoise.provenance import listed

#: Columns of the printed table, their heads and their formats. A column without any figure is left out.
PRINTED: Mapping[str, tuple[str, str]] = {
    "dataset": ("dataset", "{}"),
    "noise": ("noise", "{}"),
    "method": ("method", "{}"),
    "psnr": ("PSNR/dB", "{:.2f}"),
    "psnr_interval": ("95 % interval", "{}"),
    "psnr_seed_std": ("seeds' s.d.", "{:.2f}"),
    "difference": ("to baseline/dB", "{}"),
    "published_psnr": ("published", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "ms_ssim": ("MS-SSIM", "{:.3f}"),
    "upsnr": ("uPSNR/dB", "{:.2f}"),
    "risk_gain": ("est. gain/dB", "{:+.2f}"),
    "residual_ratio": ("residual ratio", "{:.2f}"),
    "residual_correlation_y": ("corr. Y", "{:+.2f}"),
    "residual_correlation_x": ("corr. X", "{:+.2f}"),
    "z_rms": ("z", "{:.2f}"),
    "train_seconds": ("train/s", "{:.0f}"),
    "denoise_seconds": ("denoise/s", "{:.1f}"),
    "megavoxels_per_second": ("Mvoxel/s", "{:.2f}"),
    "peak_memory_mb": ("peak/MB", "{:.0f}"),
}

WITH_TRUTH = (
    "PSNR {average}, SSIM as the mean over planes and channels ({window}{ndim}), both against "
    "{truth}; data range {range}; denoised values as they are stored, noisy ones neither rounded nor clipped by us. "
)
INTERVALS = (
    "Intervals: 95 %, circular block bootstrap over planes in runs as long as neighbours are alike, widened for few "
    "and for correlated runs; of these trainings: what other seeds change is not in them; none of one plane{weak}. "
)
TESTS = (
    "To baseline: mean difference of the planes' PSNR to {baseline}; * where it is significant at 5 % (Wilcoxon "
    "signed-rank test of these trainings over runs of planes as long as the differences are correlated, Holm-corrected "
    "within dataset and noise level{pairs}){reach}. Bold: the best, where it is significantly better than every other "
    "method. "
)
UPSNR = "uPSNR: PSNR against another noisy realization, less that one's own noise; it needs no reference. "
RISK = (
    "Est. gain: the calibrated noise over an unbiased estimate of the squared error on a sample (SURE, PURE and their "
    "union); it needs no reference, and trusts the calibration: 1 % of the noise's variance is up to {db:.1f} dB here. "
)
CHOSEN = "In brackets: the method that was chosen for the dataset without a reference. "
CALIBRATION = (
    "z: error over stated standard deviation, both as root mean square; best is 1, against a reference with noise of "
    "its own more. "
)
SEEDS = "Of methods that draw lots PSNR is that of the mean error over {seeds} seeds; seeds' s.d.: of their PSNR. "
WITHOUT_TRUTH = "No dataset has a clean volume or a reference, hence no PSNR and no SSIM. "
FAR_OFF = (
    "The noisy input of {names} is below 0 dB, further from the reference than the data range is wide: are both in the "
    "same units? "
)
DETECTOR = "But for what the detector does to synthesized noise: {what}. "
FITTED = "Planes of {names} were fitted to the reference by gain and offset first. "
RESIDUALS = (
    "Residual ratio: variance of noisy - denoised over the calibrated noise variance, 1 is best; corr. Y, X: "
    "correlation of neighbouring residuals, best as that of the noise, which stands in the row of the noisy input and "
    "is 0 where it is white; these need no reference."
)
TRUST = (
    "How far the scores without a reference can be trusted here: Kendall's tau between their ranking of the methods "
    "and that by PSNR against the clean volume, or a reference, whose own noise is in it, mean over {cells} cells of "
    "dataset, noise level and seed (1: the same, 0: none); in how many of them their favourite is the best method or "
    "within 0.15 dB of it; and by how much estimates of the PSNR are above it."
)


CHOICES = (
    "What automatic entries chose without a reference, against the method of the run with the highest PSNR: cells of "
    "dataset, noise level and seed."
)

#: Intervals of means over fewer independent planes hold less often than they say: of 24 planes whose neighbours are
#: correlated by 0.8, which count for 2.7, 88 %; of 60 by 0.98, which count for 0.6, 74 %.
FEW = 5.0

#: Characters of which LaTeX wants a name, not a backslash.
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text; a dash where there is nothing to say."""
    interval = [
        f"{low:.2f} to {high:.2f}" if np.isfinite(low) else np.nan
        for low, high in zip(table["psnr_lo"], table["psnr_hi"], strict=True)
    ]
    difference = [
        np.nan if pd.isna(d) else f"{d:+.2f}{'' if pd.isna(p) else '*' if p < SIGNIFICANT else ' '}".rstrip()
        for d, p in zip(table["psnr_difference"], table["p_value"], strict=True)
    ]
    methods = [m if pd.isna(c) else f"{m} ({c})" for m, c in zip(table["method"], table["chosen"], strict=True)]
    shown = table.assign(psnr_interval=interval, difference=difference, method=methods)
    columns = {}
    for name, (head, form) in PRINTED.items():
        if name in shown and not shown[name].isna().all():
            columns[head] = ["-" if pd.isna(value) else form.format(value) for value in shown[name]]
    return pd.DataFrame(columns)


def markdown(table: pd.DataFrame, best: pd.Series[bool]) -> str:
    """As Markdown, the best in bold."""
    bold = table.mask(best.to_numpy()[:, None] & (table.columns == "PSNR/dB"), "**" + table.astype(str) + "**")
    return bold.to_markdown(index=False, disable_numparse=True)


def latex(table: pd.DataFrame, best: pd.Series[bool], caption: str) -> str:
    """For `booktabs`, the best in bold."""
    style = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    style = _bold(style, best, "textbf:--rwrap;")
    words = sum(head in table for head in ("dataset", "noise", "method"))
    columns = "l" * words + "r" * (table.shape[1] - words)
    escaped = re.sub(r"[\\%&_#${}~^]", lambda found: LATEX.get(found[0], f"\\{found[0]}"), caption)
    options: dict[str, Any] = {"hrules": True, "label": "tab:comparison", "position": "htbp"}
    return str(style.to_latex(caption=escaped, column_format=columns, **options))


def _bold(style: Styler, best: pd.Series[bool], look: str) -> Styler:
    if not best.any():
        return style
    return style.apply(lambda _: [look if one else "" for one in best], subset=["PSNR/dB"])


def html(table: pd.DataFrame, best: pd.Series[bool], caption: str, title: str) -> str:
    """As a page of its own, the best in bold."""
    style = table.style.hide(axis="index").format(escape="html").format_index(escape="html", axis=1)
    style = _bold(style, best, "font-weight: bold")
    style = style.set_caption(caption.replace("&", "&amp;").replace("<", "&lt;")).set_uuid("comparison")
    looks = {
        "": "border-collapse: collapse; font: 14px/1.4 sans-serif",
        "caption": "caption-side: bottom; text-align: left; padding-top: 1em; max-width: 70em",
        "th, td": "padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap",
    }
    style = style.set_table_styles([{"selector": key, "props": value} for key, value in looks.items()])
    page = style.to_html(doctype_html=True, bold_headers=True)
    return page.replace("<head>", f"<head>\n<title>{title}</title>", 1)


def caption(spec: CompareSpec, table: pd.DataFrame, summary: pd.DataFrame) -> str:
    """How every figure of the table came about."""
    parts = [_of_truth(spec, table)]
    if summary["psnr_lo"].notna().any():
        few = summary[summary["psnr_lo"].notna() & (summary["independent_planes"] < FEW)]
        names = _cells(few)
        weak = (
            f"; too narrow more often than one time in ten for {names}, of so few planes, or so alike" if names else ""
        )
        parts.append(INTERVALS.format(weak=weak))
    if summary["baseline"].notna().any():
        parts.append(_of_tests(spec, summary))
    if summary["seeds"].max() > 1:
        parts.append(SEEDS.format(seeds=int(summary["seeds"].max())))
    parts += [UPSNR] if table["upsnr"].notna().any() else []
    if table["risk_gain"].notna().any():
        most = float((table["noise_variance"] / table["risk"].where(table["risk"] > 0)).max())
        parts.append(RISK.format(db=10 * np.log10(1 + 0.01 * most)))
    parts += [CHOSEN] if table["chosen"].notna().any() else []
    parts += [CALIBRATION] if table["z_rms"].notna().any() else []
    sources = [f"{one.dataset}, {one.noise}, {one.method}: {one.source}" for one in spec.published]
    return "".join(parts) + RESIDUALS + (f" Published figures: {'; '.join(sources)}." if sources else "")


def _of_tests(spec: CompareSpec, summary: pd.DataFrame) -> str:
    """What was tested, and where nothing could have been found."""
    tested = summary.dropna(subset=["baseline"])
    out_of_reach = tested[~(tested["least_p"] < SIGNIFICANT)]
    names = _cells(out_of_reach)
    return TESTS.format(
        baseline=spec.baseline or "the method with the highest PSNR",
        pairs="" if spec.baseline else " over all pairs",
        reach=f"; out of reach, for too few planes that differ, of {names}" if names else "",
    )


def _cells(rows: pd.DataFrame) -> str:
    """Datasets and noise levels of rows."""
    once = rows.drop_duplicates(["dataset", "noise"])
    return "; ".join(f"{d}, {n}" for d, n in zip(once["dataset"], once["noise"], strict=True))


def _plain(detector: Mapping[str, Any]) -> str:
    """What a detector does, in words."""
    low, high = detector.get("clip") or (None, None)
    parts = [f"clipped {where} {at:g}" for where, at in (("below", low), ("above", high)) if at is not None]
    if step := detector.get("step"):
        parts.append(f"rounded to multiples of {step:g}")
    return ", ".join(parts)


def _of_truth(spec: CompareSpec, table: pd.DataFrame) -> str:
    known = table.dropna(subset=["psnr"]).drop_duplicates("dataset")
    if known.empty:
        return WITHOUT_TRUTH
    kinds = {"benchmark": "the clean volume", "reference": "the reference"}
    text = WITH_TRUTH.format(
        average={
            "error": "over the pooled squared error of all planes",
            "psnr": "as the mean over planes, of all channels of a plane together",
        }[spec.average],
        window={"uniform": "uniform window of 7", "gaussian": "Gaussian window of 11"}[spec.ssim_window],
        ndim={2: "x7 pixels" if spec.ssim_window == "uniform" else "x11 pixels", 3: " voxels a side"}[spec.ssim_ndim],
        truth=" or ".join(kinds[s] for s in dict.fromkeys(known["situation"])),
        range=", ".join(f"{r:g} ({d})" for d, r in zip(known["dataset"], known["data_range"], strict=True)),
    )
    made = table[table["detector"] != "{}"].drop_duplicates(["dataset", "noise"])
    if len(made):
        each = zip(made["dataset"], made["noise"], made["detector"], strict=True)
        text += DETECTOR.format(what="; ".join(f"{d}, {n}: {_plain(json.loads(how))}" for d, n, how in each))
    if far_off := list(dict.fromkeys(table.loc[table["level"] < 0, "dataset"])):
        text += FAR_OFF.format(names=listed(far_off))
    if fitted := list(dict.fromkeys(table.loc[table["reference_fit"] == "affine", "dataset"])):
        text += FITTED.format(names=listed(fitted))
    return text
