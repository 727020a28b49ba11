"""Images, their differences, and lines through them."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ssdenoise.figures.crops import fitted, middle, pixels, richest
from ssdenoise.grid import Region
from ssdenoise.metrics import psnr
from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.store import Volume

#: Pixels along a line profile.
PROFILE = 96

#: Pixels a side of the inset, and its side as a share of the image's.
INSET, INSET_SHARE = 40, 0.42


def plot_images(title: str, noisy: Path, entries: Mapping[str, Path], truth: Path | None, output: Path) -> None:
    """Draw one plane as the noisy input, each method and the reference, with the differences below.

    All images of the first row have the same display range, that of the reference or, without one, of the first
    method's image; in their lower right corner stands, enlarged, the square in which that image varies most. So have
    all differences of the second row the same range, and the standard deviations behind them, from methods that have
    one. Without a reference the second row shows denoised minus noisy. Where the reference is in other units, images
    are mapped to these as their scores were. The PSNR is that of the pooled error, of the scores beside each store.
    """
    denoised = {name: folder / "denoised.ome.zarr" for name, folder in entries.items()}
    uncertainty = {name: folder / "uncertainty.ome.zarr" for name, folder in entries.items()}
    uncertainty = {name: path for name, path in uncertainty.items() if (path / "zarr.json").exists()}
    volume = Volume(noisy)
    place = middle(volume.shape)
    files = {"noisy": volume.path.parent / "noisy-scores.parquet"}
    files |= {name: folder / "scores.parquet" for name, folder in entries.items()}
    scores = {name: pd.read_parquet(file) for name, file in files.items()}
    images = {
        name: fitted(pixels(path, place), scores[name], place) for name, path in ({"noisy": noisy} | denoised).items()
    }
    shown = images | ({"reference": pixels(truth, place)} if truth else {})
    base = shown["reference"] if truth else images["noisy"]
    low, high = np.percentile(shown["reference"] if truth else images[next(iter(denoised))], [0.5, 99.8])
    differences = {name: image - base for name, image in images.items()}
    spread = 3 * float(np.median([np.std(d) for name, d in differences.items() if name != "noisy"]) or 1.0)
    extra = {f"std. dev. ({name})": pixels(path, place) for name, path in uncertainty.items()}
    most = max((float(np.percentile(image, 99.8)) for image in extra.values()), default=0.0)
    columns = max(len(shown), len(images) + len(extra))
    detail = richest(np.clip(base if truth else images[next(iter(denoised))], low, high), INSET, INSET_SHARE)
    figure, axes = plt.subplots(2, columns, figsize=(2.3 * columns, 5.1), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes[0], shown.items(), strict=False):
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        _enlarge(axis, image, detail, low, high)
        axis.set_title(f"{name}\n{_decibels(scores[name]) if name in scores else ''}", fontsize=9)
    for axis, (name, image) in zip(axes[1], differences.items(), strict=False):
        if truth or name != "noisy":
            axis.imshow(image, cmap="RdBu_r", vmin=-spread, vmax=spread, interpolation="nearest")
            axis.set_title(f"{name} − {'reference' if truth else 'noisy'}", fontsize=8)
    for axis, (name, image) in zip(axes[1][len(differences) :], extra.items(), strict=False):
        axis.imshow(image, cmap="viridis", vmin=0, vmax=most, interpolation="nearest")
        axis.set_title(name, fontsize=8)
    t, c, z = (s.start for s in place[:3])
    height, width = base.shape
    ranges = f"images {low:.4g} to {high:.4g}, differences ±{spread:.3g}, red: above 0"
    ranges += f", std. dev. 0 to {most:.3g}" if extra else ""
    text = f"{title}: middle {height}x{width} pixels of plane t={t} c={c} z={z}; {ranges}"
    figure.suptitle(textwrap.fill(text, 30 * columns), fontsize=9)
    save(figure, output, "figures", vector=False)


def _decibels(scores: pd.DataFrame) -> str:
    """PSNR of a volume; nothing without a truth."""
    value = psnr(scores["mean_squared_error"].mean(), scores["data_range"].iloc[0])
    return f"{value:.2f} dB" if np.isfinite(value) else ""


def _enlarge(axis: Axes, image: npt.NDArray[np.float64], place: Region, low: float, high: float) -> None:
    """Show a part of an image enlarged in its corner, and where it lies."""
    y, x = place
    corner, size = (x.start - 0.5, y.start - 0.5), (x.stop - x.start, y.stop - y.start)
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=COLOURS[4], linewidth=0.8))
    inset = axis.inset_axes((1 - INSET_SHARE, 0, INSET_SHARE, INSET_SHARE))
    inset.imshow(image[place], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color=COLOURS[4], linewidth=0.8)


def plot_profiles(title: str, noisy: Path, entries: Mapping[str, Path], truth: Path | None, output: Path) -> None:
    """Draw intensity along a piece of a row of the crop that `plot_images` shows, and where it lies.

    It is the row, and of that the piece, in which the reference or, without one, the first method's image varies most.
    """
    place = middle(Volume(noisy).shape)
    images = {name: pixels(folder / "denoised.ome.zarr", place) for name, folder in entries.items()}
    base = pixels(truth, place) if truth else next(iter(images.values()))
    row = int(np.argmax(base.std(axis=1)))
    length = min(PROFILE, base.shape[1])
    pieces = np.lib.stride_tricks.sliding_window_view(base[row], length)
    start = int(np.argmax(pieces.std(axis=1)))
    columns = slice(start, start + length)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), width_ratios=(1, 2.6), layout="constrained")
    low, high = np.percentile(base, [0.5, 99.8])
    left.imshow(base, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    left.plot([start, start + length - 1], [row, row], color=COLOURS[4], linewidth=1.5)
    left.axis("off")
    left.set_title("reference" if truth else next(iter(images)), fontsize=9)
    x = np.arange(start, start + length) + place[4].start
    right.plot(x, pixels(noisy, place)[row, columns], color="0.75", linewidth=0.8, label="noisy")
    if truth:
        right.plot(x, base[row, columns], color="black", linewidth=2, label="reference")
    for colour, (name, image) in zip(itertools.cycle(COLOURS[:-1]), images.items(), strict=False):
        right.plot(x, image[row, columns], color=colour, linewidth=1.1, label=name)
    right.set(xlabel="x / voxels", ylabel="intensity")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    t, c, z = (s.start for s in place[:3])
    figure.suptitle(f"{title}: row y={row + place[3].start} of plane t={t} c={c} z={z}", fontsize=10)
    save(figure, output, "figures")
