"""Figures: the pictures of one dataset at one noise level."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.store import Volume

#: Pixels a side of the crop that is shown.
CROP = 256


def figures(
    title: str,
    noisy: Path,
    entries: Mapping[str, Path],
    truth: Path | None,
    comparison: Path,
    output: Path,
) -> None:
    """Draw images and training curves of a dataset at one noise level.

    Parameters
    ----------
    title : str
        ``dataset/noise``, as in the comparison.
    noisy : Path
        Store of the noisy volume.
    entries : mapping
        Method entry, and the folder that `train` and `denoise` wrote.
    truth : Path or None
        Store of the clean volume or the reference.
    comparison : Path
        The run's `comparison.csv`.
    output : Path
        Folder for `images.png` and `training.png`.
    """
    plot_images(title, noisy, entries, truth, comparison, output / "images.png")
    plot_training({name: folder / "history.csv" for name, folder in entries.items()}, title, output / "training.png")


def plot_images(
    title: str, noisy: Path, entries: Mapping[str, Path], truth: Path | None, comparison: Path, output: Path
) -> None:
    """Draw one plane as the noisy input, each method and the reference, with the differences below.

    All images of the first row have the same display range, that of the reference or, without one, of the first
    method's image; so have all differences of the second row, and the standard deviations behind them, from methods
    that have one. Without a reference the second row shows denoised minus noisy.
    """
    denoised = {name: folder / "denoised.ome.zarr" for name, folder in entries.items()}
    uncertainty = {name: folder / "uncertainty.ome.zarr" for name, folder in entries.items()}
    uncertainty = {name: path for name, path in uncertainty.items() if (path / "zarr.json").exists()}
    volume = Volume(noisy)
    place = _place(volume.shape)
    images = {"noisy": _image(noisy, place)} | {name: _image(path, place) for name, path in denoised.items()}
    shown = images | ({"reference": _image(truth, place)} if truth else {})
    base = shown["reference"] if truth else images["noisy"]
    low, high = np.percentile(shown["reference"] if truth else images[next(iter(denoised))], [0.5, 99.8])
    scores = pd.read_csv(comparison)
    # the first seed's, which is the one shown
    scores = scores[scores["dataset"] + "/" + scores["noise"] == title].drop_duplicates("method").set_index("method")

    differences = {name: image - base for name, image in images.items()}
    spread = 3 * float(np.median([np.std(d) for name, d in differences.items() if name != "noisy"]) or 1.0)
    extra = {f"std. dev. ({name})": _image(path, place) for name, path in uncertainty.items()}
    most = max((float(np.percentile(image, 99.8)) for image in extra.values()), default=0.0)
    columns = max(len(shown), len(images) + len(extra))
    figure, axes = plt.subplots(2, columns, figsize=(2.3 * columns, 5.1), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes[0], shown.items(), strict=False):
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        value = scores["psnr"].get(name)
        axis.set_title(
            f"{name}\n{value:.2f} dB" if value is not None and np.isfinite(value) else f"{name}\n", fontsize=9
        )
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
    save(figure, output, "figures")


def plot_training(histories: Mapping[str, Path], title: str, output: Path) -> None:
    """Draw training and validation loss against the step, one panel per trained method."""
    # a dataset that another one's models denoise has no training of its own
    curves = {name: pd.read_csv(path) for name, path in histories.items() if path.exists()}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    figure, axes = plt.subplots(
        1, max(1, len(curves)), figsize=(3.2 * max(1, len(curves)), 2.6), squeeze=False, layout="constrained"
    )
    for axis, (name, curve) in zip(axes[0], curves.items(), strict=False):
        axis.plot(curve["step"], curve["loss"], color=COLOURS[0], label="training")
        axis.plot(curve["step"], curve["validation_loss"], color=COLOURS[1], label="validation")
        axis.set(title=name, xlabel="step")
    axes[0][0].set_ylabel("loss (differs by method)")
    if curves:
        axes[0][0].legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    save(figure, output, "figures")


def _place(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Central crop of the middle plane."""
    starts = [max(0, (n - CROP) // 2) for n in shape[3:]]
    crop = (slice(start, start + min(CROP, n)) for start, n in zip(starts, shape[3:], strict=True))
    return (*(slice(n // 2, n // 2 + 1) for n in (shape[0], 1, shape[2])), *crop)


def _image(path: Path, place: tuple[slice, ...]) -> npt.NDArray[np.float64]:
    return np.asarray(Volume(path).read(place)[0, 0, 0], np.float64)
