"""Where each method failed: its worst plane."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter

from ssdenoise.figures.crops import CROP, pixels
from ssdenoise.grid import Region
from ssdenoise.plotting import plt, save
from ssdenoise.store import Volume

#: Pixels a side of what the worst place is looked for in.
LARGEST = 2048


def worst_plane(rows: pd.DataFrame, *, known: bool) -> pd.Series[float]:
    """The row of the plane with the largest error; without a truth, of which most was removed against its noise."""
    removed = rows["residual_square"] / rows["noise_variance"].where(rows["noise_variance"] > 0)
    errors = rows["mean_squared_error"] if known else removed
    return rows.iloc[int(np.argmax(errors.fillna(0)))]


def worst_place(error: npt.NDArray[np.float64]) -> Region:
    """The crop of a plane with the largest mean square."""
    size = [min(CROP, n) for n in error.shape]
    means = uniform_filter(np.square(error), size, mode="constant")
    inside = tuple(slice(s // 2, n - (s - 1) // 2) for s, n in zip(size, error.shape, strict=True))
    at = np.unravel_index(int(np.argmax(means[inside])), means[inside].shape)
    return tuple(slice(int(i), int(i) + s) for i, s in zip(at, size, strict=True))


def plot_worst(title: str, noisy: Path, entries: Mapping[str, Path], truth: Path | None, output: Path) -> None:
    """Draw, for each method, the worst crop of its worst plane: noisy, denoised, the reference, and the difference.

    Planes are judged by the scores in each method's folder. Without a reference the difference is to the noisy plane,
    and the worst plane is that of which most was removed.
    """
    heads = ["noisy", "denoised", *(["reference"] if truth else []), f"denoised − {'reference' if truth else 'noisy'}"]
    figure, axes = plt.subplots(
        len(entries), len(heads), figsize=(2.3 * len(heads) + 0.4, 2.5 * len(entries) + 0.3), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, (name, folder) in zip(axes, entries.items(), strict=True):
        row = worst_plane(pd.read_parquet(folder / "scores.parquet"), known=truth is not None)
        t, c, z = (int(row[axis]) for axis in "tcz")
        starts = [max(0, (n - LARGEST) // 2) for n in Volume(noisy).shape[3:]]
        plane = (*(slice(i, i + 1) for i in (t, c, z)), *(slice(start, start + LARGEST) for start in starts))
        images = {"noisy": pixels(noisy, plane), "denoised": pixels(folder / "denoised.ome.zarr", plane)}
        images["denoised"] = row["fit_gain"] * images["denoised"] + row["fit_offset"]
        if truth:
            images["noisy"] = row["fit_gain"] * images["noisy"] + row["fit_offset"]
            images["reference"] = pixels(truth, plane)
        difference = images["denoised"] - images["reference" if truth else "noisy"]
        place = worst_place(difference)
        low, high = np.percentile(images["reference" if truth else "denoised"][place], [0.5, 99.8])
        spread = float(np.percentile(np.abs(difference[place]), 99.5)) or 1.0
        for axis, head in zip(line, heads, strict=True):
            axis.set(xticks=[], yticks=[])
            if head in images:
                axis.imshow(images[head][place], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            else:
                axis.imshow(difference[place], cmap="RdBu_r", vmin=-spread, vmax=spread, interpolation="nearest")
                axis.set_xlabel(f"±{spread:.3g}", fontsize=8)
        line[0].set_ylabel(f"{name}\nt={t} c={c} z={z}", fontsize=8)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=9)
    figure.suptitle(f"{title}: where each method did worst", fontsize=10)
    save(figure, output, "figures", vector=False)
