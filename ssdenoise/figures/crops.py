"""What the figures show of a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter

from ssdenoise.grid import Region
from ssdenoise.store import Volume

#: Pixels a side of the crop that is shown.
CROP = 256

#: Planes that statistics are taken of, spread over the depth, and pixels a side of each.
PLANES, SIDE = 16, 512


def middle(shape: tuple[int, ...]) -> Region:
    """Central crop of the middle plane."""
    starts = [max(0, (n - CROP) // 2) for n in shape[3:]]
    crop = (slice(start, start + min(CROP, n)) for start, n in zip(starts, shape[3:], strict=True))
    return (*(slice(n // 2, n // 2 + 1) for n in (shape[0], 1, shape[2])), *crop)


def pixels(path: Path, place: Region) -> npt.NDArray[np.float64]:
    """The plane of a place."""
    return np.asarray(Volume(path).read(place)[0, 0, 0], np.float64)


def fitted(image: npt.NDArray[np.float64], scores: pd.DataFrame, place: Region) -> npt.NDArray[np.float64]:
    """A plane in the units of the reference, as it was scored."""
    t, c, z = (s.start for s in place[:3])
    row = scores[(scores["t"] == t) & (scores["c"] == c) & (scores["z"] == z)].iloc[0]
    return np.asarray(row["fit_gain"] * image + row["fit_offset"])


def richest(image: npt.NDArray[np.float64], side: int, covered: float) -> Region:
    """The square of an image (Y, X) that varies most, clear of the lower right corner, `covered` of each side."""
    size = [min(side, max(1, n // 4)) for n in image.shape]
    mean, square = (uniform_filter(values, size, mode="constant") for values in (image, image**2))
    variance = square - mean**2
    starts = [s // 2 for s in size]
    inside = tuple(slice(a, n - (s - 1 - a)) for a, n, s in zip(starts, image.shape, size, strict=True))
    variance = variance[inside]
    y, x = (max(0, int((1 - covered) * n) - s) for n, s in zip(image.shape, size, strict=True))
    variance[y:, x:] = -1
    y, x = np.unravel_index(int(np.argmax(variance)), variance.shape)
    return slice(int(y), int(y) + size[0]), slice(int(x), int(x) + size[1])


def spread(shape: tuple[int, ...]) -> list[Region]:
    """Central crops of planes over the depth of the middle time point, all channels."""
    rows, columns = (slice(max(0, (n - SIDE) // 2), max(0, (n - SIDE) // 2) + min(n, SIDE)) for n in shape[3:])
    planes = np.unique(np.linspace(0, shape[2] - 1, PLANES).round().astype(int)).tolist()
    return [(slice(shape[0] // 2, shape[0] // 2 + 1), slice(None), slice(z, z + 1), rows, columns) for z in planes]
