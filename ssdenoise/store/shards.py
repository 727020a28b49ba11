"""Writing the shards of a store under construction: atomically, resumably, from several jobs at once."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
import zarr.codecs

from ssdenoise.grid import Region, blocks, blocks_of, extent
from ssdenoise.intensity import Intensities
from ssdenoise.provenance import canonical, digest, write_text
from ssdenoise.store.place import place_of

AXES = ("t", "c", "z", "y", "x")

# not strict: of what it does not know, such as texts in a user's own arrays, zarr's own codecs take care
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": False})


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

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """Inverse of `vars`, after a round trip through JSON."""
        return cls(tuple(value["shape"]), value["dtype"], tuple(value["chunk"]), tuple(value["shard"]))

    def resized(self, shape: Sequence[int]) -> Layout:
        """The same layout for another level of the pyramid."""
        return Layout.fit(shape, self.dtype, self.chunk[2:], self.shard[2:])


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
    root : str, optional
        Address in an object store under which the voxels go, by the path of the store.

    Notes
    -----
    A store that has a writer is not finished: an earlier commit is withdrawn. Beside the store lies a folder
    `NAME.shards` with a small record for each finished shard: the key, the size of its file, the digest of its voxels
    and their intensities. A shard is encoded in a staging array and renamed into place, or sent away. A kill between
    any two steps leaves a shard without a record, never a record without its shard.
    """

    def __init__(self, store: str | Path, layout: Layout, key: str, level: int = 0, *, root: str | None = None) -> None:
        self.store, self.layout, self.level = Path(store), layout, level
        self.place = place_of(self.store, root)
        self.key = digest(key, canonical(vars(layout)), str(level))
        self.records = records_of(store) / str(level)
        self.records.mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        metadata = self._create("metadata")
        # from here on no earlier commit speaks of what is there
        self.place.uncommit()
        self.place.describe(level, (metadata / "zarr.json").read_text())
        shutil.rmtree(metadata)

    def regions(self) -> Iterator[tuple[tuple[int, ...], Region]]:
        """Index and region of every shard."""
        return blocks(self.layout.shape, self.layout.shard)

    def shards_of(self, region: Region) -> Iterator[tuple[tuple[int, ...], Region]]:
        """Index of each shard in a region made of whole ones, and where it lies in it."""
        return blocks_of(region, self.layout.shape, self.layout.shard)

    def record(self, index: Sequence[int]) -> dict[str, Any] | None:
        """Record of a shard that is on disk and was made from the same key; None for any other."""
        try:
            record: dict[str, Any] = json.loads(self._record(index).read_text())
        except FileNotFoundError:
            return None
        size = self.place.size(self.level, index)
        return record if record["key"] == self.key and record["bytes"] == size else None

    def is_done(self, index: Sequence[int]) -> bool:
        """Whether a shard is on disk, made from the same key."""
        return self.record(index) is not None

    def write(self, index: Sequence[int], voxels: npt.NDArray[Any], **facts: float) -> None:
        """Write one whole shard, then its record.

        Parameters
        ----------
        index : sequence of int
            Index of the shard.
        voxels : array
            Of the shard's shape and the layout's dtype.
        **facts
            Numbers to keep in the record; `commit` adds them up over all shards.
        """
        region = tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, self.layout.shard, self.layout.shape, strict=True)
        )
        if voxels.shape != extent(region) or voxels.dtype != np.dtype(self.layout.dtype):
            raise ValueError(
                f"shard {tuple(index)} of {self.store} is {extent(region)} {self.layout.dtype}, "
                f"got {voxels.shape} {voxels.dtype}"
            )
        staging, array = self._staging()
        array[region] = voxels
        # from here on no earlier record speaks of what is there
        self._record(index).unlink(missing_ok=True)
        # zarr keeps no file for a shard of nothing but the fill value
        size = self.place.take(self.level, index, staging.joinpath("c", *map(str, index)))
        record = {"key": self.key, "bytes": size, "digest": voxels_digest(voxels), "facts": facts}
        write_text(self._record(index), canonical(record | Intensities.of(voxels).to_json()))

    def tidy(self) -> None:
        """Remove what killed writers and an earlier, larger volume left; only when no other job writes."""
        indices = [index for index, _ in self.regions()]
        records = {self._record(index) for index in indices}
        for path in self.records.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in records:
                path.unlink()
        self.place.tidy(self.level, indices)

    def _record(self, index: Sequence[int]) -> Path:
        return record_path(self.store, self.level, index)

    def _staging(self) -> tuple[Path, zarr.Array[Any]]:
        """Array of this thread's own, where a shard is encoded before it is renamed into place."""
        if not hasattr(self._local, "staging"):
            path = self._create("staging")
            self._local.staging = path, zarr.open_array(str(path), mode="r+")
        staging: tuple[Path, zarr.Array[Any]] = self._local.staging
        return staging

    def _create(self, purpose: str) -> Path:
        path = self.records / f".{purpose}.{uuid.uuid4().hex}"
        zarr.create_array(
            str(path),
            shape=self.layout.shape,
            dtype=self.layout.dtype,
            chunks=self.layout.chunk,
            shards=self.layout.shard,
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            dimension_names=AXES,
            fill_value=0,
        )
        return path


def records_of(store: str | Path) -> Path:
    """Folder of a store's shard records."""
    store = Path(store)
    return store.with_name(f"{store.name}.shards")


def record_path(store: str | Path, level: int, index: Sequence[int]) -> Path:
    """Record of one shard."""
    return records_of(store) / str(level) / (".".join(map(str, index)) + ".json")


def combined(parts: Iterable[tuple[int, tuple[int, ...], str]]) -> str:
    """Digest of a store from the levels, indices and digests of all its shards, in order."""
    return digest(*(f"{level}/{index}:{found}" for level, index, found in parts))


def voxels_digest(voxels: npt.NDArray[Any]) -> str:
    """Digest of an array's values, shape and dtype; independent of how it is compressed."""
    little = np.ascontiguousarray(voxels).astype(voxels.dtype.newbyteorder("<"), copy=False)
    return digest(canonical([list(voxels.shape), str(voxels.dtype)]), little.reshape(-1).view(np.uint8).data)


def to_dtype(values: npt.NDArray[np.floating], dtype: str) -> tuple[npt.NDArray[Any], int]:
    """Values as `dtype`, clipped to its range, for integers rounded to the nearest; and how many were clipped."""
    kind = np.dtype(dtype)
    if kind == np.float32 or kind == np.float64:
        return values.astype(kind), 0
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    # a float32 holds all integers of up to 16 bits, a float64 the limits of those of up to 32
    exact = values if kind.itemsize <= 2 else values.astype(np.float64)
    rounded = exact if kind.kind == "f" else np.rint(exact)
    if limits.min <= rounded.min() and rounded.max() <= limits.max:
        return rounded.astype(kind), 0
    clipped = int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
    return np.clip(rounded, limits.min, limits.max).astype(kind), clipped
