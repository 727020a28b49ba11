"""Readers of files, by the end of their names: a lazy array with named axes, and what the file says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import tifffile

from ssdenoise.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Source:
    """A lazy array with named axes, and what its file says of them.

    Attributes
    ----------
    array : dask.array.Array
        Its chunks are what the file gives at once; each is read when it is asked for.
    axes : str
        Lower case.
    voxel_size_um : tuple of float, optional
        Z, Y, X.
    channels : tuple of str
        Names; empty if the file has none.
    close : callable
        Closes the file, after which nothing can be read any more.
    """

    array: da.Array
    axes: str
    voxel_size_um: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()
    close: Callable[[], None] = field(default=lambda: None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Faults of a file as one clear sentence: readers raise whatever their parsing stumbled over."""
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise FormatError(f"{path} cannot be read as {path.suffix[1:].lower()} ({why}); is it whole?") from error


def in_memory(array: npt.NDArray[Any]) -> da.Array:
    """An array that is there: any part of it can be had, planes are taken for what is best read at once."""
    chunks = [1] * max(0, array.ndim - 2) + [-1] * min(2, array.ndim)
    lazy: da.Array = da.from_array(array, chunks=tuple(chunks), name=False)
    return lazy


def _read_tiff(path: Path) -> Source:
    tiff = tifffile.TiffFile(path)
    try:
        series = tiff.series[0]
        expected = sum(sum(page.databytecounts) for page in series.pages if page is not None)
        if expected > path.stat().st_size:
            raise ValueError(f"its pages add up to {expected} bytes, the file has {path.stat().st_size}")
        axes, size = series.axes.lower(), _tiff_voxel_size(tiff)
        if series.dataoffset is not None:  # uncompressed and in one piece
            with_map = in_memory(tifffile.memmap(path, series=0, mode="r"))
            tiff.close()
            return Source(with_map, axes, size)
        return Source(_pages(tiff, path), axes, size, close=tiff.close)
    except BaseException:
        tiff.close()
        raise


def _pages(tiff: tifffile.TiffFile, path: Path) -> da.Array:
    """The pages of a TIFF's first series, each read when it is asked for."""
    series = tiff.series[0]
    page: tuple[int, ...] = series.keyframe.shape
    lead = series.shape[: series.ndim - len(page)]
    if series.shape[len(lead) :] != page or len(series.pages) != np.prod(lead, dtype=int):
        return in_memory(series.asarray())
    tiff.filehandle.set_lock(True)  # pages are read in several threads

    def read(block_id: tuple[int, ...]) -> npt.NDArray[Any]:
        with reading(path):
            one = series.pages[int(np.ravel_multi_index(block_id[: len(lead)], lead)) if lead else 0]
            values = np.zeros(page, series.dtype) if one is None else one.asarray()
            return np.asarray(values).reshape((1,) * len(lead) + page)

    chunks = (*((1,) * n for n in lead), *((n,) for n in page))
    meta = np.empty((0,) * series.ndim, series.dtype)
    lazy: da.Array = da.map_blocks(read, chunks=chunks, dtype=series.dtype, meta=meta)
    return lazy


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
        return Source(in_memory(np.asarray(ptu[...])), axes, (step["y"], step["y"], step["x"]))


def _read_sdt(path: Path) -> Source:
    """Becker & Hickl photon counts: Y, X and H, the photon's arrival time."""
    import sdtfile

    with sdtfile.SdtFile(path) as sdt:
        return Source(in_memory(sdt.data[0]), "yxh" if sdt.data[0].ndim == 3 else "yx")


def _read_picture(path: Path) -> Source:
    """PNG or JPEG, grey or RGB."""
    from imageio import v3 as imageio

    # from memory, as the reader leaves a file open that it cannot read
    found = imageio.improps(path.read_bytes())

    def read() -> npt.NDArray[Any]:
        with reading(path):
            return np.asarray(imageio.imread(path.read_bytes()))

    chunks = tuple((n,) for n in found.shape)
    array = da.map_blocks(read, chunks=chunks, dtype=found.dtype, meta=np.empty((0,) * len(chunks), found.dtype))
    return Source(array, "yx" if len(found.shape) == 2 else "yxc")


def _read_npy(path: Path) -> Source:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Source(in_memory(array), "tczyx"[-array.ndim :])


READERS: dict[str, Callable[[Path], Source]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".ptu": _read_ptu,
    ".sdt": _read_sdt,
    ".npy": _read_npy,
    ".png": _read_picture,
    ".jpg": _read_picture,
}
