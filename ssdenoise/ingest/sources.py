"""Sources: a file or the planes of a folder, and what to take of the array."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.ingest.readers import READERS, Source
from ssdenoise.provenance import listed

#: Operations on a named axis that may follow the path in a source, `path#t=1:5&mean=t`, applied in order.
SELECTION = re.compile(
    r"(?P<axis>[a-z])=(?P<start>\d+)(?P<slice>:(?P<stop>\d+))?|(?P<op>mean|sum)=(?P<over>[a-z])|bin=(?P<along>[a-z]):(?P<by>\d+)"
)


def read_source(source: str, root: Path, axes: str | None) -> Source:
    """Open a source and apply its selection; axes in lower case.

    Parameters
    ----------
    source : str
        A path, or a pattern with `*` for planes of a volume, one a file; after `#` what to take of the array, see
        `SELECTION`, and `landscape` to turn upright planes.
    root : Path
        Folder that the path starts from.
    axes : str or None
        Axes of the file's array where the file does not say, or says something else.
    """
    name, _, selection = source.partition("#")
    steps = list(filter(None, selection.split("&")))
    paths = source_files(root / name)
    planes = [_read(path) for path in paths]
    found = planes[0] if "*" not in name else _stacked(planes, paths, landscape="landscape" in steps)
    if axes is not None:
        if len(axes) != found.array.ndim:
            raise FormatError(f"{name} has shape {found.array.shape}, the sheet's axes {axes!r} do not fit it")
        found.axes = axes.lower()
    for step in steps:
        if step != "landscape":
            _select(found, step, source)
    return found


def source_files(path: Path) -> list[Path]:
    """The file of a source, or the files that its pattern fits, in order of their names."""
    if "*" not in path.name:
        if not path.is_file():
            raise MissingInputError(f"no file {path}; correct the sheet, or fetch it")
        return [path]
    if not (paths := sorted(path.parent.glob(path.name))):
        raise MissingInputError(f"no files {path}; correct the sheet, or fetch them")
    return paths


def _read(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise FormatError(f"{path} ends in {suffix or 'nothing'}; can read {listed(READERS)}")
    try:
        return READERS[suffix](path)
    except Exception as error:  # readers raise whatever their parsing stumbled over
        why = str(error).partition("\n")[0].rstrip(".")
        raise FormatError(f"{path} cannot be read as {suffix[1:]} ({why}); is it whole?") from error


def _stacked(planes: Sequence[Source], paths: Sequence[Path], *, landscape: bool) -> Source:
    """Planes of a folder along Z; with `landscape`, those that are taller than wide are turned by 90 degrees."""
    arrays = []
    for plane, path in zip(planes, paths, strict=True):
        y, x = plane.axes.index("y"), plane.axes.index("x")
        turned = landscape and plane.array.shape[y] > plane.array.shape[x]
        arrays.append(np.rot90(plane.array, axes=(y, x)) if turned else plane.array)
        if plane.axes != planes[0].axes or arrays[-1].shape != arrays[0].shape:
            raise FormatError(
                f"{path} has shape {arrays[-1].shape} ({plane.axes.upper()}), {paths[0]} {arrays[0].shape} "
                f"({planes[0].axes.upper()}); planes of one volume have the same, `#landscape` turns upright ones"
            )
    return Source(np.stack(arrays), "z" + planes[0].axes, planes[0].voxel_size_um)


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
        return
    if match["along"]:
        by = int(match["by"])
        if by < 1 or size % by:
            raise ConfigError(f"{where}: {step!r} does not divide the axis, which has {size} entries")
        shape = (*source.array.shape[:at], size // by, by, *source.array.shape[at + 1 :])
        source.array = _narrow(source.array.reshape(shape).sum(axis=at + 1, dtype=np.int64), where)
        return
    if match["op"] == "sum":
        source.array = _narrow(source.array.sum(axis=at, dtype=np.int64), where)
    else:
        source.array = source.array.mean(axis=at, dtype=np.float64).astype(np.float32)
    source.axes = source.axes.replace(axis, "")


def _narrow(counts: npt.NDArray[np.int64], where: str) -> npt.NDArray[np.uint16]:
    """Sums of counts as uint16."""
    if counts.min(initial=0) < 0 or counts.max(initial=0) > np.iinfo(np.uint16).max:
        raise FormatError(f"{where}: sums run from {counts.min()} to {counts.max()}, beyond uint16")
    return counts.astype(np.uint16)
