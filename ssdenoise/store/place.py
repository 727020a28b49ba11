"""Where the shards of a store lie: in its folder, or in an object store and only the commit record in the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import zarr

from ssdenoise.provenance import write_json, write_text
from ssdenoise.remote import Bucket


class Place(Protocol):
    """What holds the arrays of a store, one for each level of its pyramid."""

    #: What the commit record says of it.
    facts: Mapping[str, str]

    def open(self, level: int) -> zarr.Array[Any]:
        """The array of a level, read only."""

    def describe(self, level: int, metadata: str) -> None:
        """Write the metadata of a level's array."""

    def size(self, level: int, index: Sequence[int]) -> int:
        """Bytes of a shard; 0 if there is no file for it."""

    def take(self, level: int, index: Sequence[int], staged: Path) -> int:
        """Put a staged shard in place, whole or not at all; remove what is there, if there is none. Its size."""

    def tidy(self, level: int, indices: Collection[tuple[int, ...]]) -> None:
        """Remove shards that are none of these."""

    def keep_levels(self, number: int) -> None:
        """Remove the arrays of further levels."""

    def uncommit(self) -> None:
        """Remove the metadata of the group, without which no reader opens the store."""

    def commit(self, attributes: Mapping[str, Any]) -> None:
        """Write the metadata of the group."""


class Folder(Place):
    """A store in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.facts = {}

    def open(self, level: int) -> zarr.Array[Any]:
        return zarr.open_array(str(self.path / str(level)), mode="r")

    def describe(self, level: int, metadata: str) -> None:
        write_text(self.path / str(level) / "zarr.json", metadata)

    def size(self, level: int, index: Sequence[int]) -> int:
        path = self._file(level, index)
        return path.stat().st_size if path.exists() else 0

    def take(self, level: int, index: Sequence[int], staged: Path) -> int:
        final = self._file(level, index)
        if not staged.exists():
            final.unlink(missing_ok=True)
            return 0
        size = staged.stat().st_size
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)
        return size

    def tidy(self, level: int, indices: Collection[tuple[int, ...]]) -> None:
        files = {self._file(level, index) for index in indices}
        for path in [
            path for path in (self.path / str(level) / "c").rglob("*") if path.is_file() and path not in files
        ]:
            path.unlink()

    def keep_levels(self, number: int) -> None:
        for stray in [path for path in self.path.iterdir() if path.name.isdigit() and int(path.name) >= number]:
            shutil.rmtree(stray)

    def uncommit(self) -> None:
        (self.path / "zarr.json").unlink(missing_ok=True)

    def commit(self, attributes: Mapping[str, Any]) -> None:
        write_json(self.path / "zarr.json", _group(attributes))

    def _file(self, level: int, index: Sequence[int]) -> Path:
        return self.path.joinpath(str(level), "c", *map(str, index))


class Away(Place):
    """A store in an object store; what the folder has of it is its commit record, written last, with the address."""

    def __init__(self, path: Path, root: str, url: str) -> None:
        self.path, self.bucket, self.facts = path, Bucket(url), {"stored_under": root, "stored_at": url}

    def open(self, level: int) -> zarr.Array[Any]:
        # the fast pipeline gave up on every third array of an object store; zarr's own reads them
        with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
            return zarr.open_array(self.bucket.zarr(str(level)), mode="r", zarr_format=3)

    def describe(self, level: int, metadata: str) -> None:
        self.bucket.put(f"{level}/zarr.json", metadata.encode())

    def size(self, level: int, index: Sequence[int]) -> int:
        return self._sizes.get(_key(level, index), 0)

    def take(self, level: int, index: Sequence[int], staged: Path) -> int:
        key = _key(level, index)
        if not staged.exists():
            self._remove([key])
            return 0
        data = staged.read_bytes()
        self.bucket.put(key, data)
        staged.unlink()
        self._sizes[key] = len(data)
        return len(data)

    def tidy(self, level: int, indices: Collection[tuple[int, ...]]) -> None:
        keys = {_key(level, index) for index in indices}
        self._remove([key for key in self._sizes if key.startswith(f"{level}/c/") and key not in keys])

    def keep_levels(self, number: int) -> None:
        levels = {key: key.partition("/")[0] for key in self._sizes if "/" in key}
        self._remove([key for key, level in levels.items() if level.isdigit() and int(level) >= number])

    def uncommit(self) -> None:
        (self.path / "zarr.json").unlink(missing_ok=True)
        self._remove(["zarr.json"])

    def commit(self, attributes: Mapping[str, Any]) -> None:
        self.bucket.put("zarr.json", json.dumps(_group(attributes)).encode())
        write_json(self.path / "zarr.json", _group(attributes))

    def _remove(self, keys: Sequence[str]) -> None:
        """Remove those objects that are there; of several threads one does."""
        self.bucket.delete([key for key in keys if self._sizes.pop(key, None) is not None])

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Size of each object, listed once: to ask for each shard by itself takes a request each."""
        return self.bucket.sizes()


def place_of(store: Path, root: str | None) -> Place:
    """Where a new store lies: in its folder or, by the path of the folder, under an address such as `s3://bucket/run`."""
    return Away(store, root, f"{root.rstrip('/')}/{store.as_posix().lstrip('/')}") if root else Folder(store)


def place_from(store: Path, record: Mapping[str, Any]) -> Place:
    """Where a finished store lies, by its commit record."""
    return Away(store, record["stored_under"], record["stored_at"]) if "stored_at" in record else Folder(store)


def _key(level: int, index: Sequence[int]) -> str:
    return "/".join(map(str, (level, "c", *index)))


def _group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
