"""Volumes on disk: OME-Zarr 0.5, axes TCZYX, sharded, written shard by shard, resumable and committed last.

A store under construction has its arrays but no root `zarr.json`; no reader opens it. Beside it lies a folder
`NAME.shards` with one small record per finished shard: the key of what it was made from, the digest of its voxels and
their intensities. A job that starts again keeps each shard whose key still holds. `commit` builds the pyramid, adds up
the digests and writes the root `zarr.json` last; that file is the product.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
import zarr.codecs
import zarr.storage
from yaozarrs import v05, validate_ome_object

from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.grid import Region, blocks, extent
from ssdenoise.intensity import Intensities
from ssdenoise.provenance import canonical, digest, write_json, write_text

AXES = ("t", "c", "z", "y", "x")

# `strict`: an access that the fast pipeline cannot serve is an error, not silently seven times slower
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})

#: A pyramid is built down to this many voxels a side.
SMALLEST_LEVEL = 256


@dataclass(frozen=True)
class Layout:
    """Shape, dtype, smallest read and smallest write of a volume, TCZYX."""

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...]

    @classmethod
    def fit(cls, shape: Sequence[int], dtype: str, chunk: Sequence[int], shard: Sequence[int]) -> Layout:
        """Layout of a volume from the chunk and shard wanted (ZYX), cut to the volume."""
        chunk = [min(c, n) for c, n in zip(chunk, shape[2:], strict=True)]
        shard = [min(max(1, s // c), -(-n // c)) * c for s, c, n in zip(shard, chunk, shape[2:], strict=True)]
        return cls(tuple(shape), str(np.dtype(dtype)), (1, 1, *chunk), (1, 1, *shard))

    def resized(self, shape: Sequence[int]) -> Layout:
        """The same layout for another level of the pyramid."""
        return Layout.fit(shape, self.dtype, self.chunk[2:], self.shard[2:])


@dataclass(frozen=True)
class Metadata:
    """What a volume carries besides voxels: voxel size in micrometres (Z, Y, X; None: unknown) and channel names."""

    name: str
    voxel_size_um: tuple[float, float, float] | None
    channels: tuple[str, ...]


class ShardWriter:
    """Writes one level of a store under construction; safe to use from several threads, jobs and machines at once.

    Parameters
    ----------
    store : path
        The store, `*.ome.zarr`.
    layout : Layout
    key : str
        Digest of all that the voxels depend on; shards recorded under another key are written anew.
    level : int
        Level of the pyramid.
    """

    def __init__(self, store: str | Path, layout: Layout, key: str, level: int = 0) -> None:
        self.store, self.layout, self.level = Path(store), layout, level
        self.key = digest(key, canonical(vars(layout)), str(level))
        self.array = self.store / str(level)
        self.records = records_of(store) / str(level)
        self.records.mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        metadata = self._create(self.records / f".metadata.{os.getpid()}")
        write_text(self.array / "zarr.json", (metadata / "zarr.json").read_text())
        shutil.rmtree(metadata)

    def regions(self) -> list[tuple[tuple[int, ...], Region]]:
        """Index and region of every shard."""
        return list(blocks(self.layout.shape, self.layout.shard))

    def is_done(self, index: Sequence[int]) -> bool:
        """Whether a shard is on disk, made from the same key."""
        record = _read_record(self._record(index))
        return record is not None and record["key"] == self.key

    def write(self, index: Sequence[int], voxels: npt.NDArray[Any]) -> None:
        """Write one whole shard, then its record; both are there whole or not at all."""
        region = tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, self.layout.shard, self.layout.shape, strict=True)
        )
        if voxels.shape != extent(region) or voxels.dtype != np.dtype(self.layout.dtype):
            raise ValueError(
                f"shard {tuple(index)} of {self.store} is {extent(region)} {self.layout.dtype}, "
                f"got {voxels.shape} {voxels.dtype}"
            )
        staging = self._staging()
        zarr.open_array(str(staging), mode="r+")[region] = voxels
        name = Path("c", *map(str, index))
        final = self.array / name
        if (staging / name).exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, final)
        else:  # only the fill value: zarr keeps no file for such a shard
            final.unlink(missing_ok=True)
        record = {"key": self.key, "digest": voxels_digest(voxels), **Intensities.of(voxels).to_json()}
        write_text(self._record(index), canonical(record))

    def close(self) -> None:
        """Remove what killed writers left; call when no other job writes."""
        for leftover in self.records.glob(".*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _record(self, index: Sequence[int]) -> Path:
        return self.records / (".".join(map(str, index)) + ".json")

    def _staging(self) -> Path:
        """An array of this thread's own, where a shard is encoded before it is renamed into place."""
        if not hasattr(self._local, "path"):
            self._local.path = self._create(self.records / f".staging.{os.getpid()}.{threading.get_ident()}")
        path: Path = self._local.path
        return path

    def _create(self, path: Path) -> Path:
        zarr.create_array(
            str(path),
            shape=self.layout.shape,
            dtype=self.layout.dtype,
            chunks=self.layout.chunk,
            shards=self.layout.shard,
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            dimension_names=AXES,
            fill_value=0,
            overwrite=True,
        )
        return path


def records_of(store: str | Path) -> Path:
    """Folder of a store's shard records."""
    store = Path(store)
    return store.with_name(f"{store.name}.shards")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return record


def voxels_digest(voxels: npt.NDArray[Any]) -> str:
    """Digest of an array's values, shape and dtype; independent of how it is compressed."""
    little = np.ascontiguousarray(voxels).astype(voxels.dtype.newbyteorder("<"), copy=False)
    return digest(canonical([list(voxels.shape), str(voxels.dtype)]), little.tobytes())


def commit(
    store: str | Path, layout: Layout, key: str, metadata: Metadata, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Finish a store whose full-resolution shards are all written: pyramid, digests, and the root `zarr.json` last.

    Returns
    -------
    dict
        The commit record: digest, intensities, provenance.

    Raises
    ------
    MissingInputError
        If a shard is missing.
    """
    store = Path(store)
    shapes, scales = _pyramid(layout.shape, metadata.voxel_size_um)
    total, parts = Intensities(), []
    for level, shape in enumerate(shapes):
        writer = ShardWriter(store, layout.resized(shape), key, level)
        if level:
            _downsample(writer, store / str(level - 1), scales[level], scales[level - 1])
        for index, _ in writer.regions():
            record = _read_record(writer._record(index))
            if record is None or record["key"] != writer.key:
                raise MissingInputError(f"shard {index} of {store} is not written; run its slab again, then commit")
            parts.append(f"{level}/{index}:{record['digest']}")
            total = total + Intensities.from_json(record) if level == 0 else total
        writer.close()
        _drop_strangers(writer)
    attributes = {
        "ome": _ome(metadata, scales, total),
        "ssdenoise": {
            "digest": digest(*parts),
            "intensities": total.to_json(),
            "metadata": {"voxel_size_um": metadata.voxel_size_um, "channels": metadata.channels},
            **provenance,
        },
    }
    validate_ome_object(attributes, v05.OMEAttributes)
    write_json(store / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return attributes["ssdenoise"]


def _pyramid(
    shape: Sequence[int], voxel_size_um: Sequence[float] | None
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shape of each level and its downsampling against level 0; Z is halved once it is as finely sampled as Y and X."""
    shapes: list[tuple[int, ...]] = [tuple(shape)]
    scales: list[tuple[int, ...]] = [(1, 1, 1, 1, 1)]
    z, y, x = voxel_size_um or (np.inf, 1, 1)
    while max(shapes[-1][3:]) > SMALLEST_LEVEL:
        step = (1, 1, 2 if z <= min(y, x) * 1.5 else 1, 2, 2)
        z, y, x = z * step[2], 2 * y, 2 * x
        scales.append(tuple(a * b for a, b in zip(scales[-1], step, strict=True)))
        shapes.append(tuple(-(-n // s) for n, s in zip(shapes[-1], step, strict=True)))
    return shapes, scales


def _downsample(writer: ShardWriter, finer: Path, scale: Sequence[int], finer_scale: Sequence[int]) -> None:
    """Write one level as block means of the level before, shard by shard."""
    source = zarr.open_array(str(finer), mode="r")
    step = [a // b for a, b in zip(scale, finer_scale, strict=True)]
    for index, region in writer.regions():
        if writer.is_done(index):
            continue
        fine = tuple(slice(r.start * s, min(r.stop * s, n)) for r, s, n in zip(region, step, source.shape, strict=True))
        voxels = np.asarray(source[fine])
        odd = [(0, -n % s) for n, s in zip(voxels.shape, step, strict=True)]
        voxels = np.pad(voxels, odd, mode="edge")
        split = [n for size, s in zip(voxels.shape, step, strict=True) for n in (size // s, s)]
        mean = voxels.reshape(split).mean(axis=tuple(range(1, 10, 2)), dtype=np.float64)
        writer.write(index, to_dtype(mean, writer.layout.dtype))


def to_dtype(values: npt.NDArray[np.floating], dtype: str) -> npt.NDArray[Any]:
    """Values as `dtype`: for integers rounded to the nearest and clipped to the range."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # in float64 the limits of all integer types up to 32 bits are exact
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(kind)
    return values.astype(kind)


def _drop_strangers(writer: ShardWriter) -> None:
    """Remove shards of an earlier, larger volume under the same name."""
    known = {Path(*map(str, index)) for index, _ in writer.regions()}
    chunks = writer.array / "c"
    for path in [p for p in chunks.rglob("*") if p.is_file()]:
        if path.relative_to(chunks) not in known:
            path.unlink()
    names = {writer._record(index).name for index, _ in writer.regions()}
    for path in writer.records.iterdir():
        if path.name not in names:
            path.unlink()


def _ome(metadata: Metadata, scales: Sequence[Sequence[int]], total: Intensities) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata, through the model that also validates it."""
    size = metadata.voxel_size_um
    unit = "micrometer" if size else None
    window = v05.OmeroWindow(
        min=total.minimum, max=total.maximum, start=total.quantile(0.001), end=total.quantile(0.999)
    )
    base = (1.0, 1.0, *(size or (1.0, 1.0, 1.0)))
    image = v05.Image(
        multiscales=[
            v05.Multiscale(
                name=metadata.name,
                axes=[
                    v05.TimeAxis(name="t"),
                    v05.ChannelAxis(name="c"),
                    *(v05.SpaceAxis(name=axis, unit=unit) for axis in "zyx"),
                ],
                datasets=[
                    v05.Dataset(
                        path=str(level),
                        coordinateTransformations=[
                            v05.ScaleTransformation(scale=[float(b * s) for b, s in zip(base, scale, strict=True)])
                        ],
                    )
                    for level, scale in enumerate(scales)
                ],
                type="mean",
            )
        ],
        omero=v05.Omero(
            channels=[v05.OmeroChannel(label=name, color="FFFFFF", window=window) for name in metadata.channels]
        ),
    )
    dumped: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return dumped


class Volume:
    """A finished store, read only.

    Attributes
    ----------
    path : Path
    array : zarr.Array
        Full resolution, TCZYX.
    record : dict
        The commit record: digest, intensities, provenance.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path.parent if path.name == "zarr.json" else path
        try:
            attributes = json.loads((self.path / "zarr.json").read_text())["attributes"]
            self.record: dict[str, Any] = attributes["ssdenoise"]
        except FileNotFoundError:
            raise MissingInputError(
                f"{self.path} is no finished store: it has no zarr.json; finish the job that writes it"
            ) from None
        except (KeyError, json.JSONDecodeError) as error:
            raise FormatError(
                f"{self.path}/zarr.json was not written by ssdenoise ({error!r}); ingest it first"
            ) from None
        self.array = zarr.open_array(str(self.path / "0"), mode="r")
        ome = attributes["ome"]["multiscales"][0]
        size = self.record["metadata"]["voxel_size_um"]
        self.metadata = Metadata(ome["name"], tuple(size) if size else None, tuple(self.record["metadata"]["channels"]))

    @property
    def shape(self) -> tuple[int, ...]:
        """TCZYX."""
        return tuple(self.array.shape)

    @property
    def digest(self) -> str:
        """Digest of all voxels of all levels."""
        return str(self.record["digest"])

    @property
    def layout(self) -> Layout:
        """Shape, dtype, chunk and shard."""
        assert self.array.shards is not None, "ssdenoise writes sharded arrays only"
        return Layout(self.array.shape, str(self.array.dtype), self.array.chunks, self.array.shards)

    def intensities(self) -> Intensities:
        """Extrema and histogram of full resolution."""
        return Intensities.from_json(self.record["intensities"])

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Voxels of a region."""
        return np.asarray(self.array[region])

    def dask(self) -> da.Array:
        """Lazy array with one block per shard."""
        array: da.Array = da.from_array(self.array, chunks=self.layout.shard, name=f"{self.path.name}-{self.digest}")
        return array

    def to_xarray(self) -> xr.DataArray:
        """Lazy array with named axes and, where the voxel size is known, coordinates in micrometres."""
        size = self.metadata.voxel_size_um
        coords: dict[str, Any] = {"c": list(self.metadata.channels)}
        if size:
            coords |= {axis: np.arange(n) * s for axis, n, s in zip("zyx", self.shape[2:], size, strict=True)}
        return xr.DataArray(self.dask(), dims=AXES, coords=coords, name=self.metadata.name)
