"""Finishing a store: pyramid, digests, OME metadata, and the root `zarr.json` last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from yaozarrs import v05, validate_ome_object

from ssdenoise.errors import MissingInputError
from ssdenoise.grid import Region
from ssdenoise.intensity import Intensities
from ssdenoise.store.place import place_of
from ssdenoise.store.shards import Layout, ShardWriter, combined, to_dtype

WHITE = "FFFFFF"

#: A pyramid is built down to this many voxels a side.
SMALLEST_LEVEL = 256


@dataclass(frozen=True)
class Metadata:
    """What a volume carries besides voxels: voxel size in micrometres (Z, Y, X; None: unknown), names and colours.

    Colours are of the channels, as RRGGBB; white if none are given.
    """

    name: str
    voxel_size_um: tuple[float, float, float] | None
    channels: tuple[str, ...]
    colors: tuple[str, ...] = ()


def commit(
    store: str | Path,
    layout: Layout,
    key: str,
    metadata: Metadata,
    provenance: Mapping[str, Any],
    sum_of: Sequence[str] = (),
    threads: int = 1,
    root: str | None = None,
) -> dict[str, Any]:
    """Finish a store whose full-resolution shards are all written: pyramid, digests, and the root `zarr.json` last.

    Parameters
    ----------
    store : path
        The store, `*.ome.zarr`.
    layout, key
        As its shards were written with.
    metadata : Metadata
    provenance : mapping
        What else goes into the commit record.
    sum_of : sequence of str
        Facts of the shards' records to add up; those that a shard lacks are left out.
    threads : int
        Shards of the pyramid written at once.
    root : str, optional
        As its shards were written with.

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
    parts: list[tuple[int, tuple[int, ...], str]] = []
    facts = dict.fromkeys(sum_of, 0.0)
    totals = [Intensities() for _ in metadata.channels]
    for level, shape in enumerate(shapes):
        writer = ShardWriter(store, layout.resized(shape), key, level, root=root)
        if level:
            _downsample(writer, scales[level], scales[level - 1], threads)
        for index, _ in writer.regions():
            record = writer.record(index)
            if record is None:
                raise MissingInputError(f"shard {index} of {store} is not written; run its slab again, then commit")
            parts.append((level, index, record["digest"]))
            if level == 0:
                totals[index[1]] += Intensities.from_json(record)  # a shard has a single channel
                known = record["facts"]
                facts = {name: value + known[name] for name, value in facts.items() if name in known}
        writer.tidy()
    place = place_of(store, root)
    place.keep_levels(len(shapes))  # an earlier, larger volume had more
    attributes = {
        "ome": _ome(metadata, scales, totals),
        "ssdenoise": {
            "digest": combined(parts),
            "intensities": [total.to_json() for total in totals],
            "layout": vars(layout),
            "metadata": {
                "voxel_size_um": metadata.voxel_size_um,
                "channels": metadata.channels,
                "colors": metadata.colors,
            },
            **facts,
            **place.facts,
            **provenance,
        },
    }
    validate_ome_object(attributes, v05.OMEAttributes)
    place.commit(attributes)
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


def _downsample(writer: ShardWriter, scale: Sequence[int], finer_scale: Sequence[int], threads: int) -> None:
    """Write one level as block means of the level before, shard by shard."""
    source = writer.place.open(writer.level - 1)
    step = [a // b for a, b in zip(scale, finer_scale, strict=True)]

    def write(shard: tuple[tuple[int, ...], Region]) -> None:
        index, region = shard
        if writer.is_done(index):
            return
        fine = tuple(slice(r.start * s, min(r.stop * s, n)) for r, s, n in zip(region, step, source.shape, strict=True))
        means, _ = to_dtype(_block_means(np.asarray(source[fine]), step), writer.layout.dtype)
        writer.write(index, means)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, writer.regions()))


def _block_means(voxels: npt.NDArray[Any], step: Sequence[int]) -> npt.NDArray[np.floating]:
    """Means over blocks of one or two voxels along each axis, exact; the last voxel of an odd axis counts twice."""
    integer, short = voxels.dtype.kind in "iu", voxels.dtype.itemsize <= 2
    sums = np.dtype((np.int32 if short else np.int64) if integer else np.float64)
    for axis, s in enumerate(step):
        if s == 1:
            continue
        even = voxels[(slice(None),) * axis + (slice(0, None, 2),)]
        odd = voxels[(slice(None),) * axis + (slice(1, None, 2),)]
        if odd.shape != even.shape:
            odd = np.concatenate([odd, voxels[(slice(None),) * axis + (slice(-1, None),)]], axis=axis)
        voxels = np.add(even, odd, dtype=sums)
    means: npt.NDArray[np.floating] = voxels.astype(np.float32 if integer and short else np.float64)
    return means / np.asarray(math.prod(step), means.dtype)


def _ome(metadata: Metadata, scales: Sequence[Sequence[int]], totals: Sequence[Intensities]) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata, through the model that also validates it."""
    size = metadata.voxel_size_um
    unit = "micrometer" if size else None
    windows = [
        v05.OmeroWindow(min=total.minimum, max=total.maximum, start=total.quantile(0.001), end=total.quantile(0.999))
        for total in totals
    ]
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
            channels=[
                v05.OmeroChannel(label=name, color=color, window=window)
                for name, color, window in zip(
                    metadata.channels, metadata.colors or [WHITE] * len(windows), windows, strict=True
                )
            ]
        ),
    )
    dumped: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return dumped
