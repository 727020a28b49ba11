"""TIFF: OME-TIFF, ImageJ, BigTIFF and plain ones, page by page."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from ssdenoise.grid import Region
from ssdenoise.ingest.source import (
    CHUNK_BYTES,
    Source,
    VoxelSize,
    check_claim,
    in_memory,
    in_one_piece,
    lazy,
    picked,
    reading,
)
from ssdenoise.remote import Remote
from ssdenoise.store import WHITE

#: Micrometres of the units that OME and ImageJ know for lengths; in OME micrometres are meant where none is named.
UNITS = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "pm": 1e-6, "in": 25400.0}
UNITS |= {"micron": 1.0, "microns": 1.0, "\\u00B5m": 1.0, "inch": 25400.0, "meter": 1e6}

#: Micrometres from which a pixel is a printer's dot, which programs write where nothing is known: one a centimetre, or
#: 72 an inch.
DOT_UM = 300.0


def read_tiff(path: Path | Remote, part: str | None) -> Source:
    """A series, by its number or name; planes that were written one by one, and are alike, are one along an axis I."""
    tiff = tifffile.TiffFile(path.open(), name=path.name) if isinstance(path, Remote) else tifffile.TiffFile(path)
    try:
        _check_whole(tiff, path)
        first = tiff.series[0]
        if part is None and len(tiff.series) > 1 and first.axes in ("YX", "YXS") and _alike(tiff.series):
            planes = da.stack([_array(tiff, number, path) for number in range(len(tiff.series))])
            size = _said(tiff, 0).voxel_size_um
            # nothing is said of how far the planes are from each other
            return Source(planes, "i" + first.axes.lower(), size and (None, *size[1:]), close=tiff.close)
        number = picked(part, [one.name for one in tiff.series], "scene")
        array, axes, said = _array(tiff, number, path), tiff.series[number].axes.lower(), _said(tiff, number)
        return Source(array, axes, said.voxel_size_um, said.channels, said.colors, close=tiff.close)
    except BaseException:
        tiff.close()
        raise


def _check_whole(tiff: tifffile.TiffFile, path: Path | Remote) -> None:
    """Refuse a file that ends before its pages do."""
    images = (tiff.imagej_metadata or {}).get("images", 1)
    if tiff.series[0].kind != "imagej" and images > len(tiff.pages):  # so it was read as one of another kind
        raise ValueError(f"its description speaks of {images} planes, it has {len(tiff.pages)}")
    if isinstance(path, Remote):  # a request for each page: what is missing shows when it is read
        if len(set(re.findall('FileName="([^"]*)"', tiff.ome_metadata or ""))) > 1:
            raise ValueError("its planes are in several files, which have to be in a folder")
        return
    for series in tiff.series:
        expected: Counter[tifffile.TiffFile] = Counter()  # planes of OME-TIFF may be in several files
        for page in _present(series):
            expected[page.parent] += sum(page.databytecounts)
        for file, size in expected.items():
            if size > file.filehandle.size:
                raise ValueError(f"pages of {file.filename} add up to {size} bytes, it has {file.filehandle.size}")


def _present(series: tifffile.TiffPageSeries) -> list[Any]:
    """Pages that are in a file: OME-TIFF may lack some."""
    return [page for page in series.pages if page is not None]


def _alike(series: Sequence[tifffile.TiffPageSeries]) -> bool:
    return len({(one.shape, one.dtype, one.axes) for one in series}) == 1


def _array(tiff: tifffile.TiffFile, number: int, path: Path | Remote) -> da.Array:
    series = tiff.series[number]
    if series.dataoffset is not None and series.keyframe.parent is tiff:  # uncompressed and in one piece
        dtype = tiff.byteorder + series.dtype.char
        return in_one_piece(path, series.dataoffset, series.shape, dtype, series.axes.lower())
    return _segments(tiff, series) if series.keyframe.nbytes > CHUNK_BYTES else _pages(series, path)


def _segments(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> da.Array:
    """A series with large pages, by rows of tiles or strips."""
    tiff.filehandle.set_lock(True)  # they are read in several threads
    array = zarr.open_array(series.aszarr(), mode="r")
    chunks = list(array.chunks)
    for axis, name in enumerate(series.axes.lower()):
        if name not in "tczy":
            chunks[axis] = array.shape[axis]
    y = series.axes.lower().index("y")
    chunks[y] *= max(1, CHUNK_BYTES // (math.prod(chunks) * array.dtype.itemsize))
    rows: da.Array = da.from_array(array, chunks=tuple(chunks), name=False)
    return rows


def _pages(series: tifffile.TiffPageSeries, path: Path | Remote) -> da.Array:
    """The pages of a series, each read when it is asked for."""
    page: tuple[int, ...] = series.keyframe.shape
    lead = series.shape[: series.ndim - len(page)]
    if series.shape[len(lead) :] != page or len(series.pages) != np.prod(lead, dtype=int):
        check_claim(path, series.shape, series.nbytes)
        return in_memory(series.asarray(), series.axes.lower())
    for file in {page.parent for page in _present(series)}:
        file.filehandle.open()  # other files than the first were closed; all are, with the first
        file.filehandle.set_lock(True)  # pages are read in several threads

    def read(region: Region) -> npt.NDArray[Any]:
        with reading(path):
            index = [one.start for one in region[: len(lead)]]
            one = series.pages[int(np.ravel_multi_index(index, lead)) if lead else 0]
            values = np.zeros(page, series.dtype) if one is None else one.asarray()
            return np.asarray(values).reshape((1,) * len(lead) + page)

    return lazy(read, series.shape, (*[1] * len(lead), *page), series.dtype)


@dataclass(frozen=True)
class _Said:
    """What a TIFF says of one of its images."""

    voxel_size_um: VoxelSize | None = None
    channels: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()


def _said(tiff: tifffile.TiffFile, number: int) -> _Said:
    """Voxel size, channel names and colours, from OME or ImageJ metadata."""
    if tiff.is_ome and tiff.ome_metadata:
        images = [node for node in ElementTree.fromstring(tiff.ome_metadata).iter() if _tag(node) == "Pixels"]
        return _ome(images[number]) if number < len(images) else _Said()
    imagej = tiff.imagej_metadata or {}
    colors = tuple(_hexadecimal(lut[:, -1]) for lut in imagej.get("LUTs", ()))
    z, y, x = (UNITS.get(str(imagej.get(f"{axis}unit", imagej.get("unit"))), 0) for axis in "zyx")  # mostly one for all
    tags = tiff.pages.first.tags
    if not (y and x) or not all(name in tags and tags[name].value[0] for name in ("XResolution", "YResolution")):
        return _Said(colors=colors)
    x, y = (unit * tags[name].value[1] / tags[name].value[0] for unit, name in ((x, "XResolution"), (y, "YResolution")))
    if max(x, y) >= DOT_UM:
        return _Said(colors=colors)
    return _Said((z * float(imagej.get("spacing", 0)) or None, y, x), colors=colors)


def _hexadecimal(brightest: Sequence[int]) -> str:
    """The colour that a channel's highest intensity has; white for a channel that is shown as a negative."""
    return "".join(f"{part:02X}" for part in brightest) if any(brightest) else WHITE


def _ome(pixels: ElementTree.Element) -> _Said:
    channels = [node.attrib for node in pixels if _tag(node) == "Channel"]
    names = [channel.get("Name") or f"channel {i}" for i, channel in enumerate(channels)]
    # red, green, blue, alpha in the bytes of a signed integer; white where none is named
    colors = [f"{int(channel.get('Color', '-1')) % 2**32 >> 8:06X}" for channel in channels]
    given = {axis: pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"}
    units = {axis: UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"}
    sizes = {axis: float(n) * unit for axis, n in given.items() if n and (unit := units[axis])}
    size = (sizes.get("Z"), sizes["Y"], sizes["X"]) if {"Y", "X"} <= sizes.keys() else None
    return _Said(size, tuple(names), tuple(colors))


def _tag(node: ElementTree.Element) -> str:
    """Name without the namespace, which differs between versions of the schema."""
    return node.tag.rpartition("}")[2]
