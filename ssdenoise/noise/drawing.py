"""Drawing noise on clean volumes, by blocks of a fixed grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdenoise.grid import Region, extent
from ssdenoise.noise.kinds import AnyNoise
from ssdenoise.noise.streams import STREAM_BLOCK, Streams


def synthesize(
    read_clean: Callable[[Region], npt.NDArray[Any]],
    shape: Sequence[int],
    region: Region,
    noise: AnyNoise,
    key: tuple[str | int, ...],
) -> npt.NDArray[np.float32]:
    """Draw the noise of one region of a volume; the same values whatever the regions are.

    Parameters
    ----------
    read_clean : callable
        Returns the clean voxels of a region.
    shape : sequence of int
        Shape of the volume, TCZYX.
    region : Region
        The voxels wanted.
    noise : AnyNoise
        What to draw, resolved.
    key : tuple
        What the random streams derive from, such as (seed, dataset, noise level, realization).

    Returns
    -------
    ndarray of float32, shape of the region
    """
    out = np.empty(extent(region), np.float32)
    first = tuple(s.start // b for s, b in zip(region, STREAM_BLOCK, strict=True))
    stop = tuple(-(-s.stop // b) for s, b in zip(region, STREAM_BLOCK, strict=True))
    for index in np.ndindex(*(b - a for a, b in zip(first, stop, strict=True))):
        block = tuple(int(i + a) for i, a in zip(index, first, strict=True))
        whole = tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(block, STREAM_BLOCK, shape, strict=True))
        drawn = noise.draw(read_clean(whole).astype(np.float64), Streams(key, block))
        wanted = tuple(slice(max(w.start, r.start), min(w.stop, r.stop)) for w, r in zip(whole, region, strict=True))
        inside = tuple(slice(a.start - w.start, a.stop - w.start) for a, w in zip(wanted, whole, strict=True))
        target = tuple(slice(a.start - r.start, a.stop - r.start) for a, r in zip(wanted, region, strict=True))
        out[target] = noise.detected(drawn[inside])
    return out
