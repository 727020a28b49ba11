"""Figures of a whole run: scores against the level of the noise, against what they cost, and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from ssdenoise.metrics import SIGNIFICANT, critical_difference
from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.provenance import listed

MARKERS = "osD^vPX*<>"


def draw(summary: pd.DataFrame, output: Path) -> None:
    """Draw `levels`, `cost` and `ranks` of a run, as PNG and PDF.

    Parameters
    ----------
    summary : DataFrame
        The aggregated table.
    output : Path
        Folder of the run.
    """
    own = summary[summary["chosen"].isna()]
    plot_levels(own, output / "levels.png")
    plot_cost(own, output / "cost.png")
    plot_ranks(own, output / "ranks.png")


def _looks(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method: the same in all figures."""
    names = [name for name in dict.fromkeys(summary["method"]) if name != "noisy"]
    looks: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i % (len(COLOURS) - 1)], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(names)
    }
    return looks | {"noisy": {"color": "0.55", "marker": "."}}


def _says(text: str, output: Path) -> None:
    """A figure that says why there is nothing to draw."""
    figure, axis = plt.subplots(figsize=(5, 1.2), layout="constrained")
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, wrap=True)
    save(figure, output, "compare")


def plot_levels(summary: pd.DataFrame, output: Path) -> None:
    """PSNR and SSIM with their intervals against the PSNR of the noisy input, a column for each dataset."""
    known = summary[summary["psnr"].notna()]
    datasets = list(dict.fromkeys(known["dataset"]))
    if not datasets:
        _says("No dataset has a clean volume or a reference: no PSNR.", output)
        return
    looks = _looks(known)
    figure, axes = plt.subplots(
        2, len(datasets), figsize=(1.5 + 3.0 * len(datasets), 5.4), squeeze=False, sharex="col", layout="constrained"
    )
    for column, dataset in zip(axes.T, datasets, strict=True):
        rows = known[known["dataset"] == dataset].sort_values("level")
        for axis, score, label in zip(column, ("psnr", "ssim"), ("PSNR/dB", "SSIM"), strict=True):
            for name, part in rows.groupby("method", sort=False):
                low, high = (part[f"{score}_{end}"].fillna(part[score]) for end in ("lo", "hi"))
                # beside each other, or their intervals would hide behind the last
                shift = 0.06 * (list(looks).index(str(name)) - len(looks) / 2)
                error = [(part[score] - low).clip(lower=0), (high - part[score]).clip(lower=0)]
                axis.errorbar(
                    part["level"] + shift, part[score], error, label=name, capsize=2, lw=1, ms=5, **looks[str(name)]
                )
            axis.set_ylabel(label if dataset == datasets[0] else "")
        column[0].set_title(dataset, fontsize=10)
        column[1].set_xlabel("PSNR of the noisy input/dB")
    named = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside right upper", frameon=False, fontsize=8)
    save(figure, output, "compare")


def plot_cost(summary: pd.DataFrame, output: Path) -> None:
    """Gain over the noisy input against the seconds of training and inference together, one point a volume."""
    known = summary[summary["psnr_gain"].notna() & (summary["method"] != "noisy")]
    if known.empty:
        _says("No dataset has a clean volume or a reference: no gain to hold against its cost.", output)
        return
    looks = _looks(summary)
    figure, axis = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
    for name, part in known.groupby("method", sort=False):
        seconds = (part["train_seconds"] + part["denoise_seconds"]).clip(lower=0.1)
        axis.plot(seconds, part["psnr_gain"], ls="", ms=6, label=name, **looks[str(name)])
    axis.set(xscale="log", xlabel="training and inference/s", ylabel="PSNR gained/dB")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, output, "compare")


def plot_ranks(summary: pd.DataFrame, output: Path) -> None:
    """Critical-difference diagram: mean ranks over datasets; bars join what may be equal.

    Ranks are among the methods that ran everywhere. Those of a dataset are means over its noise levels, which are no
    independent datasets.
    """
    scores = summary[summary["rank"].notna()].pivot_table("psnr", ["dataset", "noise"], "method")
    everywhere = scores.dropna(axis=1)
    ranks = everywhere.rank(axis=1, ascending=False).groupby("dataset").mean()
    datasets, methods = ranks.shape
    if datasets < 2 or methods < 3:
        _says("Ranks are compared over two datasets with a truth and three methods at least.", output)
        return
    means = ranks.mean().sort_values()
    difference = critical_difference(methods, datasets)
    p = float(stats.friedmanchisquare(*ranks.to_numpy().T).pvalue)
    without = [str(name) for name in scores if name not in everywhere]
    figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.3 * methods), layout="constrained")
    _diagram(axis, means, difference)
    axis.set_title(
        f"mean rank over {datasets} datasets; bars join what differs by less than {difference:.2f}\n(Nemenyi's test at "
        f"5 %; Friedman's p = {p:.2g}{', nothing differs' if p >= SIGNIFICANT else ''})"
        + (f"\nwithout {listed(without)}, which did not run on all" if without else ""),
        fontsize=8,
    )
    save(figure, output, "compare")


def _diagram(axis: Axes, means: pd.Series[float], difference: float) -> None:
    """Demšar 2006, figure 1: names beside a scale of ranks, the better half at its left."""
    n, step = len(means), 0.6
    axis.set(xlim=(0.4, n + 0.6), ylim=(-(n // 2 + 2) * step - 0.4, 0.9))
    axis.axis("off")
    axis.hlines(0, 1, n, color="black", lw=1)
    for rank in range(1, n + 1):
        axis.vlines(rank, 0, 0.15, color="black", lw=1)
        axis.text(rank, 0.25, str(rank), ha="center", fontsize=8)
    bars = _groups(means.tolist(), difference)
    for level, (first, last) in enumerate(bars):
        axis.hlines(-0.2 - 0.14 * level, means.iloc[first] - 0.04, means.iloc[last] + 0.04, color="black", lw=3)
    left = (n + 1) // 2
    for i, (name, mean) in enumerate(means.items()):
        better = i < left
        y = -0.4 - 0.14 * len(bars) - step * (i if better else n - 1 - i)
        end = 0.8 if better else n + 0.2
        axis.plot([mean, mean, end], [0, y, y], color="0.4", lw=0.8)
        axis.text(end, y, f" {name} {mean:.2f} ", ha="right" if better else "left", va="center", fontsize=8)


def _groups(means: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """First and last of each longest run of methods whose mean ranks differ by less than the critical difference."""
    found: list[tuple[int, int]] = []
    for first in range(len(means)):
        last = max(i for i in range(first, len(means)) if means[i] - means[first] < difference)
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return found
