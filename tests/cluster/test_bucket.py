"""The archive on a real Slurm with its voxels in an object store: the digests of a run on disk without either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.archive import CONFIG, DAMAGED, RUN, archive, start
from tests.cluster.sandbox import Slurm
from tests.unit.test_remote import use_s3

pytestmark = pytest.mark.slurm

#: What is asked for, of a dataset with pairs and of the damaged one.
STORES = [
    f"{dataset}/denoised.ome.zarr/zarr.json"
    for dataset in ("c/measured/n2n/seed-0", f"{DAMAGED}/measured/gaussian/seed-0")
]
TARGETS = [f"results/{RUN}/{store}" for store in STORES]

#: Seconds that the run may take on two busy processors.
LONGEST = 900


def test_voxels_in_a_bucket_have_the_digests_of_those_on_disk(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    disk, bucket = archive(tmp_path / "disk"), archive(tmp_path / "bucket")
    disk.run(*TARGETS, "--keep-going", check=False)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        use_s3(address, monkeypatch)  # jobs get it with the environment of the machine that submits
        s3 = boto3.client("s3", endpoint_url=address)
        s3.create_bucket(Bucket="archive")
        bucket.configure(storage=CONFIG["storage"] | {"root": "s3://archive/run"})
        log = tmp_path / "snakemake.log"
        process = start(bucket, slurm, log, *TARGETS)
        try:
            code = process.wait(LONGEST)
        finally:
            process.kill()

        found = bucket.digests(RUN)
        assert [store for store in STORES if store in found] == STORES[:1], log.read_text()
        assert found == disk.digests(RUN)
        assert code == 1
        page = (bucket.folder / "results" / RUN / "report.html").read_text()
        assert f"{DAMAGED}.tif" in page.partition('<section id="missing">')[2].partition("</section>")[0]

        # here are commit records and nothing else of the stores; there is all that they speak of
        for name in found:
            record = bucket.folder / "results" / RUN / name
            assert list(record.parent.iterdir()) == [record]
            at = json.loads(record.read_text())["attributes"]["ssdenoise"]["stored_at"]
            assert at == f"s3://archive/run/{record.parent.relative_to(bucket.folder)}"
            there = s3.list_objects_v2(Bucket="archive", Prefix=at.removeprefix("s3://archive/") + "/0/c/")
            assert there["KeyCount"] > 0
    finally:
        server.stop()
