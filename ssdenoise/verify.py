"""Verify: whether the voxels of a store are still those that were committed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ssdenoise.errors import DamagedStore
from ssdenoise.grid import Region, blocks
from ssdenoise.store import Volume, combined, record_path, voxels_digest

log = logging.getLogger(__name__)

#: Shards that an error names.
MOST_NAMED = 5


def verify(store: Path, threads: int = 1, *, withdraw: bool = False) -> str:
    """Recompute the digest of a store from all voxels of all levels.

    Parameters
    ----------
    store : Path
    threads : int
        Shards read at once.
    withdraw : bool
        Of a damaged store, remove the commit and the records of its damaged shards: the job that writes it, run again,
        makes these shards anew and keeps the others.

    Returns
    -------
    str
        The digest.

    Raises
    ------
    DamagedStore
        If it is not the one in the commit record. Shards that cannot be read, or that differ from their records, where
        these still lie beside the store, are named.
    """
    volume = Volume(store)
    shards = list(_shards(volume))
    parts: list[tuple[int, tuple[int, ...], str]] = []
    wrong: dict[tuple[int, tuple[int, ...]], str] = {}
    arrays = [volume.level(level) for level in range(volume.levels)]

    def read(shard: tuple[int, tuple[int, ...], Region]) -> tuple[str, str]:
        """Digest of a shard, or why it has none."""
        level, _, region = shard
        try:
            return voxels_digest(np.asarray(arrays[level][region])), ""
        except Exception as error:  # what a codec raises at bytes that are not its own
            return "", f" cannot be read ({str(error).partition(chr(10))[0]})"

    with ThreadPoolExecutor(threads) as pool:
        for (level, index, _), (found, fault) in zip(shards, pool.map(read, shards), strict=True):
            parts.append((level, index, found))
            expected = _recorded(volume.path, level, index)
            if fault or (expected is not None and found != expected):
                wrong[level, index] = f"level {level} shard {'/'.join(map(str, index))}{fault}"
    if (digest := combined(parts)) != volume.digest:
        named = ": " + "; ".join([*wrong.values()][:MOST_NAMED]) if wrong else ""
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        remedy = "verify it with `--withdraw`, then run the job that writes it again"
        if withdraw:
            volume.withdraw()
            for level, index in wrong:
                record_path(volume.path, level, index).unlink(missing_ok=True)
            remedy = "its commit is withdrawn: run the job that writes it again"
        raise DamagedStore(f"{volume.path} does not hold the voxels that were committed{named}{more}; {remedy}")
    log.info("%s: %d shards are as they were committed", volume.path, len(shards))
    return digest


def _shards(volume: Volume) -> Iterator[tuple[int, tuple[int, ...], Region]]:
    """Level, index and region of every shard."""
    for level in range(volume.levels):
        array = volume.level(level)
        assert array.shards is not None, "ssdenoise writes sharded arrays only"
        for index, region in blocks(array.shape, array.shards):
            yield level, index, region


def _recorded(store: Path, level: int, index: tuple[int, ...]) -> str | None:
    """Digest of a shard as it was written; None if its record is gone."""
    try:
        return str(json.loads(record_path(store, level, index).read_text())["digest"])
    except FileNotFoundError:
        return None
