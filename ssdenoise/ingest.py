"""Ingest: read a source in its own format into an OME-Zarr store.

Uncompressed TIFF and NumPy files are mapped and pass through memory shard by shard; compressed TIFF, PTU and SDT files,
and what a selection sums or averages, are held in memory whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ssdenoise.config.specs import IngestSpec, dump
from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.provenance import Clock, code_hash, digest, file_digest, listed, record
from ssdenoise.store import AXES, Layout, Metadata, ShardWriter, Volume, commit

#: Operations on a named axis that may follow the path in a source, `path#t=1:5&mean=t`, applied in order.
SELECTION = re.compile(
    r"(?P<axis>[a-z])=(?P<start>\d+)(?P<slice>:(?P<stop>\d+))?|(?P<op>mean|sum)=(?P<over>[a-z])|bin=(?P<along>[a-z]):(?P<by>\d+)"
)

DTYPES = ("uint8", "uint16", "int16", "float32")


@dataclass
class Source:
    """An array with named axes, and what its file says of them."""

    array: npt.NDArray[Any]
    axes: str
    voxel_size_um: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()


def ingest(spec: IngestSpec, output: Path, *, like: Path | None = None, root: Path = Path()) -> dict[str, Any]:
    """Read a source into a store.

    Parameters
    ----------
    spec : IngestSpec
    output : Path
        The store, `*.ome.zarr`.
    like : Path, optional
        Store of the volume that this one is compared with or paired with: it must have the same shape.
    root : Path
        Folder that the source's path starts from.

    Returns
    -------
    dict
        The commit record.

    Raises
    ------
    MissingInputError, FormatError
        If the source is not there, cannot be read, is empty, has an unknown axis or dtype, or holds NaN or infinity.
    ConfigError
        If the selection cannot be applied.
    """
    clock, code = Clock(), code_hash("ingest")
    path = root / spec.source.partition("#")[0]
    source = read_source(spec.source, root, spec.axes)
    voxels = _tczyx(source, spec.source)
    if 0 in voxels.shape:
        raise FormatError(f"{spec.source} is empty: its shape is {voxels.shape} (TCZYX)")
    if voxels.dtype.name not in DTYPES:
        raise FormatError(f"{spec.source} is {voxels.dtype}, needed one of {', '.join(DTYPES)}; convert it first")
    if like is not None and (other := Volume(like)).shape != voxels.shape:
        raise FormatError(
            f"{spec.source} has shape {voxels.shape} (TCZYX), {other.metadata.name} {other.shape}; they must be the "
            "same scene, voxel by voxel"
        )
    _check_finite(voxels, spec.source)
    layout = Layout.fit(voxels.shape, voxels.dtype.name, spec.storage.chunk, spec.storage.shard)
    source_digest = file_digest(path)
    key = digest(dump(spec), source_digest, code)
    writer = ShardWriter(output, layout, key)
    for index, region in writer.regions():
        if not writer.is_done(index):
            writer.write(index, np.ascontiguousarray(voxels[region]))
    channels = source.channels or tuple(f"channel {i}" for i in range(voxels.shape[1]))
    metadata = Metadata(spec.name, spec.voxel_size_um or source.voxel_size_um, channels)
    provenance = record(
        "ingest", spec=spec.model_dump(mode="json"), inputs={str(path): source_digest}, code=code, clock=clock
    )
    return commit(output, layout, key, metadata, {"provenance": provenance})


def read_source(source: str, root: Path, axes: str | None) -> Source:
    """Open a source and apply its selection; axes in lower case.

    Parameters
    ----------
    source : str
        A path, and after `#` what to take of the array, see `SELECTION`.
    root : Path
        Folder that the path starts from.
    axes : str or None
        Axes of the file's array where the file does not say, or says something else.
    """
    name, _, selection = source.partition("#")
    path = root / name
    if not path.is_file():
        raise MissingInputError(f"no file {path}; correct the sheet, or fetch it")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise FormatError(f"{path} ends in {suffix or 'nothing'}; can read {listed(READERS)}")
    try:
        found = READERS[suffix](path)
    except Exception as error:  # readers raise whatever their parsing stumbled over
        raise FormatError(f"{path} cannot be read as {suffix[1:]} ({error}); is it whole?") from error
    if axes is not None:
        if len(axes) != found.array.ndim:
            raise FormatError(f"{path} has shape {found.array.shape}, the sheet's axes {axes!r} do not fit it")
        found.axes = axes.lower()
    for step in filter(None, selection.split("&")):
        _select(found, step, source)
    return found


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


def _tczyx(source: Source, where: str) -> npt.NDArray[Any]:
    """The array with all five axes in order; absent ones have length 1."""
    axes = source.axes.replace("s", "c") if "c" not in source.axes else source.axes
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or len(set(axes)) != len(axes):
        raise FormatError(
            f"{where} has axes {source.axes.upper()!r} of shape {source.array.shape}; needed T, C, Z, Y, X, each at "
            "most once: name them in the sheet's `axes` column, or select or sum the others away"
        )
    if "y" not in axes or "x" not in axes:
        raise FormatError(f"{where} has axes {source.axes.upper()!r}; Y and X are needed")
    present = [axis for axis in AXES if axis in axes]
    array = source.array.transpose([axes.index(axis) for axis in present])
    return array.reshape([array.shape[present.index(axis)] if axis in present else 1 for axis in AXES])


def _check_finite(voxels: npt.NDArray[Any], where: str) -> None:
    """Refuse NaN and infinity before anything is written."""
    if voxels.dtype.kind != "f":
        return
    for t, c, z in np.ndindex(voxels.shape[:3]):
        if bad := int(np.count_nonzero(~np.isfinite(voxels[t, c, z]))):
            raise FormatError(
                f"{where} has NaN or infinite voxels, {bad} in plane t={t} c={c} z={z}; mask or mend them before ingest"
            )


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


def _read_npy(path: Path) -> Source:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Source(array, "tczyx"[-array.ndim :])


READERS: dict[str, Callable[[Path], Source]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".ptu": _read_ptu,
    ".sdt": _read_sdt,
    ".npy": _read_npy,
}
