from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from yaozarrs import validate_zarr_store

from ssdenoise.config.specs import IngestSpec
from ssdenoise.errors import ConfigError, DamagedStore, FormatError, InUseError, MissingInputError
from ssdenoise.ingest import ingest
from ssdenoise.store import (
    Layout,
    Metadata,
    ShardWriter,
    Volume,
    claim,
    claims,
    commit,
    records_of,
    shards,
    share,
    to_dtype,
)
from ssdenoise.verify import verify
from tests.conftest import STORAGE, make_store, scene


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    """An access that the fast pipeline cannot serve is an error, not silently seven times slower."""
    with zarr.config.set({"codec_pipeline.strict": True}):
        yield


META = Metadata("v", (0.5, 0.1, 0.1), ("one",))


def write(path: Path, voxels: np.ndarray, key: str = "k", skip: int = 0) -> Layout:
    layout = Layout.fit(voxels.shape, str(voxels.dtype), (2, 64, 64), (4, 128, 128))
    writer = ShardWriter(path, layout, key)
    for index, region in list(writer.regions())[skip:]:
        writer.write(index, voxels[region])
    return layout


def test_a_pyramid_of_block_means_with_valid_metadata(tmp_path: Path) -> None:
    voxels = scene((1, 1, 3, 601, 520)).astype(np.uint16)
    layout = write(tmp_path / "v.ome.zarr", voxels)
    commit(tmp_path / "v.ome.zarr", layout, "k", META, {})
    validate_zarr_store(str(tmp_path / "v.ome.zarr"))
    levels = [np.asarray(zarr.open_array(str(tmp_path / "v.ome.zarr" / str(i)))[...]) for i in range(3)]
    assert [level.shape for level in levels] == [(1, 1, 3, 601, 520), (1, 1, 3, 301, 260), (1, 1, 3, 151, 130)]
    block = voxels[0, 0, 1, 40:42, 60:62].astype(float).mean()
    assert abs(levels[1][0, 0, 1, 20, 30] - block) <= 0.5
    xarray = Volume(tmp_path / "v.ome.zarr").to_xarray()
    assert xarray.dims == ("t", "c", "z", "y", "x")
    assert float(xarray.z[2]) == pytest.approx(1.0)
    scales = json.loads((tmp_path / "v.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert scales["datasets"][1]["coordinateTransformations"][0]["scale"] == pytest.approx([1, 1, 0.5, 0.2, 0.2])


def test_z_is_halved_once_it_is_as_fine_as_y_and_x(tmp_path: Path) -> None:
    voxels = np.ones((1, 1, 8, 600, 600), np.uint8)
    layout = write(tmp_path / "v.ome.zarr", voxels)
    commit(tmp_path / "v.ome.zarr", layout, "k", Metadata("v", (0.2, 0.1, 0.1), ("one",)), {})
    shapes = [zarr.open_array(str(tmp_path / "v.ome.zarr" / str(i))).shape[2:] for i in range(3)]
    assert shapes == [(8, 600, 600), (8, 300, 300), (4, 150, 150)]


def test_a_store_without_commit_record_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "v.ome.zarr", np.ones((1, 1, 4, 8, 8), np.uint8))
    with pytest.raises(MissingInputError, match="no finished store"):
        Volume(tmp_path / "v.ome.zarr")


def test_a_writer_withdraws_the_commit_before_anything_changes(tmp_path: Path) -> None:
    store = tmp_path / "v.ome.zarr"
    layout = write(store, np.ones((1, 1, 4, 64, 64), np.uint8))
    commit(store, layout, "k", META, {})
    ShardWriter(store, Layout.fit((1, 1, 4, 96, 96), "uint16", (2, 64, 64), (4, 64, 64)), "other")
    with pytest.raises(MissingInputError, match="no finished store"):
        Volume(store)


def test_a_file_system_that_locks_no_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(claims.fcntl, "flock", refused)
    with pytest.raises(ConfigError, match=r"lock cannot be locked \(Function not implemented\); the file system"):
        claim(tmp_path / "lock").__enter__()


def test_jobs_of_the_same_work_share_and_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    path = tmp_path / "lock"
    with share(path, "2 slabs"), share(path, "2 slabs"):
        with pytest.raises(InUseError, match="written by 2 slabs"), share(path, "3 slabs"):
            pass
        with pytest.raises(InUseError, match="written by 2 slabs"), claim(path):
            pass
    with share(path, "3 slabs"):
        pass
    with claim(path), pytest.raises(InUseError, match="written by process"), share(path, "3 slabs"):
        pass


def test_two_jobs_cannot_write_the_same_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "slabs" / "0-of-1.lock"
    code = (
        f"import time; from pathlib import Path; from ssdenoise.store import claim\nwith claim(Path({str(path)!r})):\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code + "  print('has it', flush=True); time.sleep(60)"], stdout=-1)
    assert job.stdout is not None
    assert job.stdout.readline() == b"has it\n"
    with pytest.raises(InUseError, match=rf"slabs is being written by process {job.pid} on .+; wait"), claim(path):
        pass
    job.kill()
    job.communicate()
    with claim(path):
        pass


@pytest.mark.parametrize("records", [True, False])
def test_changed_lost_and_broken_shards_are_found(records: bool, tmp_path: Path) -> None:
    store = tmp_path / "v.ome.zarr"
    commit(store, write(store, scene((1, 1, 3, 301, 280)).astype(np.uint16)), "k", META, {})
    assert verify(store, threads=2) == Volume(store).digest
    if not records:
        shutil.rmtree(records_of(store))
    first, second = store / "0/c/0/0/0/0/0", store / "1/c/0/0/0/1/1"
    kept = first.read_bytes()
    for spoil, named in (
        (lambda: first.unlink(), "level 0 shard 0/0/0/0/0"),
        (lambda: first.write_bytes((store / "0/c/0/0/0/0/1").read_bytes()), "level 0 shard 0/0/0/0/0"),
        (lambda: first.write_bytes(kept[: len(kept) // 2]), r"level 0 shard 0/0/0/0/0 cannot be read \(.+\)"),
        (lambda: first.write_bytes(kept) and second.unlink(), "level 1 shard 0/0/0/1/1"),
    ):
        spoil()
        where = f": {named}; verify" if records or "cannot" in named else ""
        with pytest.raises(DamagedStore, match=f"does not hold the voxels that were committed{where}"):
            verify(store)


def test_a_damaged_store_is_withdrawn_and_made_whole(tmp_path: Path) -> None:
    """A byte changes within a shard, whose size stays."""
    np.save(tmp_path / "v.npy", scene((1, 1, 3, 301, 280)).astype(np.uint16))
    spec = IngestSpec(source=str(tmp_path / "v.npy"), storage=STORAGE)
    ingest(spec, tmp_path / "v.ome.zarr")
    volume = Volume(tmp_path / "v.ome.zarr")
    whole, shard = volume.digest, volume.path / "0/c/0/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    with pytest.raises(DamagedStore, match="run the job that writes it again"):
        verify(volume.path, withdraw=True)
    with pytest.raises(MissingInputError, match="no finished store"):
        Volume(volume.path)
    before = {path: path.stat().st_mtime_ns for path in (volume.path / "0").rglob("*") if path.is_file()}
    ingest(spec, volume.path)
    assert verify(volume.path) == whole
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path for path in changed if path.name != "zarr.json"} == {shard}


def test_a_foreign_zarr_is_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "v.zarr"))
    with pytest.raises(FormatError, match="not written by ssdenoise"):
        Volume(tmp_path / "v.zarr")


def test_shards_of_fill_value_are_done_and_replace_what_was_there(tmp_path: Path) -> None:
    voxels = scene((1, 1, 4, 130, 130)).astype(np.uint16)
    write(tmp_path / "v.ome.zarr", voxels)
    empty = np.zeros_like(voxels)
    layout = write(tmp_path / "v.ome.zarr", empty, key="other")
    assert all(
        ShardWriter(tmp_path / "v.ome.zarr", layout, "other").is_done(i)
        for i, _ in ShardWriter(tmp_path / "v.ome.zarr", layout, "other").regions()
    )
    commit(tmp_path / "v.ome.zarr", layout, "other", META, {})
    assert not Volume(tmp_path / "v.ome.zarr").read((slice(None),) * 5).any()


def test_shards_of_another_key_do_not_count(tmp_path: Path) -> None:
    voxels = np.ones((1, 1, 4, 130, 130), np.uint8)
    layout = write(tmp_path / "v.ome.zarr", voxels, key="old")
    write(tmp_path / "v.ome.zarr", voxels, key="new", skip=1)
    with pytest.raises(MissingInputError, match="not written"):
        commit(tmp_path / "v.ome.zarr", layout, "new", META, {})


def test_what_an_earlier_larger_volume_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path / "v.ome.zarr", np.ones((1, 1, 4, 300, 300), np.uint8))
    small = np.full((1, 1, 4, 100, 100), 7, np.uint8)
    layout = write(tmp_path / "v.ome.zarr", small)
    commit(tmp_path / "v.ome.zarr", layout, "k", META, {})
    files = [p for p in (tmp_path / "v.ome.zarr" / "0" / "c").rglob("*") if p.is_file()]
    assert len(files) == 1
    assert not list(records_of(tmp_path / "v.ome.zarr").rglob(".*"))
    np.testing.assert_array_equal(Volume(tmp_path / "v.ome.zarr").read((slice(None),) * 5), small)


def test_the_digest_is_that_of_the_voxels(tmp_path: Path) -> None:
    voxels = scene((1, 1, 4, 130, 130)).astype(np.uint16)
    same = [make_store(tmp_path, name, voxels).digest for name in ("a", "b")]
    voxels[0, 0, 2, 7, 8] += 1
    assert same[0] == same[1]
    assert make_store(tmp_path, "c", voxels).digest != same[0]


def test_a_deleted_shard_or_store_is_not_taken_for_done(tmp_path: Path) -> None:
    voxels = scene((1, 1, 4, 130, 130)).astype(np.uint16)
    layout = write(tmp_path / "v.ome.zarr", voxels)
    commit(tmp_path / "v.ome.zarr", layout, "k", META, {})
    shutil.rmtree(tmp_path / "v.ome.zarr")  # but not the records beside it
    writer = ShardWriter(tmp_path / "v.ome.zarr", layout, "k")
    assert not any(writer.is_done(index) for index, _ in writer.regions())
    with pytest.raises(MissingInputError, match="not written"):
        commit(tmp_path / "v.ome.zarr", layout, "k", META, {})


def test_a_shard_killed_between_file_and_record_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = scene((1, 1, 4, 130, 130)).astype(np.uint16)
    layout = write(tmp_path / "v.ome.zarr", voxels, key="old")
    writer = ShardWriter(tmp_path / "v.ome.zarr", layout, "new")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "write_text", killed)
    index, region = next(writer.regions())
    with pytest.raises(KeyboardInterrupt):
        writer.write(index, voxels[region] + 1)
    monkeypatch.undo()
    assert not ShardWriter(tmp_path / "v.ome.zarr", layout, "old").is_done(index)


def test_blocks_that_are_no_whole_shard_are_refused(tmp_path: Path) -> None:
    layout = Layout.fit((1, 1, 4, 130, 130), "uint8", (2, 64, 64), (4, 128, 128))
    writer = ShardWriter(tmp_path / "v.ome.zarr", layout, "k")
    with pytest.raises(ValueError, match="got"):
        writer.write((0, 0, 0, 0, 0), np.ones((1, 1, 2, 128, 128), np.uint8))


def test_to_dtype_rounds_and_clips() -> None:
    values = np.array([-3.0, 0.5, 1.5, 254.6, 300.0])
    for kind in (np.float32, np.float64):
        found, clipped = to_dtype(values.astype(kind), "uint8")
        assert (found.tolist(), found.dtype, clipped) == ([0, 0, 2, 255, 255], np.uint8, 2)
        found, clipped = to_dtype(values.astype(kind), "int32")
        assert (found.tolist(), found.dtype, clipped) == ([-3, 0, 2, 255, 300], np.int32, 0)
    assert to_dtype(np.array([-(2.0**31) - 1, 2.0**31 - 1, 2.0**32]), "int32")[1] == 2
    found, clipped = to_dtype(np.float32([-70000, 0.1, 65504]), "float16")
    assert (found.tolist(), clipped) == (np.float16([-65504, 0.1, 65504]).tolist(), 1)
    assert to_dtype(np.float32([-0.4, 65535.4, 65535.6]), "uint16")[0].tolist() == [0, 65535, 65535]
