from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdenoise.store import Layout, Metadata, ShardWriter, Volume, commit
from tests.strategies import volumes_small


@settings(max_examples=15)
@given(volumes_small(), st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.randoms(use_true_random=False))
def test_what_is_written_in_any_order_is_read(shape: tuple[int, ...], dtype: str, random: object) -> None:
    rng = np.random.default_rng(0)
    voxels = (rng.random(shape) * 200 - (100 if dtype[0] in "if" else 0)).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "v.ome.zarr"
        layout = Layout.fit(shape, dtype, (2, 8, 8), (4, 16, 16))
        writer = ShardWriter(store, layout, "key")
        regions = list(writer.regions())
        random.shuffle(regions)  # type: ignore[attr-defined]
        for index, region in regions:
            writer.write(index, voxels[region])
        record = commit(store, layout, "key", Metadata("test", (2.0, 1.0, 1.0), tuple(map(str, range(shape[1])))), {})
        volume = Volume(store)
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.read((slice(None),) * 5), voxels)
        assert min(channel["minimum"] for channel in record["intensities"]) == voxels.min()
        assert max(channel["maximum"] for channel in record["intensities"]) == voxels.max()
        np.testing.assert_array_equal(volume.dask().compute(scheduler="synchronous"), voxels)
