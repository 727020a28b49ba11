"""Figures: the pictures of one dataset at one noise level."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume

#: Pixels a side of the crop that is shown.
CROP = 256

#: Pixels along a line profile.
PROFILE = 96

#: Bins of the stated uncertainty, planes that its test reads, and pixels a side of each.
BINS, PLANES, SIDE = 20, 16, 512


def figures(
    title: str,
    noisy: Path,
    entries: Mapping[str, Path],
    truth: Path | None,
    comparison: Path,
    output: Path,
    *,
    models: Mapping[str, Path] | None = None,
    fitted: bool = False,
) -> None:
    """Draw images, line profiles, training curves and the test of the uncertainty of a dataset at one noise level.

    Parameters
    ----------
    title : str
        ``dataset/noise``, as in the comparison.
    noisy : Path
        Store of the noisy volume.
    entries : mapping
        Method entry, and the folder that `denoise` wrote.
    truth : Path or None
        Store of the clean volume or the reference.
    comparison : Path
        The run's `comparison.csv`.
    output : Path
        Folder for `images.png`, `profiles.png`, `training.png` and, where there is a truth in the units of the noisy
        volume and a method with an uncertainty, `uncertainty.png`; all but images also as PDF.
    models : mapping, optional
        Method entry, and the folder of its model, of those that lie elsewhere: in a group's folder, or another
        dataset's.
    fitted : bool
        Whether the reference is in other units, so that nothing is drawn on one axis with it.
    """
    plot_images(title, noisy, entries, truth, comparison, output / "images.png")
    comparable = None if fitted else truth
    plot_profiles(title, noisy, entries, comparable, output / "profiles.png")
    uncertain = {
        name: folder for name, folder in entries.items() if (folder / "uncertainty.ome.zarr/zarr.json").exists()
    }
    if comparable and uncertain:
        plot_uncertainty(title, uncertain, comparable, output / "uncertainty.png")
    plot_training(entries, {**entries, **(models or {})}, title, output / "training.png")


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
    save(figure, output, "figures", vector=False)


def plot_profiles(title: str, noisy: Path, entries: Mapping[str, Path], truth: Path | None, output: Path) -> None:
    """Draw intensity along a piece of a row of the crop that `plot_images` shows, and where it lies.

    It is the row, and of that the piece, in which the reference or, without one, the first method's image varies most.
    """
    place = _place(Volume(noisy).shape)
    images = {name: _image(folder / "denoised.ome.zarr", place) for name, folder in entries.items()}
    base = _image(truth, place) if truth else next(iter(images.values()))
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
    right.plot(x, _image(noisy, place)[row, columns], color="0.75", linewidth=0.8, label="noisy")
    if truth:
        right.plot(x, base[row, columns], color="black", linewidth=2, label="reference")
    for colour, (name, image) in zip(itertools.cycle(COLOURS[:-1]), images.items(), strict=False):
        right.plot(x, image[row, columns], color=colour, linewidth=1.1, label=name)
    right.set(xlabel="x / voxels", ylabel="intensity")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    t, c, z = (s.start for s in place[:3])
    figure.suptitle(f"{title}: row y={row + place[3].start} of plane t={t} c={c} z={z}", fontsize=10)
    save(figure, output, "figures")


def reliability(
    stated: npt.NDArray[np.float64], error: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Stated standard deviation and error, root mean squares, in bins of equally many voxels by the stated one."""
    bins = [one for one in np.array_split(np.argsort(stated, kind="stable"), BINS) if len(one)]
    x, y = (np.array([np.sqrt(np.mean(values[one] ** 2)) for one in bins]) for values in (stated, error))
    return x, y


def plot_uncertainty(title: str, entries: Mapping[str, Path], truth: Path, output: Path) -> None:
    """Draw the error that a method makes where it states a certain standard deviation: equal, if it is right.

    Both as root mean square, over bins of equally many voxels by the stated one, of central crops of planes spread over
    the depth of the middle time point, all channels. Noise of a reference counts as error.
    """
    shape = Volume(truth).shape
    rows, columns = (slice(max(0, (n - SIDE) // 2), max(0, (n - SIDE) // 2) + min(n, SIDE)) for n in shape[3:])
    planes = np.unique(np.linspace(0, shape[2] - 1, PLANES).round().astype(int)).tolist()
    places = [(slice(shape[0] // 2, shape[0] // 2 + 1), slice(None), slice(z, z + 1), rows, columns) for z in planes]

    def voxels(path: Path) -> npt.NDArray[np.float64]:
        volume = Volume(path)
        return np.concatenate([volume.read(place).ravel() for place in places]).astype(np.float64)

    true, most = voxels(truth), 0.0
    figure, axis = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    for colour, (name, folder) in zip(itertools.cycle(COLOURS[:-1]), entries.items(), strict=False):
        x, y = reliability(voxels(folder / "uncertainty.ome.zarr"), voxels(folder / "denoised.ome.zarr") - true)
        axis.plot(x, y, "o-", color=colour, markersize=4, label=name)
        most = max(most, float(x.max()), float(y.max()))
    axis.plot([0, most], [0, most], "--", color="0.5", linewidth=1, label="stated = actual")
    axis.set(xlabel="stated standard deviation", ylabel="error, root mean square", xlim=(0, None), ylim=(0, None))
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save(figure, output, "figures")


def plot_training(entries: Mapping[str, Path], models: Mapping[str, Path], title: str, output: Path) -> None:
    """Draw training and validation loss against the step, one panel per trained method.

    Below stand which models are not the dataset's own, and what was chosen where a method entry is a choice; a figure
    without panels says why.
    """
    curves, notes = {}, []
    for name, folder in models.items():
        history, choice = folder / "history.csv", folder / "choice.json"
        curve = pd.read_csv(history) if history.exists() else None
        if curve is not None and len(curve):
            curves[name] = curve
        if choice.exists():
            notes.append(f"{name}: {read_json(choice)['says']}")
        elif folder != entries[name] and (curve is None or len(curve)):
            notes.append(f"{name}: the model of {folder}" + ("" if name in curves else ", without a history"))
    if not curves and not notes:
        notes = ["nothing was trained: parameters were chosen by the noisy data, without steps"]
    columns = max(2, len(curves))
    text = "\n".join(textwrap.fill(note, 42 * columns, break_on_hyphens=False) for note in notes)
    lines = text.count("\n") + 1 if text else 0
    figure = plt.figure(figsize=(3.2 * columns, 2.6 * bool(curves) + 0.16 * lines + 0.4), layout="constrained")
    for column, (name, curve) in enumerate(curves.items(), 1):
        axis = figure.add_subplot(1, len(curves), column)
        dot = "o" if len(curve) == 1 else None  # a single one makes no line
        axis.plot(curve["step"], curve["loss"], color=COLOURS[0], label="training", marker=dot)
        axis.plot(curve["step"], curve["validation_loss"], color=COLOURS[1], label="validation", marker=dot)
        axis.set(title=name, xlabel="step")
        if column == 1:
            axis.set_ylabel("loss (differs by method)")
            axis.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(text, fontsize=8, x=0.02, ha="left")
    save(figure, output, "figures")


def _place(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Central crop of the middle plane."""
    starts = [max(0, (n - CROP) // 2) for n in shape[3:]]
    crop = (slice(start, start + min(CROP, n)) for start, n in zip(starts, shape[3:], strict=True))
    return (*(slice(n // 2, n // 2 + 1) for n in (shape[0], 1, shape[2])), *crop)


def _image(path: Path, place: tuple[slice, ...]) -> npt.NDArray[np.float64]:
    return np.asarray(Volume(path).read(place)[0, 0, 0], np.float64)
