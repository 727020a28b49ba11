from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssdenoise.grid import bands, blocks, core_shape, extent, share_of, tile
from tests.strategies import Tiling, tilings


@given(tilings())
def test_tile_cores_cover_every_voxel_once(t: Tiling) -> None:
    seen = np.zeros(t.shape, int)
    core = core_shape(t.shape, t.shard, t.halo, t.stride, t.voxels)
    for _, region in blocks(t.shape, core):
        seen[region] += 1
    assert (seen == 1).all()


@given(tilings())
def test_what_a_tile_reads_is_aligned_and_holds_its_halo(t: Tiling) -> None:
    core = core_shape(t.shape, t.shard, t.halo, t.stride, t.voxels)
    for _, region in blocks(t.shape, core):
        one = tile(region, t.shape, t.halo, t.stride)
        for axis, (c, r, pad, crop) in enumerate(zip(one.core, one.read, one.pad, one.crop, strict=True)):
            n, h, s = t.shape[axis], t.halo[axis], t.stride[axis]
            padded = -(-n // s) * s
            assert r.start % s == 0
            assert (r.stop - r.start + pad) % s == 0
            assert r.start == max(0, c.start - h)
            assert r.stop + pad == min(padded, -(-c.stop // s) * s + h)
            assert (crop.start, crop.stop) == (c.start - r.start, c.stop - r.start)


@given(tilings())
def test_tile_cores_are_whole_shards(t: Tiling) -> None:
    core = core_shape(t.shape, t.shard, t.halo, t.stride, t.voxels)
    assert all(c % b == 0 for c, b in zip(core, t.shard, strict=True))
    assert all(c % s == 0 for c, s in zip(core, t.stride, strict=True))


@given(st.data())
def test_bands_are_whole_shards_and_cover_the_volume_once(data: st.DataObject) -> None:
    shape, shard, chunk = (data.draw(st.tuples(*[st.integers(1, 12)] * 3)) for _ in range(3))
    voxels = data.draw(st.integers(1, 2000))
    ends = [[min(e, n) for e in range(c, n + c, c)] for n, c in zip(shape, chunk, strict=True)]
    seen, whole = np.zeros(shape, int), True
    for band in bands(shape, shard, ends, voxels):
        seen[band] += 1
        assert all(
            s.start % b == 0 and (s.stop % b == 0 or s.stop == n) for s, b, n in zip(band, shard, shape, strict=True)
        )
        assert np.prod(extent(band)) <= max(voxels, np.prod(shard))
        whole &= all(
            s.start % c == 0 and (s.stop % c == 0 or s.stop == n) for s, c, n in zip(band, chunk, shape, strict=True)
        )
    assert (seen == 1).all()
    # with memory enough, no chunk of the source is read twice
    assert whole or voxels < np.prod(shape)


def test_planes_are_cut_between_planes_first() -> None:
    ends = [[1], [1], list(range(1, 101)), [300], [300]]
    found = list(bands((1, 1, 100, 300, 300), (1, 1, 16, 128, 128), ends, 16 * 300 * 300))
    assert [(b[2].start, b[2].stop) for b in found] == [(a, min(a + 16, 100)) for a in range(0, 100, 16)]
    assert all(extent(b)[3:] == (300, 300) for b in found)


@given(st.integers(0, 100), st.integers(1, 20))
def test_slabs_share_everything_evenly(count: int, parts: int) -> None:
    slabs = [share_of(count, part, parts) for part in range(parts)]
    assert [i for slab in slabs for i in slab] == list(range(count))
    assert max(map(len, slabs)) - min(map(len, slabs)) <= 1


def test_extent() -> None:
    assert extent((slice(2, 5), slice(0, 7))) == (3, 7)
