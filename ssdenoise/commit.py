"""Commit: finish a denoised volume once all its slabs are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssdenoise import store
from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.provenance import read_json
from ssdenoise.store import Layout, Volume


def commit(noisy: Path, slabs: Sequence[Path], product: str, output: Path, threads: int = 1) -> dict[str, Any]:
    """Build the pyramid, add up the digests, and write the root `zarr.json`.

    Parameters
    ----------
    noisy : Path
        Store of the noisy volume, whose metadata are kept.
    slabs : sequence of Path
        Records that `denoise` wrote, one for each slab.
    product : str
        `denoised` or `uncertainty`.
    output : Path
        Folder that holds the store.
    threads : int
        Shards of the pyramid written at once.

    Returns
    -------
    dict
        The commit record; it sums the seconds, and where known the joules, of the network over all tiles, whatever job
        they ran in.

    Raises
    ------
    FormatError
        If a file is no record of a slab.
    MissingInputError
        If a shard, a slab or the product is missing.
    """
    records = [read_json(path) for path in slabs]
    for path, found in zip(slabs, records, strict=True):
        if not isinstance(found, dict) or not {"layouts", "key", "slabs", "provenance"} <= found.keys():
            raise FormatError(f"{path} is no record of a slab; name those that `denoise` wrote, slabs/*-of-*.json")
    if product not in records[0]["layouts"]:
        raise MissingInputError(f"{slabs[0]} has no product {product!r}, only {', '.join(records[0]['layouts'])}")
    if len(keys := {record["key"] for record in records}) > 1 or len(records) != records[0]["slabs"]:
        raise MissingInputError(
            f"{output} has {len(records)} of {records[0]['slabs']} slabs, from {len(keys)} sets of model and options; "
            "run `denoise` for all slabs"
        )
    volume, layout = Volume(noisy), Layout.from_json(records[0]["layouts"][product])
    jobs = [record["provenance"] for record in records]
    finished = output / f"{product}.ome.zarr"
    with store.claim(store.lock_of(finished)):
        return store.commit(
            finished,
            layout,
            records[0]["key"],
            replace(volume.metadata, name=f"{volume.metadata.name}, {product}"),
            {
                "provenance": jobs[0],
                "peak_memory_mb": max(job["peak_memory_mb"] for job in jobs),
                "voxels": int(np.prod(volume.shape)),
            },
            sum_of=("seconds", "joules", "clipped_voxels", "copied_voxels"),
            threads=threads,
            root=volume.root,
        )
