"""Sources in an object store and on a web server, both on this machine: the same stores as of local files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from ssdenoise.config.project import Project
from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.ingest import ingest
from ssdenoise.ingest.sources import read_source
from ssdenoise.inspect import inspect
from ssdenoise.remote import Remote, is_remote
from ssdenoise.store import Volume
from tests.unit.test_bio import SCENES, write_nd2
from tests.unit.test_ingest import VOXELS, read, spec_for, write_omezarr


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=VOXELS, chunks=(2, 16, 16), compression="gzip")


def write_tiles(path: Path) -> None:
    tifffile.imwrite(path, VOXELS, metadata={"axes": "ZYX"}, compression="zlib", tile=(16, 16))


def write_collection(path: Path) -> None:
    zarr.create_group(str(path))
    write_omezarr(path / "0", VOXELS[None], "0.5")
    write_omezarr(path / "1", VOXELS[None, ::-1], "0.5")


#: Source of each file, and who writes it.
FILES = {
    "pages.tif": lambda path: tifffile.imwrite(path, VOXELS, metadata={"axes": "ZYX"}, compression="zlib"),
    "tiles.tif": write_tiles,
    "whole.tif": lambda path: tifffile.imwrite(path, VOXELS, imagej=True, byteorder=">", metadata={"axes": "ZYX"}),
    "a.h5": write_hdf5,
    "old.zarr": lambda path: write_omezarr(path, VOXELS[None], "0.4"),
    "new.zarr": lambda path: write_omezarr(path, VOXELS[None], "0.5"),
    "a b%.npy": lambda path: np.save(path, VOXELS),
    "a.nd2": lambda path: write_nd2(path, SCENES),
    "cut-pages.tif": lambda path: path.write_bytes((path.parent / "pages.tif").read_bytes()[:10_000]),
    "cut-whole.tif": lambda path: path.write_bytes((path.parent / "whole.tif").read_bytes()[:10_000]),
    **dict.fromkeys(
        [f"text.{end}" for end in ("tif", "h5", "npy", "nd2")], lambda path: path.write_text("hello" * 1000)
    ),
    "many.zarr": write_collection,
    "planes/0.tif": lambda path: tifffile.imwrite(path, VOXELS[0]),
    "planes/1.tif": lambda path: tifffile.imwrite(path, VOXELS[1]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the files."""
    path = tmp_path_factory.mktemp("files")
    (path / "planes").mkdir()
    for name, write in FILES.items():
        write(path / name)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """Address of an object store that holds them in its buckets `open`, for anyone, and `closed`."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    s3 = boto3.client("s3", "us-east-1", endpoint_url=address, aws_access_key_id="us", aws_secret_access_key="secret")
    for bucket, access in (("open", "public-read"), ("closed", "private")):
        s3.create_bucket(Bucket=bucket)
        for file in filter(Path.is_file, folder.rglob("*")):
            s3.put_object(Bucket=bucket, Key=f"lab/{file.relative_to(folder)}", Body=file.read_bytes(), ACL=access)
    yield address
    running.stop()


@pytest.fixture(params=["s3", "http"])
def base(request: pytest.FixtureRequest, server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the addresses of the files begin with."""
    if request.param == "http":
        return f"{server}/open/lab"
    return use_s3(server, monkeypatch)


def use_s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    settings = {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "us", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return "s3://closed/lab"


@pytest.mark.parametrize(
    "source",
    [
        "pages.tif",
        "tiles.tif",
        "whole.tif",
        "a.h5",
        "old.zarr#z=1:4",
        "new.zarr",
        "many.zarr#scene=1",
        "a b%.npy#z=1:3",
        "a.nd2#scene=1",
    ],
)
def test_the_store_is_that_of_a_local_file(
    source: str, base: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages, large pages by rows of tiles, voxels in one piece, ranges of HDF5, Zarr, and copies of other files."""
    if source == "tiles.tif":
        monkeypatch.setattr("ssdenoise.ingest.tiff.CHUNK_BYTES", 1000)
    monkeypatch.setattr("ssdenoise.ingest.BAND_BYTES", 20_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"{base}/{source if base.startswith('s3') else source.replace('%', '%25').replace(' ', '%20')}"
    local, remote = tmp_path / "local.ome.zarr", tmp_path / "remote.ome.zarr"
    ingest(spec_for(source), local, root=folder)
    ingest(spec_for(url), remote, root=folder, threads=3)
    assert Volume(remote).digest == Volume(local).digest
    assert Volume(remote).metadata == Volume(local).metadata
    (known,) = Volume(remote).record["provenance"]["inputs"].values()
    assert known["bytes"] > 0
    assert known["e_tag"]
    assert not list(tmp_path.glob("ssdenoise-*"))  # the copies are gone


def test_a_pattern_lists_a_prefix(server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = use_s3(server, monkeypatch)
    volume = read(tmp_path, f"{base}/planes/*.tif", "ZYX")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS[:2])
    assert list(volume.record["provenance"]["inputs"]) == [f"{base}/planes/{i}.tif" for i in range(2)]
    with pytest.raises(MissingInputError, match=r"no objects s3://closed/lab/planes/\*\.png"):
        read(tmp_path, f"{base}/planes/*.png")
    with pytest.raises(ConfigError, match="web servers list no files"):
        read(tmp_path, f"{server}/open/lab/planes/*.tif")


def test_a_web_server_s_collection_needs_a_name(server: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"many\.zarr is no image, and web servers list no files; name one within it"):
        read(tmp_path, f"{server}/open/lab/many.zarr")


def test_a_server_of_whole_files_only_is_named(tmp_path: Path) -> None:
    """Such as Python's own."""
    np.save(tmp_path / "a.npy", VOXELS)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running, ThreadPoolExecutor(1) as thread:
        thread.submit(running.serve_forever)
        try:
            with pytest.raises(MissingInputError, match=r"/a\.npy is sent as a whole only; needed are ranges of bytes"):
                read(tmp_path, f"http://127.0.0.1:{running.server_port}/a.npy")
        finally:
            running.shutdown()


def test_anyone_reads_what_is_open(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    np.testing.assert_array_equal(read(tmp_path, "s3://open/lab/a.h5").read((slice(None),) * 5)[0, 0], VOXELS)
    with pytest.raises(MissingInputError, match=r"^s3://closed/lab/a\.h5 may not be read; needed are credentials"):
        read(tmp_path, "s3://closed/lab/a.h5")


@pytest.mark.parametrize("name", ["b.tif", "b.npy", "b.zarr"])
def test_a_missing_object_is_named(name: str, base: str, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=rf"^no object {base}/{name}; correct the sheet, or upload it$"):
        read(tmp_path, f"{base}/{name}")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
def test_a_server_that_does_not_answer_is_named_soon(host: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(
        MissingInputError, match=rf"^http://{host}/a\.tif cannot be reached \(.+\); check the"
    ) as caught:
        read(tmp_path, f"http://{host}/a.tif")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20


@pytest.mark.filterwarnings("ignore")  # tifffile warns of what the error then says
@pytest.mark.parametrize("name", ["cut-pages.tif", "cut-whole.tif", "text.tif", "text.h5", "text.npy", "text.nd2"])
def test_objects_that_are_not_what_their_names_say(name: str, base: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"{name} cannot be read as .*; is it whole\?$") as caught:
        read(tmp_path, f"{base}/{name}")
    assert "\n" not in str(caught.value)


def test_no_more_is_read_than_is_needed(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pages, of a file in one piece, and of HDF5: one plane, and what says where it is."""
    import obstore

    lengths: list[int] = []
    original = obstore.get_range
    monkeypatch.setattr(
        obstore,
        "get_range",
        lambda *args, length, **where: lengths.append(length) or original(*args, length=length, **where),
    )
    monkeypatch.setattr("ssdenoise.remote.BUFFER", 1024)
    for name in ("pages.tif", "whole.tif", "a.h5"):
        lengths.clear()
        np.testing.assert_array_equal(read(tmp_path, f"{base}/{name}#z=2").read((slice(None),) * 5)[0, 0, 0], VOXELS[2])
        assert 0 < sum(lengths) < 3 * VOXELS[0].nbytes + 8 * 1024


def test_several_threads_share_a_file(base: str, folder: Path) -> None:
    file, whole = Remote(f"{base}/a.nd2").open(), (folder / "a.nd2").read_bytes()
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda _: file.read(3000), range(10)))
    assert sorted(parts) == sorted(whole[i : i + 3000] for i in range(0, 30_000, 3000))
    assert file.seek(-10, os.SEEK_END) == len(whole) - 10
    assert file.read() == whole[-10:]


def test_a_sheet_may_name_addresses(tmp_path: Path) -> None:
    """They are neither looked for on disk, nor under `data`, nor inputs that a workflow waits for."""
    (tmp_path / "sheet.tsv").write_text("dataset\tnoisy\na\ts3://bucket/lab/a.tif#z=1\nb\thttps://host/b.tif\n")
    config = {"run": "r", "datasets": "sheet.tsv", "data": "/archive", "methods": {"median": {"name": "median"}}}
    project = Project(config, tmp_path)
    assert project.ingest("a", "noisy").source == "s3://bucket/lab/a.tif#z=1"
    assert project.inputs(project.ingest("b", "noisy").source) == []
    (tmp_path / "sheet.tsv").write_text("dataset\tnoisy\na\tgs://bucket/a.tif\n")
    with pytest.raises(ConfigError, match=r"gs://bucket/a\.tif begins with gs://"):
        Project(config, tmp_path)


def test_inspect_takes_addresses(base: str) -> None:
    text = inspect(f"{base}/pages.tif")
    assert "1x1x5x33x47 (TCZYX)" in text
    assert f"pages\t{base}/pages.tif" in text


def test_addresses() -> None:
    assert [is_remote(s) for s in ("s3://b/k", "https://h/p", "http://h/p", "/a/b.tif", "a.tif")] == [True] * 3 + [
        False
    ] * 2
    with pytest.raises(ConfigError, match=r"begins with ftp://; needed a path, or s3://, https:// or http://"):
        is_remote("ftp://host/a.tif")
    with pytest.raises(ConfigError, match=r"s3://bucket names no file; needed such as s3://bucket/key"):
        read_source("s3://bucket", Path(), None)
    with pytest.raises(ConfigError, match=r"names no file; .* without `\?`$"):
        read_source("https://host/a.tif?token=1", Path(), None)
