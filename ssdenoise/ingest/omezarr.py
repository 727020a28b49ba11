"""OME-Zarr 0.4 and 0.5, full resolution of the pyramid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import zarr

from ssdenoise.errors import FormatError
from ssdenoise.ingest.source import CHUNK_BYTES, Source, VoxelSize, picked
from ssdenoise.remote import Remote
from ssdenoise.store import WHITE

RRGGBB = re.compile("[0-9A-Fa-f]{6}")

#: Micrometres of the units that the axes may have.
UNITS = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "angstrom": 1e-4, "meter": 1e6}


def read_omezarr(path: Path | Remote, part: str | None) -> Source:
    """An image; of a collection, as `bioformats2raw` writes it, or of a plate one by its name."""
    group = zarr.open_group(path.zarr() if isinstance(path, Remote) else str(path), mode="r")
    attributes = _ome(group)
    if "multiscales" not in attributes:
        names = _images(group, path, part)
        name = names[picked(part, names, "scene")]
        try:
            group = zarr.open_group(group.store_path / name, mode="r")
        except FileNotFoundError:
            raise FormatError(f"{path} has no image {name}") from None
        attributes = _ome(group)
    else:
        picked(part, [""], "scene")
    image = attributes["multiscales"][0]
    axes = [axis["name"] if isinstance(axis, Mapping) else axis for axis in image["axes"]]
    first = image["datasets"][0]
    own = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
    with zarr.config.set(own if isinstance(path, Remote) else {}):  # the fast pipeline gives up on what is remote
        array = zarr.open_array(group.store_path / first["path"], mode="r")
    lazy = da.from_array(array, chunks=_blocks(array), name=False)
    channels = attributes.get("omero", {}).get("channels", [])
    labels = tuple(str(channel.get("label", f"channel {i}")) for i, channel in enumerate(channels))
    colors = tuple(channel["color"] if RRGGBB.fullmatch(channel.get("color", "")) else WHITE for channel in channels)
    return Source(lazy, "".join(axes).lower(), _voxel_size(image, first, axes), labels, colors)


def _blocks(array: zarr.Array[Any]) -> tuple[int, ...]:
    """A chunk, or as many of a shard's, along its last axes first, as are read at once."""
    blocks = list(array.chunks)
    for axis, shard in reversed(list(enumerate(array.shards or ()))):
        most = max(1, CHUNK_BYTES // (math.prod(blocks) * array.dtype.itemsize))
        number = shard // blocks[axis]
        blocks[axis] *= next(n for n in range(min(number, most), 0, -1) if number % n == 0)
        if blocks[axis] < shard:
            break
    return tuple(blocks)


def _images(group: zarr.Group, path: Path | Remote, part: str | None) -> list[str]:
    """Names of the images of a collection; of a plate the one that is asked for, or the first of each well."""
    if "plate" in (attributes := _ome(group)):
        wells = [f"{well['path']}/0" for well in attributes["plate"]["wells"]]
        return [part] if part is not None and part.count("/") == 2 else wells
    if isinstance(path, Remote) and not path.is_listed:
        if part is None:
            raise FormatError(f"{path} is no image, and web servers list no files; name one within it, as `#scene=0`")
        return [part]
    if not (names := sorted(name for name, inner in group.groups() if "multiscales" in _ome(inner))):
        raise FormatError(f"{path} has no OME metadata of an image (`multiscales`)")
    return names


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """OME metadata: under a key of their own since 0.5."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    return attributes.get("ome", attributes)  # type: ignore[no-any-return]


def _voxel_size(image: Mapping[str, Any], first: Mapping[str, Any], axes: list[str]) -> VoxelSize | None:
    """Scales of the first level and of the whole image; None where an axis has no unit that is a length."""
    scale = dict.fromkeys(axes, 1.0)
    for transformation in (*first.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        for axis, factor in zip(axes, transformation.get("scale", ()), strict=False):
            scale[axis] *= factor
    for axis in image["axes"]:
        if isinstance(axis, Mapping) and axis["name"] in "zyx":
            if axis.get("unit") not in UNITS:
                return None
            scale[axis["name"]] *= UNITS[axis["unit"]]
    if not {"y", "x"} <= scale.keys():
        return None
    return (scale.get("z"), scale["y"], scale["x"])
