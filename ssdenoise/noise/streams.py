"""Random streams: what is drawn depends on a key and on nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

#: Blocks of this shape (T, C, Z, Y, X) each have a random stream of their own, so that what is drawn for a voxel
#: depends on where it lies and on nothing else: not on chunks, shards, workers or their order.
STREAM_BLOCK = (1, 1, 8, 128, 128)


def stream(*key: str | int) -> np.random.Generator:
    """Counter-based generator for a key: the same key gives the same numbers on every machine and in any order."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Streams:
    """The random streams of a block: for its voxels, and for what it shares with other channels and other blocks."""

    key: tuple[str | int, ...]
    block: tuple[int, ...]

    @property
    def voxels(self) -> np.random.Generator:
        """For each voxel of the block."""
        return stream(*self.key, *self.block)

    @property
    def common(self) -> np.random.Generator:
        """The same for all channels."""
        return stream(*self.key, "all channels", self.block[0], *self.block[2:])

    def plane(self, z: int) -> np.random.Generator:
        """The same for all of the z-th plane of the block, in all blocks beside it and in all channels."""
        return stream(*self.key, "plane", self.block[0], self.block[2] * STREAM_BLOCK[2] + z)

    def lines(self, along: int) -> np.random.Generator:
        """The same for all blocks of the volume that lie beside it along an axis (3: Y, 4: X)."""
        return stream(*self.key, "lines", along, *self.block[:along], *self.block[along + 1 :])

    def beside(self, y: int, x: int) -> Streams:
        """Those of the block so many further along Y and X, which may lie outside of the volume."""
        return Streams(self.key, (*self.block[:3], self.block[3] + y, self.block[4] + x))
