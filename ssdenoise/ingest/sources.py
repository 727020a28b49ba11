"""Sources: a file or the planes of a folder, and what to take of the array."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.ingest.readers import READERS, REMOTE_READERS, Reader, reader_of
from ssdenoise.ingest.source import Source, check_claim, file_size, reading
from ssdenoise.provenance import companions, listed
from ssdenoise.remote import Remote, located

#: Operations on a named axis that may follow the path in a source, `path#t=1:5&mean=t`, applied in order.
SELECTION = re.compile(
    r"(?P<axis>[a-z])=(?P<start>\d+)(?P<slice>:(?P<stop>\d+))?|(?P<op>mean|sum)=(?P<over>[a-z])|bin=(?P<along>[a-z]):(?P<by>\d+)"
)


def read_source(source: str, root: Path, axes: str | None) -> Source:
    """Open a source and apply its selection; axes in lower case.

    Parameters
    ----------
    source : str
        A path or URL, or a pattern with `*` for planes of a volume, one a file; after `#` which image of the file
        (`scene=NAME` or `dataset=NAME`, or their number), what to take of the array, see `SELECTION`, and `landscape`
        to turn upright planes.
    root : Path
        Folder that the path starts from.
    axes : str or None
        Axes of the file's array where the file does not say, or says something else.
    """
    name, _, selection = source.partition("#")
    steps = list(filter(None, selection.split("&")))
    parts = [step.partition("=")[2] for step in steps if step.startswith(("scene=", "dataset="))]
    steps = [step for step in steps if not step.startswith(("scene=", "dataset="))]
    part, paths = parts[0] if parts else None, source_files(located(root, name))
    found = _read(paths[0], part) if "*" not in name else _stacked(paths, part, landscape="landscape" in steps)
    if axes is not None:
        if len(axes) != found.array.ndim:
            raise FormatError(f"{name} has shape {found.array.shape}, the axes {axes!r} do not fit it")
        found.axes = axes.lower()
    if "*" in name and found.axes[0] == "z" and (size := found.voxel_size_um):
        found.voxel_size_um = (None, *size[1:])  # files say nothing of how far they are from each other
    for step in steps:
        if step != "landscape":
            _select(found, step, source)
    return found


def read_in_place(source: str) -> bool:
    """Whether of a remote source only what is asked for is downloaded."""
    known = reader_of(Remote(source.partition("#")[0]))
    return known is not None and known[1] in REMOTE_READERS


def source_files(path: Path | Remote) -> Sequence[Path | Remote]:
    """The file of a source and its companions, or the files that its pattern fits, in order of their names."""
    if isinstance(path, Remote):
        if "*" not in path.name:
            return [path] if path.files else []
        if not (found := path.matches()):
            raise MissingInputError(f"no objects {path}; correct the sheet, or upload them")
        return found
    if "*" not in path.name:
        if path.is_dir() and path.suffix != ".zarr":
            raise MissingInputError(f"{path} is a folder; name its files by a pattern, such as {path}/*.tif")
        if not path.exists():
            raise MissingInputError(f"no file {path}; correct the sheet, or fetch it")
        files = [path, *companions(path)]
        if missing := [file for file in files if not file.exists()]:
            raise MissingInputError(
                f"no file {missing[0]}, which planes of {path} are in; put all of them into one folder"
            )
        return files
    if not (paths := sorted(path.parent.glob(path.name))):
        raise MissingInputError(f"no files {path}; correct the sheet, or fetch them")
    return paths


def _read(path: Path | Remote, part: str | None) -> Source:
    if (known := reader_of(path)) is None:
        raise FormatError(f"{path} ends in {path.suffix.lower() or 'nothing'}; can read {listed(READERS)}")
    with reading(path):
        if path.suffix != ".zarr" and not file_size(path):
            raise ValueError("it is empty")
        if isinstance(path, Path) or known[1] in REMOTE_READERS:
            found = known[1](path, part)
        else:
            found = _copied(path, known[1], part)
    if path.suffix != ".zarr":
        shape = tuple(map(int, found.array.chunksize if found.sparse else found.array.shape))
        try:
            check_claim(path, shape, math.prod(shape) * found.array.dtype.itemsize)
        except FormatError:
            found.close()
            raise
    return found


def _copied(remote: Remote, read: Reader, part: str | None) -> Source:
    """A copy of a remote file, which lies in the folder for temporary files as long as the source is open."""
    folder = tempfile.TemporaryDirectory(prefix="ssdenoise-")
    try:
        copy = Path(folder.name) / remote.name
        with remote.open() as file, copy.open("wb") as sink:
            shutil.copyfileobj(file, sink, 2**24)
        source = read(copy, part)
    except BaseException:
        folder.cleanup()
        raise
    opened = source.close

    def close() -> None:
        opened()
        folder.cleanup()

    source.close = close
    return source


def _stacked(paths: Sequence[Path | Remote], part: str | None, *, landscape: bool) -> Source:
    """Planes of a folder along Z; with `landscape`, those that are taller than wide are turned by 90 degrees."""
    planes: list[Source] = []
    arrays: list[da.Array] = []
    for path in paths:
        planes.append(plane := _read(path, part))
        y, x = plane.axes.index("y"), plane.axes.index("x")
        turned = landscape and plane.array.shape[y] > plane.array.shape[x]
        arrays.append(da.flip(da.swapaxes(plane.array, y, x), y) if turned else plane.array)
        first, shape = planes[0], arrays[0].shape
        if (plane.axes, arrays[-1].shape, plane.array.dtype) != (first.axes, shape, first.array.dtype):
            raise FormatError(
                f"{path} is {plane.array.dtype} of shape {arrays[-1].shape} ({plane.axes.upper()}), {paths[0]} "
                f"{first.array.dtype} of {shape} ({first.axes.upper()}); planes of one volume are alike, `#landscape` "
                "turns upright ones"
            )

    def close() -> None:
        for plane in planes:
            plane.close()

    return Source(
        da.stack(arrays),
        "z" + planes[0].axes,
        planes[0].voxel_size_um,
        planes[0].channels,
        planes[0].colors,
        close=close,
    )


def _select(source: Source, step: str, where: str) -> None:
    """Apply one operation of a selection in place."""
    match = SELECTION.fullmatch(step)
    if match is None:
        raise ConfigError(f"{where}: cannot understand {step!r}; needed such as t=0, t=1:5, mean=t, sum=h, bin=z:8")
    axis = match["axis"] or match["over"] or match["along"]
    if axis not in source.axes:
        raise ConfigError(f"{where}: {step!r} names the axis {axis!r}, the file has {source.axes!r}")
    at = source.axes.index(axis)
    size = source.array.shape[at]
    if match["axis"]:
        start = int(match["start"])
        stop = int(match["stop"]) if match["slice"] else start + 1
        if not start < stop <= size:
            raise ConfigError(f"{where}: {step!r} is outside the axis, which has {size} entries")
        source.array = source.array[(slice(None),) * at + (slice(start, stop),)]
        if axis == "c":
            source.channels, source.colors = source.channels[start:stop], source.colors[start:stop]
        return
    if source.voxel_size_um and axis in "zyx":
        (z, y, x), times = source.voxel_size_um, [int(match["by"] or size) if a == axis else 1 for a in "zyx"]
        source.voxel_size_um = (z and z * times[0], y * times[1], x * times[2])
    if match["along"]:
        by = int(match["by"])
        if by < 1 or size % by:
            raise ConfigError(f"{where}: {step!r} does not divide the axis, which has {size} entries")
        shape = (*source.array.shape[:at], size // by, by, *source.array.shape[at + 1 :])
        source.array = _narrow(source.array.reshape(shape, merge_chunks=False).sum(at + 1, dtype=np.int64), where)
        return
    if match["op"] == "sum":
        source.array = _narrow(source.array.sum(axis=at, dtype=np.int64), where)
    else:
        source.array = source.array.mean(axis=at, dtype=np.float64).astype(np.float32)
    source.axes = source.axes.replace(axis, "")


def _narrow(sums: da.Array, where: str) -> da.Array:
    """Sums of counts as uint16."""

    def narrow(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        if counts.min(initial=0) < 0 or counts.max(initial=0) > np.iinfo(np.uint16).max:
            raise FormatError(f"{where}: sums run from {counts.min()} to {counts.max()}, beyond uint16")
        return counts.astype(np.uint16)

    lazy: da.Array = da.map_blocks(narrow, sums, dtype=np.uint16, meta=np.empty((0,) * sums.ndim, np.uint16))
    return lazy
