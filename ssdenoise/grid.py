"""Blocks, tiles and slabs of an n-d volume: integer arithmetic only, no pixels.

A tile is the unit of inference. Along one axis, for a network of stride 4 and halo 4::

    volume   |0 . . . . . . . . . . . . .|            14 voxels
    padded   |0 . . . . . . . . . . . . . 0 0|        16, the next multiple of the stride
    tile 0   [core core core core core core core core|halo halo halo halo]
    tile 1           [halo halo halo halo|core core core core core core|pad pad]

Cores cover each voxel exactly once. Origins and sizes of what a tile reads are multiples of the stride, so that each
pooling window of the network falls on the same voxels as it would in the whole volume; where the halo would leave the
padded volume it is cut there, so that the zero padding inside the network happens at the same place too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

Region = tuple[slice, ...]

#: Number of halos in a tile's core from which on a larger one saves too little.
HALO_SHARE = 40


def ceil_to(n: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `n`."""
    return -(-n // multiple) * multiple


def blocks(shape: Sequence[int], block: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Index and region of each block of a regular grid, in C order; the last block of an axis may be smaller."""
    for index in product(*(range(-(-n // b)) for n, b in zip(shape, block, strict=True))):
        yield index, tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(index, block, shape, strict=True))


def blocks_of(region: Region, shape: Sequence[int], block: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Index of each block of a regular grid in a region, and where it lies in it, in C order.

    Raises
    ------
    ValueError
        If the region is not made of whole blocks: two writers of one block would lose voxels.
    """
    for s, b, n in zip(region, block, shape, strict=True):
        if s.start % b or (s.stop % b and s.stop != n):
            raise ValueError(f"{s.start}:{s.stop} of {n} voxels is not made of whole blocks of {b}")
    first = [s.start // b for s, b in zip(region, block, strict=True)]
    for index, local in blocks(extent(region), block):
        yield tuple(i + f for i, f in zip(index, first, strict=True)), local


def extent(region: Region) -> tuple[int, ...]:
    """Shape of a region."""
    return tuple(s.stop - s.start for s in region)


def bands(shape: Sequence[int], shard: Sequence[int], ends: Sequence[Sequence[int]], voxels: int) -> Iterator[Region]:
    """Regions of whole shards by which a volume is copied from a source, in C order; together they cover it once.

    Parameters
    ----------
    shape, shard : sequence of int
        Of the volume that is written.
    ends : sequence of sequence of int
        Per axis, where the source's chunks end.
    voxels : int
        Most voxels of a region, if a shard has no more.

    Notes
    -----
    Regions end where a shard and a chunk end, so that no chunk is read for two of them; where that makes them larger
    than `voxels` they also end between, at shards, along the first axes first: most sources are planes one after the
    other, and cutting a volume between planes costs nothing.
    """
    cuts = [
        sorted({0, n, *(e for e in axis if e % b == 0 and e < n)})
        for n, b, axis in zip(shape, shard, ends, strict=True)
    ]
    for axis, b in enumerate(shard):
        largest = [max(b - a for a, b in pairwise(c)) for c in cuts]
        allowed = voxels // (math.prod(largest) // largest[axis])
        if largest[axis] <= allowed:
            break
        most = max(1, allowed // b) * b
        cuts[axis] = [a for start, stop in pairwise(cuts[axis]) for a in range(start, stop, most)] + [shape[axis]]
    for corner in product(*(pairwise(c) for c in cuts)):
        yield tuple(slice(a, b) for a, b in corner)


def share_of(count: int, part: int, parts: int) -> range:
    """Positions 0..count-1 that belong to slab `part` of `parts`: contiguous and balanced to within one."""
    return range(count * part // parts, count * (part + 1) // parts)


@dataclass(frozen=True)
class Tile:
    """One unit of inference; all fields have one entry per axis.

    Attributes
    ----------
    core : Region
        The voxels of the volume that this tile writes.
    read : Region
        The voxels of the volume that it reads: the core and its halo, cut at the volume.
    pad : tuple of int
        Voxels to append after the read ones, so that the size is a multiple of the stride.
    crop : Region
        Where the core lies in the network's output.
    """

    core: Region
    read: Region
    pad: tuple[int, ...]
    crop: Region


def tile(core: Region, shape: Sequence[int], halo: Sequence[int], stride: Sequence[int]) -> Tile:
    """Tile around a core; see the module's picture.

    Raises
    ------
    ValueError
        If the core's origin is no multiple of the stride: the network would pool other voxels together.
    """
    read, pad, crop = [], [], []
    for c, n, h, s in zip(core, shape, halo, stride, strict=True):
        if c.start % s or (c.stop % s and c.stop != n):
            raise ValueError(f"tile core {c.start}:{c.stop} of {n} voxels is not aligned to the stride {s}")
        start = max(0, c.start - ceil_to(h, s))
        stop = min(ceil_to(n, s), ceil_to(c.stop, s) + ceil_to(h, s))
        read.append(slice(start, min(stop, n)))
        pad.append(stop - min(stop, n))
        crop.append(slice(c.start - start, c.stop - start))
    return Tile(core, tuple(read), tuple(pad), tuple(crop))


def core_shape(
    shape: Sequence[int], shard: Sequence[int], halo: Sequence[int], stride: Sequence[int], voxels: int
) -> tuple[int, ...]:
    """Tile core made of whole shards, grown while the halo is worth it and the tile has at most `voxels` voxels.

    The core is at least one shard rounded up to the stride, whatever `voxels` says.
    """
    core = [math.lcm(b, s) for b, s in zip(shard, stride, strict=True)]
    while True:
        open_axes = [a for a in range(len(core)) if HALO_SHARE * halo[a] > core[a] and core[a] < shape[a]]
        if not open_axes or 2 * math.prod(core) > voxels:
            return tuple(core)
        # doubling the axis whose halo is largest against its core saves the most work
        axis = max(open_axes, key=lambda a: halo[a] / core[a])
        core[axis] *= 2
