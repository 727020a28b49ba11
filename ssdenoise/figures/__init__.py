"""Figures: the pictures of one dataset at one noise level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssdenoise.figures.images import plot_images, plot_profiles
from ssdenoise.figures.residuals import plot_residuals
from ssdenoise.figures.training import plot_training
from ssdenoise.figures.uncertainty import plot_uncertainty
from ssdenoise.figures.worst import plot_worst


def figures(
    title: str,
    noisy: Path,
    calibration: Path,
    entries: Mapping[str, Path],
    truth: Path | None,
    output: Path,
    *,
    models: Mapping[str, Path] | None = None,
    fitted: bool = False,
) -> None:
    """Draw the figures of a dataset at one noise level.

    Parameters
    ----------
    title : str
        ``dataset/noise``, as in the comparison.
    noisy : Path
        Store of the noisy volume; its scores lie beside it, in `noisy-scores.parquet`.
    calibration : Path
        Its noise parameters.
    entries : mapping
        Method entry, and the folder that `denoise` and `score` wrote.
    truth : Path or None
        Store of the clean volume or the reference.
    output : Path
        Folder for `images.png`, `worst.png`, `profiles.png`, `residuals.png`, `training.png` and, where there is a
        truth in the units of the noisy volume and a method with an uncertainty, `uncertainty.png`; all but images and
        worst also as PDF.
    models : mapping, optional
        Method entry, and the folder of its model, of those that lie elsewhere: in a group's folder, or another
        dataset's.
    fitted : bool
        Whether the reference is in other units, so that no intensities are drawn on one axis with it.
    """
    plot_images(title, noisy, entries, truth, output / "images.png")
    comparable = None if fitted else truth
    plot_profiles(title, noisy, entries, comparable, output / "profiles.png")
    uncertain = {
        name: folder for name, folder in entries.items() if (folder / "uncertainty.ome.zarr/zarr.json").exists()
    }
    if comparable and uncertain:
        plot_uncertainty(title, uncertain, comparable, output / "uncertainty.png")
    plot_worst(title, noisy, entries, truth, output / "worst.png")
    plot_residuals(title, noisy, calibration, entries, output / "residuals.png")
    plot_training(entries, {**entries, **(models or {})}, title, output / "training.png")
