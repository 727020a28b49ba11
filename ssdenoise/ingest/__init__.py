"""Ingest: read a source in its own format into an OME-Zarr store.

Uncompressed TIFF and NumPy files are mapped and pass through memory shard by shard; compressed TIFF, PTU and SDT files,
and what a selection sums or averages, are held in memory whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdenoise.config.specs import IngestSpec, dump
from ssdenoise.errors import FormatError
from ssdenoise.ingest.readers import Source
from ssdenoise.ingest.sources import read_source, source_files
from ssdenoise.provenance import Clock, code_hash, digest, file_digest, record
from ssdenoise.store import AXES, Layout, Metadata, ShardWriter, Volume, commit

DTYPES = ("uint8", "uint16", "int16", "float32")


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
    paths = source_files(root / spec.source.partition("#")[0])
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
    digests = {str(path): file_digest(path) for path in paths}
    key = digest(dump(spec), *digests.values(), code)
    writer = ShardWriter(output, layout, key)
    for index, region in writer.regions():
        if not writer.is_done(index):
            writer.write(index, np.ascontiguousarray(voxels[region]))
    channels = source.channels or tuple(f"channel {i}" for i in range(voxels.shape[1]))
    metadata = Metadata(spec.name, spec.voxel_size_um or source.voxel_size_um, channels)
    provenance = record("ingest", spec=spec.model_dump(mode="json"), inputs=digests, code=code, clock=clock)
    return commit(output, layout, key, metadata, {"provenance": provenance})


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
