"""Readers of files, by the end of their names: an array with named axes, and what the file says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


@dataclass
class Source:
    """An array with named axes, and what its file says of them."""

    array: npt.NDArray[Any]
    axes: str
    voxel_size_um: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()


def _read_tiff(path: Path) -> Source:
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        expected = sum(sum(page.databytecounts) for page in series.pages if page is not None)
        if expected > path.stat().st_size:
            raise ValueError(f"its pages add up to {expected} bytes, the file has {path.stat().st_size}")
        axes, size = series.axes.lower(), _tiff_voxel_size(tiff)
        try:
            array = (
                tiff.series[0].asarray(out="memmap") if series.dataoffset is None else tifffile.memmap(path, mode="r")
            )
        except ValueError:
            array = series.asarray()
    return Source(array, axes, size)


def _tiff_voxel_size(tiff: tifffile.TiffFile) -> tuple[float, float, float] | None:
    """Voxel size from ImageJ or OME metadata in micrometres; None where a file does not say."""
    if tiff.is_ome and tiff.ome_metadata:
        pixels = re.search(r"<(?:\w+:)?Pixels [^>]*>", tiff.ome_metadata)
        found = {axis: re.search(rf'PhysicalSize{axis}="([^"]+)"', pixels[0]) for axis in "ZYX"} if pixels else {}
        units = re.findall(r'PhysicalSize[ZYX]Unit="([^"]+)"', pixels[0]) if pixels else []
        if found.get("X") and found.get("Y") and all(unit in ("µm", "um") for unit in units):
            y, x = float(found["Y"][1]), float(found["X"][1])  # type: ignore[index]
            return (float(found["Z"][1]) if found["Z"] else y, y, x)
    imagej = tiff.imagej_metadata or {}
    if imagej.get("unit") in ("micron", "um", "µm", "\\u00B5m"):
        tags = tiff.pages.first.tags
        x, y = (tags[name].value[1] / tags[name].value[0] for name in ("XResolution", "YResolution"))
        return (float(imagej.get("spacing", y)), float(y), float(x))
    return None


def _read_ptu(path: Path) -> Source:
    """PicoQuant time-tagged photons as counts: T, Y, X, C and H, the photon's arrival time."""
    import ptufile

    with ptufile.PtuFile(path) as ptu:
        axes = "".join(ptu.dims).lower()
        step = {axis: float(np.diff(ptu.coords[axis.upper()][:2])[0]) * 1e6 for axis in "yx"}
        return Source(np.asarray(ptu[...]), axes, (step["y"], step["y"], step["x"]))


def _read_sdt(path: Path) -> Source:
    """Becker & Hickl photon counts: Y, X and H, the photon's arrival time."""
    import sdtfile

    with sdtfile.SdtFile(path) as sdt:
        return Source(sdt.data[0], "yxh" if sdt.data[0].ndim == 3 else "yx")


def _read_picture(path: Path) -> Source:
    """PNG or JPEG, grey or RGB."""
    from imageio import v3 as imageio

    array = imageio.imread(path.read_bytes())  # the reader leaves a file open that it cannot read
    return Source(array, "yx" if array.ndim == 2 else "yxc")


def _read_npy(path: Path) -> Source:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Source(array, "tczyx"[-array.ndim :])


READERS: dict[str, Callable[[Path], Source]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".ptu": _read_ptu,
    ".sdt": _read_sdt,
    ".npy": _read_npy,
    ".png": _read_picture,
    ".jpg": _read_picture,
}
