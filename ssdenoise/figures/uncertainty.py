"""Whether a stated uncertainty is right."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdenoise.figures.crops import spread
from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.store import Volume

#: Bins of the stated uncertainty.
BINS = 20


def reliability(
    stated: npt.NDArray[np.float64], error: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Stated standard deviation and error, root mean squares, in bins of equally many voxels by the stated one."""
    bins = [one for one in np.array_split(np.argsort(stated, kind="stable"), BINS) if len(one)]
    x, y = (np.array([np.sqrt(np.mean(values[one] ** 2)) for one in bins]) for values in (stated, error))
    return x, y


def plot_uncertainty(title: str, entries: Mapping[str, Path], truth: Path, output: Path) -> None:
    """Draw the error that a method makes where it states a certain standard deviation: equal, if it is right.

    Both as root mean square, over bins of equally many voxels by the stated one. Noise of a reference counts as error.
    """
    places = spread(Volume(truth).shape)

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
