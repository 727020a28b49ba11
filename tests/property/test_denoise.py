"""Whatever a volume is cut into, the denoised one is what the network gives on the whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdenoise import denoise as stage
from ssdenoise.config.specs import Storage
from tests.conftest import make_store, scene
from tests.unit.test_denoise import FLOAT, make_model, run, whole

EVERYTHING = (slice(None),) * 5


@st.composite
def storages(draw: st.DrawFn) -> Storage:
    """Shards of whole chunks."""
    chunk = draw(st.tuples(st.integers(1, 3), *[st.sampled_from([4, 8, 12, 16])] * 2))
    times = draw(st.tuples(*[st.integers(1, 3)] * 3))
    return Storage(chunk=chunk, shard=tuple(c * n for c, n in zip(chunk, times, strict=True)))  # type: ignore[arg-type]


@pytest.mark.parametrize("ndim", [2, 3])
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(12, 44), st.integers(12, 44)),
    storages(),
    st.sampled_from([("gaussian", {}), ("n2v", {"steps": 1}), ("n2v", {"steps": 1, "network": "paper"})]),
    st.sampled_from([1, 3000, 10**9]),
    st.sampled_from([1, 2000, 10**9]),
    st.integers(1, 4),
)
@settings(max_examples=6)
def test_nothing_is_lost_and_no_seam_is_seen(
    ndim: int,
    shape: tuple[int, ...],
    storage: Storage,
    method: tuple[str, dict[str, object]],
    tile: int,
    piece: int,
    slabs: int,
) -> None:
    name, options = method
    with tempfile.TemporaryDirectory() as folder:
        volume = make_store(Path(folder), "noisy", scene(shape).astype(np.float32), storage)
        model = make_model(Path(folder), volume, name, ndim, **options)
        with patch.multiple(stage, TILE_VOXELS=tile, PIECE_VOXELS=piece, LEAST_VOXELS=1):
            found = run(FLOAT, volume, model, Path(folder), slabs).read(EVERYTHING)
        expected = whole(volume, model)
    exact = 3e-5 if ndim == 3 and options.get("network") == "paper" else 1e-5
    assert np.abs(found - expected).max() < exact * expected.std()
