"""Denoise: run a trained model over one slab of a volume, tile by tile."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssdenoise.config.specs import DenoiseSpec, dump
from ssdenoise.denoise.crew import DENOISED, UNCERTAINTY, Job, denoise_tiles, in_flight
from ssdenoise.device import CPU, Device
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.grid import Tile, blocks, core_shape, extent, share_of, tile
from ssdenoise.methods import Method
from ssdenoise.model import Model, load_model
from ssdenoise.pieces import bytes_per_voxel, spatial
from ssdenoise.provenance import Clock, code_hash, digest, record, write_json
from ssdenoise.store import Layout, ShardWriter, Volume, claim, lock_of, share

__all__ = ["DENOISED", "UNCERTAINTY", "denoise"]

log = logging.getLogger(__name__)

#: Voxels of a tile's core, all channels counted: fewer spend more of the work on halos.
TILE_VOXELS = 2**24

#: Voxels that pass the network at once, if memory allows: more are no faster. And however little memory there is: fewer
#: are little but halo.
PIECE_VOXELS, LEAST_VOXELS = 2**21, 2**17

#: Memory for what passes the network at once, unless the least takes more: larger pieces are hardly faster, and a job
#: that is granted more, as at a second attempt, makes the same ones.
PIECES_MB = 3000

#: Memory of a process without voxels, in MB: Python, torch and the other libraries.
PROCESS_MB = 700


def denoise(
    spec: DenoiseSpec,
    noisy: Path,
    model: Path,
    output: Path,
    device: Device = CPU,
    *,
    pair: Path | None = None,
    slab: int = 0,
    slabs: int = 1,
    memory_mb: float = 4000,
    workers: int = 1,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Denoise one slab of a volume.

    Parameters
    ----------
    spec : DenoiseSpec
    noisy : Path
        Store of the noisy volume.
    model : Path
        Folder of the model.
    output : Path
        Folder for the stores `denoised.ome.zarr` and, from probabilistic methods, `uncertainty.ome.zarr` (the
        standard deviation of the estimate, float32). They stay unfinished until `commit`.
    device : Device
    pair : Path, optional
        Store of a second realization, which is denoised too; the mean of both estimates is written.
    slab, slabs : int
        Which share of the tiles to do; other slabs may be done at the same time by other jobs.
    memory_mb : float
        Memory granted, of all workers on this machine together. With less of it pieces are smaller, which spends more
        of the work on halos and changes estimates in the last digits of a float32 at most.
    workers : int
        Processes on this machine that share the threads of `device`; each has a GPU of its own, if there are any.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the work instead, with the threads and the GPU that each has
        (`Device.elsewhere`); they run in the same folder as this process, and `memory_mb` is that of each.

    Returns
    -------
    dict
        Record of the slab, which `commit` needs; also written to `slabs/{slab}-of-{slabs}.json`.

    Notes
    -----
    Tiles are Dask tasks: while the network works on one, the next is read and the last is written. Shards found
    finished from the same model, input, options and code are kept, also where they were made with other memory. Of two
    jobs that do the same slab, or that part the volume otherwise, the second ends with `InUseError`.
    """
    clock = Clock()
    volume, loaded = Volume(noisy), load_model(model)
    volumes = [volume] + ([Volume(pair)] if pair else [])
    code = code_hash("denoise", loaded.method.name)
    if not 0 <= slab < slabs:
        raise ConfigError(f"slab {slab} of {slabs}: slabs count from 0 to {slabs - 1}")
    _check(volumes, loaded, model)
    key = digest(dump(spec), *(each.digest for each in volumes), loaded.digest, code, device.kind)
    CPU.place_for_inference(loaded.net)  # as it will run, to see what memory that takes
    layouts = _layouts(spec, volume, loaded)
    stores = [output / f"{product}.ome.zarr" for product in layouts]
    work = f"jobs that denoise by {slabs} slabs, key {key[:12]}"
    with contextlib.ExitStack() as locks:
        locks.enter_context(claim(output / "slabs" / f"{slab}-of-{slabs}.lock"))
        for store in stores:
            locks.enter_context(share(lock_of(store), work))
        writers = [
            ShardWriter(store, layout, key, root=volume.root)
            for store, layout in zip(stores, layouts.values(), strict=True)
        ]
        tiles = tiles_of(volume.shape, volume.layout.shard, *spatial(loaded.net))
        mine = [tiles[i] for i in share_of(len(tiles), slab, slabs)]
        todo, kept = _left(mine, writers)
        log.info("slab %d of %d: %d tiles, %d shards kept from an earlier run", slab, slabs, len(mine), kept)
        each_mb = memory_mb if scheduler or workers == 1 else (memory_mb - PROCESS_MB) / workers
        held = tile_bytes(tiles, sum(each.array.dtype.itemsize for each in volumes), loaded.method, device)
        job = Job(
            noisy=tuple(each.path for each in volumes),
            model=model,
            output=output,
            layouts=tuple(layouts.items()),
            key=key,
            work=work,
            empty_below=spec.empty_below,
            piece_voxels=piece_voxels(held, each_mb, bytes_per_voxel(loaded), device),
            gpu=int(device.kind == "cuda"),
            threads=device.threads,
        )
        peak = denoise_tiles(job, todo, device, workers, scheduler)
        inputs = {"noisy": volume.digest, "model": loaded.digest} | ({"pair": volumes[1].digest} if pair else {})
        options = spec.model_dump(mode="json")
        provenance = record("denoise", spec=options, inputs=inputs, code=code, clock=clock, device=device.name)
        result = {
            "slab": slab,
            "slabs": slabs,
            "shards_kept": kept,
            "key": key,
            "layouts": {product: vars(layout) for product, layout in layouts.items()},
            "provenance": provenance | {"peak_memory_mb": max(peak, provenance["peak_memory_mb"])},
        }
        write_json(output / "slabs" / f"{slab}-of-{slabs}.json", result)
    return result


def _check(volumes: Sequence[Volume], loaded: Model, model: Path) -> None:
    """Refuse volumes that the model or the pair does not fit."""
    volume = volumes[0]
    if loaded.channels != volume.shape[1]:
        raise FormatError(
            f"{volume.path} has {volume.shape[1]} channels, the model {model} was trained on {loaded.channels}"
        )
    if volumes[-1].shape != volume.shape:
        raise FormatError(f"{volumes[-1].path} has shape {volumes[-1].shape}, {volume.path} {volume.shape}")


def _left(tiles: Sequence[Tile], writers: Sequence[ShardWriter]) -> tuple[list[Tile], int]:
    """Tiles with a shard that is not finished, and how many shards are."""
    done = [[w.is_done(index) for w in writers for index, _ in w.shards_of(one.core)] for one in tiles]
    return [one for one, shards in zip(tiles, done, strict=True) if not all(shards)], sum(map(sum, done))


def _layouts(spec: DenoiseSpec, volume: Volume, model: Model) -> dict[str, Layout]:
    """Layout of each product that the method has."""
    layout = volume.layout
    dtypes = {DENOISED: layout.dtype if spec.denoised_dtype == "same" else spec.denoised_dtype}
    if model.method.probabilistic and spec.uncertainty:
        dtypes[UNCERTAINTY] = "float32"
    return {product: replace(layout, dtype=dtype) for product, dtype in dtypes.items()}


def tiles_of(shape: Sequence[int], shard: Sequence[int], halo: Sequence[int], stride: Sequence[int]) -> list[Tile]:
    """All tiles of a volume; a tile holds all channels of one time point.

    They do not depend on what this job was granted: the slabs of a volume are shares of one list.
    """
    core = core_shape(shape, (1, shape[1], *shard[2:]), halo, stride, TILE_VOXELS)
    return [tile(region, shape, halo, stride) for _, region in blocks(shape, core)]


def tile_bytes(tiles: Sequence[Tile], itemsize: int, method: Method, device: Device) -> int:
    """Memory of the tiles in flight; `itemsize` is what is read of a voxel, of one realization or both."""
    largest = max((math.prod(extent(one.read)) for one in tiles), default=0)
    return in_flight(device) * largest * (itemsize + 4 * (1 + method.probabilistic))


def piece_voxels(held: float, memory_mb: float, per_voxel: float, device: Device) -> int:
    """Voxels that may pass the network at once, from what the tiles in flight leave of the memory granted.

    A GPU has memory of its own for them, and where it has too little, pieces are halved when that shows.
    """
    left = min(1e6 * (memory_mb - PROCESS_MB) - held, max(1e6 * PIECES_MB, LEAST_VOXELS * per_voxel))
    least = 0.0 if device.kind == "cuda" else LEAST_VOXELS * per_voxel
    if left < least:
        needed = PROCESS_MB + (held + least) / 1e6
        log.warning("granted are %.0f MB of memory, %.0f may be needed", memory_mb, needed)
    if device.kind == "cuda":
        return PIECE_VOXELS
    return min(PIECE_VOXELS, max(LEAST_VOXELS, int(left / per_voxel)))
