"""The whole run with sources and voxels in an object store: the same digests as on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.store import Layout, Metadata, ShardWriter, Volume, commit
from tests.unit.test_remote import use_s3
from tests.workflow.conftest import make

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

METHODS = {"gaussian": {"name": "gaussian"}, "hqssl": {"name": "hqssl", "steps": 20, "batch": 2, "patch": [4, 32, 32]}}
SHEET = "dataset\tclean\tnoisy\tslabs\nbench\t{0}clean.npy\t\t1\narchive\t\t{0}counts.npy\t2\n"


def test_shards_leave_the_disk_and_several_threads_withdraw_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        use_s3(address, monkeypatch)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="archive")
        voxels = np.random.default_rng(0).poisson(50, (1, 1, 4, 128, 128)).astype(np.uint16)
        layout = Layout.fit(voxels.shape, "uint16", (2, 16, 16), (2, 16, 16))
        for key in ("first", "second"):  # the second time over a finished store
            writer = ShardWriter(tmp_path / "v.ome.zarr", layout, key, root="s3://archive/run")
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda s, w=writer: w.write(s[0], voxels[s[1]]), writer.regions()))  # type: ignore[misc]
            assert not (tmp_path / "v.ome.zarr" / "zarr.json").exists()
            left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]
            assert left == []
            commit(tmp_path / "v.ome.zarr", layout, key, Metadata("v", None, ("c",)), {}, root="s3://archive/run")
            np.testing.assert_array_equal(Volume(tmp_path / "v.ome.zarr").read((slice(None),) * 5), voxels)
    finally:
        server.stop()


def test_a_run_in_an_object_store_gives_the_digests_of_one_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    disk, bucket = make(tmp_path / "disk"), make(tmp_path / "bucket")
    for workflow, sources in ((disk, ""), (bucket, "s3://archive/raw/")):
        workflow.configure(methods=METHODS)
        (workflow.folder / "datasets.tsv").write_text(SHEET.format(sources))
    disk.run()

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        use_s3(address, monkeypatch)
        s3 = boto3.client("s3", endpoint_url=address)
        s3.create_bucket(Bucket="archive")
        for name in ("clean.npy", "counts.npy"):
            s3.upload_file(bucket.folder / name, "archive", f"raw/{name}")
            (bucket.folder / name).unlink()
        bucket.configure(storage={"chunk": [2, 32, 32], "shard": [4, 64, 64], "root": "s3://archive/run"})
        bucket.run()
        assert bucket.digests() == disk.digests()
        assert len(disk.digests()) == 10

        # nothing but commit records is here, and what is there is a whole OME-Zarr
        (store,) = bucket.folder.glob("results/tiny/archive/measured/hqssl/seed-0/uncertainty.ome.zarr")
        assert [path.name for path in store.iterdir()] == ["zarr.json"]
        at = json.loads((store / "zarr.json").read_text())["attributes"]["ssdenoise"]["stored_at"]
        assert at == f"s3://archive/run/{store.relative_to(bucket.folder)}"
        keys = [
            one["Key"] for one in s3.list_objects_v2(Bucket="archive", Prefix=at[len("s3://archive/") :])["Contents"]
        ]
        assert f"{at[len('s3://archive/') :]}/zarr.json" in keys
        verify = [sys.executable, "-m", "ssdenoise", "verify", store]
        done = subprocess.run(verify, cwd=bucket.folder, env=bucket.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout.split()[0]
            == bucket.digests()[str((store / "zarr.json").relative_to(bucket.folder / "results/tiny"))]
        )

        # a shard that is lost is named
        shard = next(key for key in keys if "/0/c/" in key)
        s3.delete_object(Bucket="archive", Key=shard)
        done = subprocess.run(verify, cwd=bucket.folder, env=bucket.environment(), capture_output=True, text=True)
        assert done.returncode == 1
        assert "does not hold the voxels that were committed: level 0 shard" in done.stderr
    finally:
        server.stop()
