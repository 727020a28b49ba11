"""Parts of volumes held in memory, from which patches are cut: whole volumes if they fit, shards read ahead if not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdenoise.grid import Region, ceil_to
from ssdenoise.noise import stream

#: Bytes of voxels that a training holds; one part more is being read.
POOL_BYTES = 2**28

#: Patches that a part gives on average before another takes its place: fewer would read more than they learn.
PATCHES_PER_PART = 64

#: Time points of a part whose patches are paired with others of the same place.
FRAMES = 8


@dataclass(frozen=True)
class Part:
    """A box of one scene: its number, and a region in T, Z, Y, X; all channels."""

    scene: int
    region: Region

    @property
    def voxels(self) -> int:
        """Number of voxels of a channel."""
        return math.prod(s.stop - s.start for s in self.region)


def parts_of(scene: int, shape: Sequence[int], shard: Sequence[int], patch: Sequence[int], frames: int) -> list[Part]:
    """Boxes that cover a scene, of whole shards if these are large enough for patches to have room.

    Parameters
    ----------
    scene : int
    shape : sequence of int
        TZYX.
    shard, patch : sequence of int
        ZYX.
    frames : int
        Time points of a box.
    """
    box = (frames, *(ceil_to(max(s, min(2 * p, n)), s) for s, p, n in zip(shard, patch, shape[1:], strict=True)))
    least = (min(2, frames), *patch)

    def intervals(n: int, size: int, need: int) -> Iterator[slice]:
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield slice(max(0, min(start, stop - need)), stop)  # a rest too small for a patch is enlarged

    return [
        Part(scene, region)
        for region in product(*(intervals(n, b, k) for n, b, k in zip(shape, box, least, strict=True)))
    ]


class Pool:
    """A window that moves over a random order of parts; what it holds at a step depends on nothing but the step.

    Parameters
    ----------
    parts : sequence of Part
    held : int
        Parts in memory at once; all of them, if there are no more.
    steps : int
        Training steps after which one part takes the place of another.
    read : callable
        Reads the volumes of a part's scene, in a thread of its own while the network trains.
    key : sequence
        Of the random order.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        held: int,
        steps: int,
        read: Callable[[Part], list[npt.NDArray[Any]]],
        key: Sequence[int | str],
    ) -> None:
        self.parts, self.held, self.steps, self.key = parts, min(held, len(parts)), steps, tuple(key)
        self._read, self._thread = read, ThreadPoolExecutor(1)
        self._futures: dict[int, Future[list[npt.NDArray[Any]]]] = {}
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def at(self, step: int) -> list[tuple[Part, list[npt.NDArray[Any]]]]:
        """The parts of a step, and the voxels of each part's volumes, TCZYX."""
        now, ahead = self._window(step), self._window(step + self.steps)
        for gone in self._futures.keys() - {*now, *ahead}:
            del self._futures[gone]
        for number in dict.fromkeys([*now, *ahead]):
            if number not in self._futures:
                self._futures[number] = self._thread.submit(self._read, self.parts[number])
        return [(self.parts[number], self._futures[number].result()) for number in now]

    def _window(self, step: int) -> list[int]:
        """Numbers of the parts of a step; a part that two orders give in close succession counts once."""
        if self.held == len(self.parts):
            return list(range(self.held))
        first, count = step // self.steps, len(self.parts)
        return list(dict.fromkeys(int(self._order(i // count)[i % count]) for i in range(first, first + self.held)))

    def _order(self, turn: int) -> npt.NDArray[np.int64]:
        """The order of all parts of one turn through them; a window lies in two of them at most."""
        if turn not in self._orders:
            self._orders = {before: order for before, order in self._orders.items() if before == turn - 1}
            self._orders[turn] = stream(*self.key, "parts", turn).permutation(len(self.parts))
        return self._orders[turn]
