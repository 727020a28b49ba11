"""Denoise: run a trained model over one slab of a volume, tile by tile, and commit the finished volume."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import torch

from ssdenoise.config import DenoiseSpec, dump
from ssdenoise.device import Device
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.grid import Region, Tile, blocks, core_shape, share, tile
from ssdenoise.methods import Estimate
from ssdenoise.model import Model, load_model
from ssdenoise.provenance import Clock, code_hash, digest, record, write_json
from ssdenoise.store import Layout, ShardWriter, Volume, commit, to_dtype

log = logging.getLogger(__name__)

#: Voxels of a tile's core: more needs more memory, fewer spend more of the work on halos.
TILE_VOXELS = 2**22

#: Pixels that pass the network at once in 2-D.
BATCH_PIXELS = 2**19

#: Tiles in flight: one being read, one in the network, one being written.
WORKERS = 3

#: The products of a method and whether only a probabilistic one has it.
DENOISED, UNCERTAINTY = "denoised", "uncertainty"


def denoise(
    spec: DenoiseSpec, noisy: Path, model: Path, output: Path, device: Device, *, slab: int = 0, slabs: int = 1
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
        standard deviation of the estimate, float32). They stay unfinished until `commit_denoised`.
    device : Device
    slab, slabs : int
        Which share of the tiles to do; other slabs may be done at the same time by other jobs.

    Returns
    -------
    dict
        Record of the slab: what was written, kept, clipped, and how long it took.

    Notes
    -----
    Tiles are Dask tasks on threads: while the network works on one tile, the next is read and the last is written.
    Shards found finished from the same model, input, options and code are kept.
    """
    clock = Clock()
    volume, loaded = Volume(noisy), load_model(model)
    if loaded.channels != volume.shape[1]:
        raise FormatError(
            f"{volume.path} has {volume.shape[1]} channels, the model {model} was trained on {loaded.channels}"
        )
    if not 0 <= slab < slabs:
        raise ConfigError(f"slab {slab} of {slabs}: slabs count from 0 to {slabs - 1}")
    writers = _writers(spec, volume, loaded, output)
    tiles = _tiles(volume, loaded)
    mine = [tiles[i] for i in share(len(tiles), slab, slabs)]
    kept = sum(
        writer.is_done(index) for writer in writers.values() for t in mine for index in _shards(t, writer.layout)
    )
    todo = [t for t in mine if not all(w.is_done(index) for w in writers.values() for index in _shards(t, w.layout))]
    log.info("slab %d of %d: %d tiles, %d shards kept from an earlier run", slab, slabs, len(mine), kept)
    device.place_for_inference(loaded.net, loaded.ndim)
    network = threading.Lock()  # one tile at a time: torch already uses all threads granted

    def work(one: Tile) -> int:
        mean, std = _denoise_tile(one, volume, loaded, device, network)
        clipped = _write(writers[DENOISED], one, mean)
        if UNCERTAINTY in writers:
            assert std is not None, "probabilistic methods return a standard deviation"
            _write(writers[UNCERTAINTY], one, std)
        return clipped

    clipped = dask.compute(*(dask.delayed(work)(one) for one in todo), scheduler="threads", num_workers=WORKERS)
    result = {
        "slab": slab,
        "slabs": slabs,
        "shards_kept": kept,
        "clipped_voxels": int(sum(clipped)),
        "voxels": int(sum(np.prod([s.stop - s.start for s in one.core]) for one in todo)),
        "provenance": record(
            "denoise",
            spec=spec.model_dump(mode="json"),
            inputs={"noisy": volume.digest, "model": loaded.digest},
            code=code_hash("denoise", loaded.method.name),
            clock=clock,
            device=device.name,
        ),
    }
    write_json(output / "slabs" / f"{slab}-of-{slabs}.json", result)
    return result


def commit_denoised(
    spec: DenoiseSpec, noisy: Path, model: Path, output: Path, slabs: list[dict[str, Any]], product: str
) -> dict[str, Any]:
    """Finish one product of `denoise` once all its slabs are written: pyramid, digests, root `zarr.json`.

    Parameters
    ----------
    spec, noisy, model, output
        As for `denoise`.
    slabs : list of dict
        Records of all slabs.
    product : {"denoised", "uncertainty"}
    """
    volume, loaded = Volume(noisy), load_model(model)
    writer = _writers(spec, volume, loaded, output)[product]
    work = [slab["provenance"] for slab in slabs]
    cost = {
        "seconds": round(sum(one["seconds"] for one in work), 3),
        "peak_memory_mb": max(one["peak_memory_mb"] for one in work),
        "voxels": sum(slab["voxels"] for slab in slabs),
        "clipped_share": sum(slab["clipped_voxels"] for slab in slabs) / np.prod(volume.shape),
    }
    key = _key(spec, volume, loaded)
    return commit(writer.store, writer.layout, key, volume.metadata, {"provenance": work[0], "cost": cost})


def _key(spec: DenoiseSpec, volume: Volume, model: Model) -> str:
    return digest(dump(spec), volume.digest, model.digest, code_hash("denoise", model.method.name))


def _writers(spec: DenoiseSpec, volume: Volume, model: Model, output: Path) -> dict[str, ShardWriter]:
    layout = volume.layout
    dtype = layout.dtype if spec.denoised_dtype == "same" else "float32"
    products = {DENOISED: dtype} | ({UNCERTAINTY: "float32"} if model.method.probabilistic else {})
    key = _key(spec, volume, model)
    return {
        name: ShardWriter(output / f"{name}.ome.zarr", Layout(layout.shape, dtype, layout.chunk, layout.shard), key)
        for name, dtype in products.items()
    }


def _spatial(model: Model) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Halo and stride in TCZYX; planes have neither in Z."""
    missing = 5 - model.ndim
    return (0,) * missing + tuple(model.net.halo), (1,) * missing + tuple(model.net.stride)


def _tiles(volume: Volume, model: Model) -> list[Tile]:
    """All tiles of a volume; a tile holds all channels of one time point."""
    halo, stride = _spatial(model)
    shard = (1, volume.shape[1], *volume.layout.shard[2:])
    core = core_shape(volume.shape, shard, halo, stride, TILE_VOXELS)
    return [tile(region, volume.shape, halo, stride) for _, region in blocks(volume.shape, core)]


def _shards(one: Tile, layout: Layout) -> list[tuple[int, ...]]:
    """Indices of the shards of a tile's core, which must be whole: two writers of one shard would lose voxels."""
    for s, b, n in zip(one.core, layout.shard, layout.shape, strict=True):
        whole = s.start % b == 0 and (s.stop % b == 0 or s.stop == n)
        assert whole, "a tile core is whole shards"
    first = [s.start // b for s, b in zip(one.core, layout.shard, strict=True)]
    count = [-(-s.stop // b) - f for s, b, f in zip(one.core, layout.shard, first, strict=True)]
    return [tuple(int(i) + f for i, f in zip(index, first, strict=True)) for index in np.ndindex(*count)]


def _denoise_tile(
    one: Tile, volume: Volume, model: Model, device: Device, network: threading.Lock
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Mean and standard deviation of a tile's core, in intensities."""
    values = model.normalization.apply(volume.read(one.read))
    # zeros are what the network's own padding continues with; copies of voxels would open the blind spot
    padded = np.pad(values, [(0, n) for n in one.pad])
    with network:
        mean, std = estimate(model, padded, device)
    return (
        model.normalization.invert(mean[one.crop]),
        None if std is None else std[one.crop] * np.float32(model.normalization.scale),
    )


@torch.no_grad()
def estimate(
    model: Model, noisy: npt.NDArray[np.float32], device: Device
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Run the network over an array TCZYX in normalised units whose sizes are multiples of the stride."""
    t, c, z, y, x = noisy.shape
    samples = torch.from_numpy(noisy)
    if model.ndim == 2:
        samples = samples.transpose(1, 2).reshape(t * z, c, y, x)  # planes are samples
    batch = max(1, BATCH_PIXELS // (y * x)) if model.ndim == 2 else 1
    parts = [
        model.method.denoise(model.net, device.send_for_inference(samples[i : i + batch]))
        for i in range(0, len(samples), batch)
    ]
    whole = Estimate(
        torch.cat([part.mean.cpu() for part in parts]),
        torch.cat([part.std.cpu() for part in parts if part.std is not None]) if model.method.probabilistic else None,
    )

    def array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
        if model.ndim == 2:
            tensor = tensor.reshape(t, z, c, y, x).transpose(1, 2)
        return np.ascontiguousarray(tensor.numpy())

    return array(whole.mean), None if whole.std is None else array(whole.std)


def _write(writer: ShardWriter, one: Tile, values: npt.NDArray[np.float32]) -> int:
    """Write the shards of a tile; returns how many voxels had to be clipped to the dtype's range."""
    clipped = 0
    for index in _shards(one, writer.layout):
        region: Region = tuple(
            slice(i * b - s.start, min((i + 1) * b, n) - s.start)
            for i, b, n, s in zip(index, writer.layout.shard, writer.layout.shape, one.core, strict=True)
        )
        block = values[region]
        kind = np.dtype(writer.layout.dtype)
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            rounded = np.rint(block)
            clipped += int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
        if not writer.is_done(index):
            writer.write(index, to_dtype(block, writer.layout.dtype))
    return clipped
