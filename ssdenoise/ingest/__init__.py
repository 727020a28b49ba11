"""Ingest: copy a source of any format into an OME-Zarr store, in one pass and a bounded amount of memory.

The source is a lazy array whose chunks are what its file gives at once, mostly planes. It is read band by band
(`ssdenoise.grid.bands`), so that no chunk is read twice; while one band is written, the next is read. PTU and SDT files
are held in memory whole.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr

from ssdenoise.config.specs import IngestSpec, dump
from ssdenoise.errors import FormatError
from ssdenoise.grid import Region, bands, extent
from ssdenoise.ingest.source import Source, reading
from ssdenoise.ingest.sources import read_source, source_files
from ssdenoise.provenance import Clock, canonical, code_hash, digest, fingerprint, record
from ssdenoise.remote import Remote, located
from ssdenoise.store import AXES, WHITE, Layout, Metadata, ShardWriter, Volume, claim, commit, lock_of

DTYPES = ("uint8", "uint16", "int16", "float16", "float32")

#: Bytes of a band: two are in memory, one being written and the next being read.
BAND_BYTES = 2**27

#: Index of a shard, and where it lies in a band.
Shard = tuple[Sequence[int], Region]


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
    files = source_files(located(root, spec.source.partition("#")[0]))
    inputs = {str(path): path.fingerprint() if isinstance(path, Remote) else fingerprint(path) for path in files}
    key = digest(dump(spec), canonical(inputs), code)
    with closing(read_source(spec.source, root, spec.axes)) as source:
        voxels = tczyx(source, spec.source)
        _check(voxels, spec.source, like)
        layout = Layout.fit(voxels.shape, voxels.dtype.name, spec.storage.chunk, spec.storage.shard)
        with claim(lock_of(output)):  # which leaves a folder: not for what was refused
            copy(voxels, ShardWriter(output, layout, key, root=spec.storage.root), spec.source, threads)
            number = voxels.shape[1]
            # of other numbers are those whose channels were selected, or are samples of a picture
            names = source.channels if len(source.channels) == number else tuple(f"channel {i}" for i in range(number))
            colors = source.colors if len(source.colors) == number else (WHITE,) * number
            metadata = Metadata(spec.name, spec.voxel_size_um or _voxel_size(source, voxels), names, colors)
            provenance = record("ingest", spec=spec.model_dump(mode="json"), inputs=inputs, code=code, clock=clock)
            return commit(
                output, layout, key, metadata, {"provenance": provenance}, threads=threads, root=spec.storage.root
            )


def tczyx(source: Source, where: str) -> da.Array:
    """The array with all five axes in order, absent ones of length 1, and its bytes in the machine's order."""
    axes = source.axes.replace("s", "c") if "c" not in source.axes else source.axes
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or len(set(axes)) != len(axes) or len(axes) != source.array.ndim:
        raise FormatError(
            f"{where} has axes {source.axes.upper()!r} of shape {source.array.shape}; needed T, C, Z, Y, X, each at "
            "most once: name them (`axes`; I and Q stand for axes that the file does not name), or select or sum the "
            "others away"
        )
    if "y" not in axes or "x" not in axes:
        raise FormatError(f"{where} has axes {source.axes.upper()!r}; Y and X are needed")
    present = [axis for axis in AXES if axis in axes]
    array = source.array.transpose([axes.index(axis) for axis in present])
    whole: da.Array = array[tuple(slice(None) if axis in axes else None for axis in AXES)]
    native: da.Array = whole.astype(whole.dtype.newbyteorder("="))  # ImageJ writes the other
    return native


def _voxel_size(source: Source, voxels: da.Array) -> tuple[float, float, float] | None:
    """What the file says, if it says all; that a single plane has no distance to others does not matter."""
    z, y, x = source.voxel_size_um or (None, 0, 0)
    return (z or y, y, x) if y and (z or voxels.shape[2] == 1) else None


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


def copy(voxels: da.Array, writer: ShardWriter, where: str, threads: int) -> None:
    """Write the shards that are missing; while those of one band are written, the next is read."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as writers:
        pieces = _pieces(voxels, writer, where, threads)
        ahead = reader.submit(next, pieces, None)
        while (piece := ahead.result()) is not None:
            ahead = reader.submit(next, pieces, None)
            values, shards = piece

            def write(shard: Shard, values: npt.NDArray[Any] = values) -> None:
                index, local = shard
                writer.write(index, np.ascontiguousarray(values[local]))

            list(writers.map(write, shards))


def _pieces(
    voxels: da.Array, writer: ShardWriter, where: str, threads: int
) -> Iterator[tuple[npt.NDArray[Any], list[Shard]]]:
    """Voxels of band after band, with the missing shards in each."""
    shape, shard, most = voxels.shape, writer.layout.shard, BAND_BYTES // voxels.dtype.itemsize

    def missing(band: Region) -> list[Shard]:
        return [(index, local) for index, local in writer.shards_of(band) if not writer.is_done(index)]

    def read(region: Region) -> npt.NDArray[Any]:
        with reading(located(Path(), where.partition("#")[0])):
            values = np.asarray(voxels[region].compute(scheduler="threads", num_workers=threads))
        _check_finite(values, region, where)
        return values

    for whole in bands(shape, shard, [np.cumsum(sizes).tolist() for sizes in voxels.chunks], sys.maxsize):
        if not missing(whole):
            continue
        if math.prod(extent(whole)) <= most:
            yield read(whole), missing(whole)
            continue
        # chunks that lie across more shards than memory holds: they are read once, and put down in pieces of the shards
        with tempfile.TemporaryDirectory(dir=writer.records) as folder:
            pieces = zarr.create_array(
                folder, shape=extent(whole), dtype=voxels.dtype, chunks=(1, 1, 1, *shard[3:]), compressors=None
            )
            for chunk in da.core.slices_from_chunks(voxels[whole].chunks):
                pieces[chunk] = read(
                    tuple(slice(c.start + w.start, c.stop + w.start) for c, w in zip(chunk, whole, strict=True))
                )
            ends = [range(b, n + b, b) for n, b in zip(extent(whole), shard, strict=True)]
            for part in bands(extent(whole), shard, ends, most):
                band = tuple(slice(p.start + w.start, p.stop + w.start) for p, w in zip(part, whole, strict=True))
                if shards := missing(band):
                    yield np.asarray(pieces[part]), shards


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
