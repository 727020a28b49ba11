"""Planes of a scene's volumes as 8-bit pictures, each at one display range, as many and as large as a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdenoise.report.collect import Scene, finished
from ssdenoise.report.facts import short
from ssdenoise.store import Volume

#: Planes and pixels a side of what is shown, the most first.
CHOICES = ((5, 512), (5, 384), (3, 384), (3, 256), (1, 256), (1, 128), (1, 64))

#: Characters of base64 a pixel of a picture takes at most, and besides: noise does not compress.
A_PIXEL, A_PICTURE = 1.02 * 4 / 3, 400

#: Shares of the voxels that are darker and brighter than what the display tells apart, as in the figures.
DARK, BRIGHT = 0.5, 99.8

FloatImage = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """What is shown of a volume: time point, channel, planes, and the crop of each."""

    t: int
    c: int
    planes: tuple[int, ...]
    rows: slice
    columns: slice

    @property
    def first(self) -> int:
        """Index of the middle plane, which is shown first."""
        return len(self.planes) // 2


def place_of(shape: tuple[int, ...], pictures: int, budget: float) -> Place | None:
    """The most of a volume of some shape (TCZYX) that so many pictures a plane can show in a budget of characters.

    Planes are the middles of as many equal parts of the depth, so that the middle one is that of the volume; the crop
    is at full resolution around the middle. None if the budget is too small for anything.
    """
    t, c, z, height, width = shape
    for planes, side in CHOICES:
        n, rows, columns = min(planes, z), _middle(height, side), _middle(width, side)
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        if n * pictures * (pixels * A_PIXEL + A_PICTURE) <= budget:
            indices = tuple((2 * i + 1) * z // (2 * n) for i in range(n))
            return Place(t // 2, c // 2, indices, rows, columns)
    return None


def _middle(n: int, side: int) -> slice:
    start = max(0, (n - side) // 2)
    return slice(start, start + min(n, side))


def viewer(scene: Scene, budget: float, psnr: Mapping[str, str]) -> dict[str, Any] | None:
    """Pictures of the noisy volume, of each method entry and of the reference, as JSON for the page's viewer.

    Parameters
    ----------
    scene : Scene
    budget : float
        Characters that they may take.
    psnr : mapping
        What the comparison says of each method entry.

    Returns
    -------
    dict or None
        None if there is no noisy volume, or no room.
    """
    noisy = scene.folder / "noisy-0.ome.zarr"
    if not finished(noisy):
        return None
    stores = {"noisy": noisy} | {entry: folder / "denoised.ome.zarr" for entry, folder in scene.shown.items()}
    truth = scene.truth if scene.truth and finished(scene.truth) else None
    uncertain = {entry: folder / "uncertainty.ome.zarr" for entry, folder in scene.shown.items()}
    uncertain = {entry: store for entry, store in uncertain.items() if finished(store)}
    volume = Volume(noisy)
    place = place_of(volume.shape, len(stores) + len(uncertain) + bool(truth), budget)
    if place is None:
        return None

    fitted = scene.reference_fit == "affine"
    if truth:
        base = [_reference(truth, noisy, place, i, fitted) for i in _all(place)]
    else:
        store = [*stores.values()][:2][-1]  # that of the first method entry, if there is any
        base = [_read(store, place, i) for i in _all(place)]
    ranges = [_range(plane) for plane in base]
    images = [
        {
            "name": name,
            "psnr": psnr.get(name, ""),
            "planes": [_picture(_read(store, place, i), *ranges[i]) for i in _all(place)],
        }
        for name, store in stores.items()
    ]
    if truth:
        name = truth.name.partition(".")[0] + (", fitted to the noisy plane" if fitted else "")
        images.append({"name": name, "psnr": "", "planes": [_picture(base[i], *ranges[i]) for i in _all(place)]})
    most = max((Volume(store).intensities()[place.c].quantile(BRIGHT / 100) for store in uncertain.values()), default=0)
    return {
        "title": scene.title,
        "planes": list(place.planes),
        "first": place.first,
        "height": place.rows.stop - place.rows.start,
        "width": place.columns.stop - place.columns.start,
        "images": images,
        "reference": len(images) - 1 if truth else None,
        "truth": {"benchmark": "clean volume", "reference": "reference"}.get(scene.situation),
        "uncertainty": {
            entry: [_picture(_read(store, place, i), 0.0, most or 1.0) for i in _all(place)]
            for entry, store in uncertain.items()
        },
        "ranges": [f"{short(low)} to {short(high)}" for low, high in ranges],
        "said": _said(volume, place, most),
    }


def _all(place: Place) -> range:
    return range(len(place.planes))


def _range(plane: FloatImage) -> tuple[float, float]:
    """Display range of all images of a plane: planes can differ much, as in depth or as light decays."""
    low, high = (float(value) for value in np.percentile(plane, [DARK, BRIGHT]))
    return low, high if high > low else low + 1.0


def _said(volume: Volume, place: Place, most: float) -> dict[str, str]:
    """What is shown, in words."""
    t, c, z, height, width = volume.shape
    rows, columns = place.rows, place.columns
    where = f"{len(place.planes)} of {z} planes, z = {', '.join(map(str, place.planes))}"
    where += f", counted from 0; rows {rows.start} to {rows.stop - 1} of {height}, columns {columns.start} to "
    where += f"{columns.stop - 1} of {width}, at full resolution"
    where += f"; time point {place.t} of {t}" if t > 1 else ""
    where += f"; channel {place.c} of {c} ({volume.metadata.channels[place.c]})" if c > 1 else ""
    return {"where": where, "uncertainty": f"0 to {short(most)}"}


def _read(store: Path, place: Place, index: int) -> FloatImage:
    z = place.planes[index]
    region = (slice(place.t, place.t + 1), slice(place.c, place.c + 1), slice(z, z + 1), place.rows, place.columns)
    return np.asarray(Volume(store).read(region)[0, 0, 0], np.float64)


def _reference(truth: Path, noisy: Path, place: Place, index: int, fitted: bool) -> FloatImage:
    """A plane of the reference; fitted, in the units of the noisy one, by the gain and offset of least squares."""
    plane = _read(truth, place, index)
    if not fitted or np.ptp(plane) == 0:
        return plane
    gain, offset = np.polyfit(plane.ravel(), _read(noisy, place, index).ravel(), 1)
    return np.asarray(gain * plane + offset)


def _picture(plane: FloatImage, low: float, high: float) -> str:
    """A plane as 8-bit greyscale PNG in base64; the same plane always gives the same bytes."""
    grey = np.clip((plane - low) / (high - low), 0, 1) * 255
    file = io.BytesIO()
    Image.fromarray(grey.round().astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
