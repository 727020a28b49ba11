"""Ingest: copy a source of any format into an OME-Zarr store, in one pass and a bounded amount of memory.

The source is a lazy array whose chunks are what its file gives at once, mostly planes. It is read band by band
(`ssdenoise.grid.bands`), so that no chunk is read twice; while one band is written, the next is read. PTU and SDT files
are held in memory whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from ssdenoise.config.specs import IngestSpec, dump
from ssdenoise.errors import FormatError
from ssdenoise.grid import Region, bands
from ssdenoise.ingest.source import Source
from ssdenoise.ingest.sources import read_source, source_files
from ssdenoise.provenance import Clock, canonical, code_hash, digest, fingerprint, record
from ssdenoise.store import AXES, Layout, Metadata, ShardWriter, Volume, claim, commit, lock_of

DTYPES = ("uint8", "uint16", "int16", "float16", "float32")

#: Bytes of a band: two are in memory, one being written and the next being read.
BAND_BYTES = 2**27


def ingest(
    spec: IngestSpec, output: Path, *, like: Path | None = None, root: Path = Path(), threads: int = 1
) -> dict[str, Any]:
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
    threads : int
        Shards written at once, and chunks of the source read at once.

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
    InUseError
        If another job writes the store.

    Notes
    -----
    Shards found finished from the same source, options and code are kept, and no more of the source is read than the
    others need.
    """
    clock, code = Clock(), code_hash("ingest")
    inputs = {str(path): fingerprint(path) for path in source_files(root / spec.source.partition("#")[0])}
    key = digest(dump(spec), canonical(inputs), code)
    with claim(lock_of(output)), closing(read_source(spec.source, root, spec.axes)) as source:
        voxels = tczyx(source, spec.source)
        _check(voxels, spec.source, like)
        layout = Layout.fit(voxels.shape, voxels.dtype.name, spec.storage.chunk, spec.storage.shard)
        _copy(voxels, ShardWriter(output, layout, key), spec.source, threads)
        channels = source.channels or tuple(f"channel {i}" for i in range(voxels.shape[1]))
        metadata = Metadata(spec.name, spec.voxel_size_um or source.voxel_size_um, channels)
        provenance = record("ingest", spec=spec.model_dump(mode="json"), inputs=inputs, code=code, clock=clock)
        return commit(output, layout, key, metadata, {"provenance": provenance})


def tczyx(source: Source, where: str) -> da.Array:
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
    whole: da.Array = array[tuple(slice(None) if axis in axes else None for axis in AXES)]
    return whole


def _check(voxels: da.Array, where: str, like: Path | None) -> None:
    """Refuse what cannot be a volume, or not the partner of another."""
    if 0 in voxels.shape:
        raise FormatError(f"{where} is empty: its shape is {voxels.shape} (TCZYX)")
    if voxels.dtype.name not in DTYPES:
        raise FormatError(f"{where} is {voxels.dtype}, needed one of {', '.join(DTYPES)}; convert it first")
    if like is not None and (other := Volume(like)).shape != voxels.shape:
        raise FormatError(
            f"{where} has shape {voxels.shape} (TCZYX), {other.metadata.name} {other.shape}; they must be the "
            "same scene, voxel by voxel"
        )


def _copy(voxels: da.Array, writer: ShardWriter, where: str, threads: int) -> None:
    """Write the shards that are missing; while those of one band are written, the next is read."""
    ends = [np.cumsum(sizes).tolist() for sizes in voxels.chunks]
    todo = []
    for band in bands(voxels.shape, writer.layout.shard, ends, BAND_BYTES // voxels.dtype.itemsize):
        if missing := [(index, local) for index, local in writer.shards_of(band) if not writer.is_done(index)]:
            todo.append((band, missing))

    def read(band: Region) -> npt.NDArray[Any]:
        values = np.asarray(voxels[band].compute(scheduler="threads", num_workers=threads))
        _check_finite(values, band, where)
        return values

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as writers:
        ahead = [reader.submit(read, band) for band, _ in todo[:1]]
        for k, (_, missing) in enumerate(todo):
            values = ahead.pop().result()
            ahead += [reader.submit(read, band) for band, _ in todo[k + 1 : k + 2]]

            def write(shard: tuple[Sequence[int], Region], values: npt.NDArray[Any] = values) -> None:
                index, local = shard
                writer.write(index, np.ascontiguousarray(values[local]))

            list(writers.map(write, missing))


def _check_finite(values: npt.NDArray[Any], band: Region, where: str) -> None:
    """Refuse NaN and infinity."""
    if values.dtype.kind != "f":
        return
    for t, c, z in np.ndindex(values.shape[:3]):
        if bad := int(np.count_nonzero(~np.isfinite(values[t, c, z]))):
            t, c, z = (i + s.start for i, s in zip((t, c, z), band[:3], strict=True))
            raise FormatError(
                f"{where} has NaN or infinite voxels, {bad} in plane t={t} c={c} z={z}; mask or mend them before ingest"
            )
