"""Hypothesis strategies: shapes, shards, halos and strides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Tiling:
    """A volume to tile; entries per axis."""

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    halo: tuple[int, ...]
    stride: tuple[int, ...]
    voxels: int


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    axes = draw(st.integers(1, 3))
    stride = tuple(draw(st.sampled_from([1, 2, 4, 8])) for _ in range(axes))
    return Tiling(
        shape=tuple(draw(st.integers(1, 60)) for _ in range(axes)),
        shard=tuple(draw(st.integers(1, 20)) for _ in range(axes)),
        halo=tuple(draw(st.integers(0, 3)) * s for s in stride),
        stride=stride,
        voxels=draw(st.integers(1, 10_000)),
    )


def volumes_small() -> st.SearchStrategy[tuple[int, int, int, int, int]]:
    """Shapes TCZYX, odd and even, of at most a few thousand voxels."""
    return st.tuples(
        st.integers(1, 2), st.integers(1, 2), st.integers(1, 7), st.integers(1, 40), st.integers(1, 40)
    ).filter(lambda shape: math.prod(shape) < 20_000)
