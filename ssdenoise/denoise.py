"""Denoise: run a trained model over one slab of a volume, tile by tile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import torch

from ssdenoise.config.specs import DenoiseSpec, dump
from ssdenoise.device import CPU, Device
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.grid import Tile, blocks, core_shape, share, tile
from ssdenoise.methods import Estimate, Network
from ssdenoise.model import Model, load_model
from ssdenoise.provenance import Clock, code_hash, digest, record, write_json
from ssdenoise.store import Layout, ShardWriter, Volume, claim, to_dtype

log = logging.getLogger(__name__)

#: Voxels of a tile's core: more needs more memory, fewer spend more of the work on halos.
TILE_VOXELS = 2**22

#: Pixels that pass the network at once in 2-D: more need more memory and are no faster.
BATCH_PIXELS = 2**17

#: Tiles in flight: one being read, one in the network, one being written.
WORKERS = 3

DENOISED, UNCERTAINTY = "denoised", "uncertainty"


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

    Returns
    -------
    dict
        Record of the slab, which `commit` needs; also written to `slabs/{slab}-of-{slabs}.json`.

    Notes
    -----
    Tiles are Dask tasks on threads: while the network works on one tile, the next is read and the last is written.
    Shards found finished from the same model, input, options and code are kept. Of two jobs that do the
    same slab, the second ends with `InUseError`.
    """
    clock = Clock()
    volume, loaded = Volume(noisy), load_model(model)
    volumes = [volume] + ([Volume(pair)] if pair else [])
    code = code_hash("denoise", loaded.method.name)
    if not 0 <= slab < slabs:
        raise ConfigError(f"slab {slab} of {slabs}: slabs count from 0 to {slabs - 1}")
    _check(volumes, loaded, model)
    key = digest(dump(spec), *(each.digest for each in volumes), loaded.digest, code)
    writers = {
        product: ShardWriter(output / f"{product}.ome.zarr", layout, key)
        for product, layout in _layouts(spec, volume, loaded).items()
    }
    with claim(output / "slabs" / f"{slab}-of-{slabs}.lock"):
        tiles = _tiles(volume, loaded)
        mine = [tiles[i] for i in share(len(tiles), slab, slabs)]
        done = [[w.is_done(index) for w in writers.values() for index, _ in w.shards_of(t.core)] for t in mine]
        todo = [t for t, shards in zip(mine, done, strict=True) if not all(shards)]
        kept = sum(map(sum, done))
        log.info("slab %d of %d: %d tiles, %d shards kept from an earlier run", slab, slabs, len(mine), kept)
        device.place_for_inference(loaded.net, loaded.ndim)
        network = threading.Lock()  # one tile at a time: torch already uses all threads granted

        def work(one: Tile) -> None:
            mean, std, seconds = _denoise_tile(one, volumes, loaded, device, network)
            _write(writers[DENOISED], one, mean, seconds)
            if UNCERTAINTY in writers:
                assert std is not None, "probabilistic methods return a standard deviation"
                _write(writers[UNCERTAINTY], one, std, seconds)

        dask.compute(*(dask.delayed(work)(one) for one in todo), scheduler="threads", num_workers=WORKERS)
        result = {
            "slab": slab,
            "slabs": slabs,
            "shards_kept": kept,
            "key": key,
            "layouts": {product: vars(writer.layout) for product, writer in writers.items()},
            "provenance": record(
                "denoise",
                spec=spec.model_dump(mode="json"),
                inputs={"noisy": volume.digest, "model": loaded.digest} | ({"pair": volumes[1].digest} if pair else {}),
                code=code,
                clock=clock,
                device=device.name,
            ),
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


def _layouts(spec: DenoiseSpec, volume: Volume, model: Model) -> dict[str, Layout]:
    """Layout of each product that the method has."""
    layout = volume.layout
    dtypes = {DENOISED: layout.dtype if spec.denoised_dtype == "same" else spec.denoised_dtype}
    if model.method.probabilistic:
        dtypes[UNCERTAINTY] = "float32"
    return {product: replace(layout, dtype=dtype) for product, dtype in dtypes.items()}


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


def _denoise_tile(
    one: Tile, volumes: Sequence[Volume], model: Model, device: Device, network: threading.Lock
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None, float]:
    """Mean and standard deviation of a tile's core, in intensities, and the network's seconds; means over volumes."""
    found, seconds = [], 0.0
    for volume in volumes:
        values = model.normalization.apply(volume.read(one.read))
        with network:
            clock = Clock()
            found.append(estimate(model, filled_up(values, one.pad, model.net), device))
            seconds += clock.seconds()
    mean, std = (None if parts[0] is None else np.mean(parts, axis=0) for parts in zip(*found, strict=True))
    assert mean is not None
    return (
        model.normalization.invert(mean[one.crop]),
        None if std is None else model.normalization.invert_std(std[one.crop]),
        seconds,
    )


def filled_up(values: npt.NDArray[np.float32], pad: Sequence[int], net: Network) -> npt.NDArray[np.float32]:
    """Voxels TCZYX with so many more at the end of each axis, as the network wants them."""
    return np.pad(values, [(0, n) for n in pad], mode=net.padding)


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
        model.method.estimate(model.net, device.send_for_inference(samples[i : i + batch]))
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


def _write(writer: ShardWriter, one: Tile, values: npt.NDArray[np.float32], seconds: float) -> None:
    """Write the shards of a tile; each records its share of the seconds and the voxels clipped to the dtype's range."""
    shards = list(writer.shards_of(one.core))
    for index, region in shards:
        block, kind, clipped = values[region], np.dtype(writer.layout.dtype), 0
        if kind.kind in "iu":
            limits, rounded = np.iinfo(kind), np.rint(block)
            clipped = int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
        if not writer.is_done(index):
            writer.write(
                index, to_dtype(block, writer.layout.dtype), seconds=seconds / len(shards), clipped_voxels=clipped
            )
