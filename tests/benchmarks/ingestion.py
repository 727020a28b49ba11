"""Ingest of a TIFF into a sharded OME-Zarr with its pyramid, against other converters and writers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ssdenoise.config.specs import IngestSpec, Storage, dump
from ssdenoise.store import Layout, ShardWriter
from tests.benchmarks.measure import THREADS, Peer, interleaved, seconds_of
from tests.conftest import scene

#: One GiB of uint16.
SHAPE = (128, 2048, 2048)


def write_source(folder: Path) -> np.ndarray:
    """Photon counts as an OME-TIFF for the converters, and as an array for the peer's writer."""
    rng = np.random.default_rng(0)
    base = scene((4, 2048, 2048))
    voxels = np.empty(SHAPE, np.uint16)
    for z in range(SHAPE[0]):
        voxels[z] = rng.poisson(base[z % 4])
    tifffile.imwrite(folder / "v.tif", voxels, metadata={"axes": "ZYX"}, ome=True)
    np.save(folder / "v.npy", voxels[None, None])
    return voxels


def ingestion(folder: Path, peer: Peer, python: Path, rounds: int) -> pd.DataFrame:
    """Megabytes of voxels per second: of writers of the same shards from memory, and of converters end to end."""
    voxels = write_source(folder)
    size = voxels.nbytes / 1e6
    spec = IngestSpec(name="v", source="v.tif", axes=None, voxel_size_um=None, storage=Storage())

    def command(*arguments: object) -> float:
        shutil.rmtree(folder / "out.ome.zarr", ignore_errors=True)
        shutil.rmtree(folder / "out.ome.zarr.shards", ignore_errors=True)
        run = [str(argument) for argument in arguments]
        return seconds_of(lambda: subprocess.run(run, cwd=folder, check=True, capture_output=True))

    def ours_from_memory() -> float:
        shutil.rmtree(folder / "level", ignore_errors=True)
        shutil.rmtree(folder / "level.shards", ignore_errors=True)
        storage = Storage()
        writer = ShardWriter(
            folder / "level", Layout.fit((1, 1, *SHAPE), "uint16", storage.chunk, storage.shard), "key"
        )
        whole = voxels[None, None]

        def write() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda s: writer.write(s[0], np.ascontiguousarray(whole[s[1]])), writer.regions()))

        return seconds_of(write)

    binary = python.parent
    into = ["-q", "-i", "v.tif", "-o", "out.ome.zarr", "--input-backend", "tifffile", "-d", "z", "y", "x"]
    ngff_zarr = [binary / "ngff-zarr", *into]
    found = interleaved(
        {
            "ssdenoise, level 0 from memory": ours_from_memory,
            "tensorstore, level 0 from memory": lambda: float(
                peer.ask("tensorstore", volume=str(folder / "v.npy"), output=str(folder / "ts"))["seconds"]
            ),
            "ssdenoise ingest": lambda: command(
                sys.executable,
                "-m",
                "ssdenoise",
                "ingest",
                "--spec",
                dump(spec),
                "--output",
                "out.ome.zarr",
                "--threads",
                THREADS,
            ),
            "bioio-convert": lambda: command(
                binary / "bioio-convert", "v.tif", "-d", ".", "-n", "out", "--num-levels", 4
            ),
            "ngff-zarr": lambda: command(*ngff_zarr),
            "ngff-zarr, block means": lambda: command(*ngff_zarr, "-m", "itkwasm_bin_shrink"),
        },
        rounds,
        warm=False,
    )
    return pd.DataFrame(
        {"ingest of 1 GiB": name, "MB/s": size / seconds, "seconds": seconds} for name, seconds in found.items()
    )
