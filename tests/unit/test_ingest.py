"""Reading sources, and refusing wrong ones with one clear sentence and nothing half-written."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from yaozarrs import validate_zarr_store

from ssdenoise.config.models import read_sheet
from ssdenoise.config.project import Project
from ssdenoise.config.specs import IngestSpec
from ssdenoise.errors import ConfigError, FormatError, MissingInputError, SsdenoiseError
from ssdenoise.ingest import copy, ingest
from ssdenoise.ingest.sources import read_source
from ssdenoise.inspect import inspect
from ssdenoise.store import Layout, ShardWriter, Volume
from ssdenoise.store.shards import records_of
from tests.conftest import STORAGE

VOXELS = np.random.default_rng(0).integers(0, 1000, (5, 33, 47), dtype=np.uint16)


def spec_for(source: str, axes: str | None = None) -> IngestSpec:
    return IngestSpec(name="v", source=source, axes=axes, voxel_size_um=None, storage=STORAGE)


def read(tmp_path: Path, source: str, axes: str | None = None) -> Volume:
    ingest(spec_for(source, axes), tmp_path / "v.ome.zarr", root=tmp_path)
    return Volume(tmp_path / "v.ome.zarr")


def test_tiff_is_kept_voxel_by_voxel_with_its_metadata(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        VOXELS,
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": "um"},
    )
    volume = read(tmp_path, "a.tif")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS)
    assert volume.metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    validate_zarr_store(str(volume.path))


def imagej(path: Path, voxels: np.ndarray, axes: str, unit: str = "um", *, per_unit: int = 4, **said: object) -> None:
    metadata = {"axes": axes, "unit": unit, **said}
    tifffile.imwrite(path, voxels, imagej=True, resolution=(per_unit, per_unit), metadata=metadata)


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [("micron", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("inch", 25400), ("pixel", None)],
)
def test_units_of_imagej(unit: str, micrometres: float | None, tmp_path: Path) -> None:
    imagej(tmp_path / "a.tif", VOXELS, "ZYX", unit, per_unit=4000, spacing=0.5)
    size = read(tmp_path, "a.tif").metadata.voxel_size_um
    assert size == (micrometres and pytest.approx([n * micrometres for n in (0.5, 1 / 4000, 1 / 4000)]))


@pytest.mark.parametrize(("unit", "per_unit"), [("cm", 1), ("inch", 72)])
def test_dots_of_a_printer_are_no_voxels(unit: str, per_unit: int, tmp_path: Path) -> None:
    imagej(tmp_path / "a.tif", VOXELS[0], "YX", unit, per_unit=per_unit)
    assert read(tmp_path, "a.tif").metadata.voxel_size_um is None


def test_colours_of_imagej(tmp_path: Path) -> None:
    """A ramp to green, and grey as a negative."""
    ramp = np.arange(256, dtype=np.uint8)
    luts = [np.stack([0 * ramp, ramp, 0 * ramp]), np.stack([ramp[::-1]] * 3)]
    imagej(tmp_path / "a.tif", VOXELS[:2], "CYX", LUTs=luts, mode="composite")
    assert read(tmp_path, "a.tif").metadata.colors == ("00FF00", "FFFFFF")


def test_the_voxel_size_follows_what_is_taken_of_a_file(tmp_path: Path) -> None:
    imagej(tmp_path / "a.tif", VOXELS[:4, :32], "ZYX", spacing=0.5)
    for selection, size in (("bin=y:2", (0.5, 0.5, 0.25)), ("bin=z:4", (2, 0.25, 0.25)), ("mean=z", (2, 0.25, 0.25))):
        assert read(tmp_path, f"a.tif#{selection}").metadata.voxel_size_um == pytest.approx(size)


def test_a_distance_of_planes_is_not_invented(tmp_path: Path) -> None:
    """Of a single plane it does not matter."""
    imagej(tmp_path / "a.tif", VOXELS, "ZYX")
    assert read(tmp_path, "a.tif").metadata.voxel_size_um is None
    assert read(tmp_path, "a.tif#z=2").metadata.voxel_size_um == pytest.approx((0.25,) * 3)
    for i, plane in enumerate(VOXELS):
        imagej(tmp_path / f"plane-{i}.tif", plane, "YX")
        imagej(tmp_path / f"volume-{i}.tif", VOXELS, "ZYX", spacing=0.5)
    assert read(tmp_path, "plane-*.tif").metadata.voxel_size_um is None
    assert read(tmp_path, "plane-*.tif", "TYX").metadata.voxel_size_um == pytest.approx((0.25,) * 3)
    assert read(tmp_path, "volume-*.tif", "TZYX").metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    assert "0.25, 0.25 micrometres (Y, X), Z is not in the file" in inspect(f"{tmp_path}/plane-*.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_order_of_a_file_s_bytes_is_its_own_affair(compression: str | None, tmp_path: Path) -> None:
    """ImageJ writes the larger byte first."""
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, byteorder=">", compression=compression, metadata={"axes": "ZYX"})
    np.save(tmp_path / "b.npy", VOXELS.astype(">f4"))
    np.testing.assert_array_equal(read(tmp_path, "a.tif").read((slice(None),) * 5)[0, 0], VOXELS)
    np.testing.assert_array_equal(read(tmp_path, "b.npy").read((slice(None),) * 5)[0, 0], VOXELS)


def test_compressed_ome_tiff_with_channels(tmp_path: Path) -> None:
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.1,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 100,
        "PhysicalSizeYUnit": "nm",
        "Channel": {"Name": ["actin", "DNA", "membrane"], "Color": [0xFF00 << 8, 0xFF0000 << 8, -1]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", VOXELS[:3], metadata=metadata, compression="zlib")
    volume = read(tmp_path, "a.ome.tif")
    assert volume.shape == (1, 3, 1, 33, 47)
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, :, 0], VOXELS[:3])
    assert volume.metadata.voxel_size_um == pytest.approx((0.1, 0.1, 0.1))
    assert volume.metadata.channels == ("actin", "DNA", "membrane")
    assert volume.metadata.colors == ("00FF00", "FF0000", "FFFFFF")
    one = read(tmp_path, "a.ome.tif#c=1").metadata
    assert (one.channels, one.colors) == (("DNA",), ("FF0000",))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("z=2", VOXELS[2:3]),
        ("z=1:4", VOXELS[1:4]),
        ("z=1:4&mean=z", VOXELS[1:4].mean(axis=0, keepdims=True).astype(np.float32)),
        ("sum=z", VOXELS.sum(axis=0, keepdims=True).astype(np.uint16)),
        ("y=0:32&bin=y:4", VOXELS[:, :32].reshape(5, 8, 4, 47).sum(axis=2).astype(np.uint16)),
    ],
)
def test_selections(tmp_path: Path, selection: str, expected: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", VOXELS)
    found = read(tmp_path, f"a.npy#{selection}").read((slice(None),) * 5)[0, 0]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_axes_of_the_sheet_name_what_the_file_does_not(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.moveaxis(VOXELS, 0, 2))
    np.testing.assert_array_equal(read(tmp_path, "a.npy", "YXZ").read((slice(None),) * 5)[0, 0], VOXELS)


def test_every_page_is_read_once_and_none_for_shards_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of one shard's planes; then two shards are lost, and only the planes under them are read again."""
    planes = np.random.default_rng(1).integers(0, 1000, (40, 70, 90), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, metadata={"axes": "ZYX"}, compression="zlib")
    read_pages: list[int] = []
    original = tifffile.TiffPage.asarray
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, **kw: read_pages.append(page.index) or original(page)
    )
    monkeypatch.setattr("ssdenoise.ingest.BAND_BYTES", 4 * 70 * 90 * 2)
    volume = read(tmp_path, "a.tif")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], planes)
    assert sorted(read_pages) == list(range(40))
    depth = volume.layout.shard[2]
    for index in ("0.0.0.0.0", "0.0.0.1.1"):
        (tmp_path / "v.ome.zarr.shards" / "0" / f"{index}.json").unlink()
    read_pages.clear()
    assert read(tmp_path, "a.tif").digest == volume.digest
    assert sorted(set(read_pages)) == list(range(depth))


@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {}], ids=["tiles", "strips", "whole"])
def test_large_pages_are_read_by_rows_of_tiles_or_strips(
    layout: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = np.random.default_rng(1).integers(0, 1000, (6, 150, 130), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, metadata={"axes": "ZYX"}, compression="zlib", **layout)
    monkeypatch.setattr("ssdenoise.ingest.tiff.CHUNK_BYTES", 10_000)
    monkeypatch.setattr("ssdenoise.ingest.BAND_BYTES", 20_000)
    volume = read(tmp_path, "a.tif")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], planes)


@settings(max_examples=40)
@given(st.data())
def test_no_voxel_is_lost_and_none_is_read_twice(data: st.DataObject) -> None:
    """Whatever the shapes of volume, source's chunks, shards and memory; then some shards are lost, and come back."""
    shape = tuple(data.draw(st.integers(1, n)) for n in (2, 2, 9, 24, 24))
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    storage = [data.draw(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))) for _ in range(2)]
    voxels = np.random.default_rng(0).integers(1, 1000, shape, dtype=np.uint16)
    reads = np.zeros(shape, int)

    def counted(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        reads[tuple(slice(*ends) for ends in block_info[0]["array-location"])] += 1
        return block

    source = da.from_array(voxels, chunks=chunks).map_blocks(
        counted, dtype=np.uint16, meta=np.empty((0,) * 5, np.uint16)
    )
    layout = Layout.fit(shape, "uint16", storage[0], [a * b for a, b in zip(*storage, strict=True)])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssdenoise.ingest.BAND_BYTES", data.draw(st.integers(1, 4000)))
        writer = ShardWriter(Path(folder) / "v.ome.zarr", layout, "key")
        copy(source, writer, "a.tif", threads=2)
        array = writer.place.open(0)
        np.testing.assert_array_equal(np.asarray(array[...]), voxels)
        assert (reads == 1).all()
        indices = [index for index, _ in writer.regions()]
        lost = data.draw(st.lists(st.sampled_from(indices), unique=True))
        for index in lost:
            writer.store.joinpath("0", "c", *map(str, index)).unlink()
        copy(source, writer, "a.tif", threads=2)
        np.testing.assert_array_equal(np.asarray(array[...]), voxels)
        assert reads.max() <= 2
        assert lost or reads.max() == 1


def test_a_page_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offset, count = tiff.pages[3].dataoffsets[0], tiff.pages[3].databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + count] = b"x" * count
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.tif cannot be read as tif \(.*\); is it whole\?$"):
        read(tmp_path, "a.tif")
    assert not (tmp_path / "v.ome.zarr" / "zarr.json").exists()


def truncated(path: Path) -> None:
    tifffile.imwrite(path / "a.tif", VOXELS, metadata={"axes": "ZYX"})
    (path / "a.tif").write_bytes((path / "a.tif").read_bytes()[:8000])


def truncated_compressed(path: Path) -> None:
    tifffile.imwrite(path / "a.tif", VOXELS, metadata={"axes": "ZYX"}, compression="zlib")
    (path / "a.tif").write_bytes((path / "a.tif").read_bytes()[:8000])


def inflated_tiff(folder: Path) -> None:
    """A page of 20 GB in a few kilobytes, which would be unpacked at once."""
    tifffile.imwrite(folder / "a.tif", np.zeros((64, 64), np.uint16), compression="zlib", rowsperstrip=64)
    with tifffile.TiffFile(folder / "a.tif", mode="r+b") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[name].overwrite(100_000)  # type: ignore[union-attr]


def nothing_hdf5(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", (1000, 100_000, 100_000), np.uint16, chunks=(1, 1000, 1000))


def truncated_imagej(path: Path) -> None:
    tifffile.imwrite(path / "a.tif", VOXELS, imagej=True, metadata={"axes": "ZYX"})
    (path / "a.tif").write_bytes((path / "a.tif").read_bytes()[:8000])


def not_a_tiff(path: Path) -> None:
    (path / "a.tif").write_text("hello")


def not_a_picture(path: Path) -> None:
    (path / "a.png").write_text("hello")


def tiff_named_npy(path: Path) -> None:
    tifffile.imwrite(path / "a.npy", VOXELS)


def sized_hdf5(folder: Path) -> None:
    write_hdf5(folder / "a.h5", element_size_um=(0.5, 0.25))


def imageless_hdf5(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["times"] = [1, 2, 3]


def saved(voxels: np.ndarray) -> object:
    def save(path: Path) -> None:
        np.save(path / "a.npy", voxels)

    return save


def poisoned(value: float) -> np.ndarray:
    voxels = VOXELS.astype(np.float32)
    voxels[3, 4, 5] = value
    return voxels


WRONG = [
    pytest.param(truncated, "a.tif", None, FormatError, "is it whole", id="truncated"),
    pytest.param(truncated_compressed, "a.tif", None, FormatError, "is it whole", id="truncated-compressed"),
    pytest.param(inflated_tiff, "a.tif", None, FormatError, "20 GB, in a file of", id="inflated-tiff"),
    pytest.param(nothing_hdf5, "a.h5", None, FormatError, "no voxel of /raw was ever written", id="nothing-hdf5"),
    pytest.param(truncated_imagej, "a.tif", None, FormatError, "speaks of 5 planes, it has 1", id="truncated-imagej"),
    pytest.param(not_a_tiff, "a.tif", None, FormatError, "cannot be read as tif", id="not-a-tiff"),
    pytest.param(not_a_picture, "a.png", None, FormatError, r"cannot be read as png \(.*\); is it whole\?$", id="text"),
    pytest.param(tiff_named_npy, "a.npy", None, FormatError, r"magic string .* got b'II\*", id="tiff-named-npy"),
    pytest.param(sized_hdf5, "a.h5", None, FormatError, r"element_size_um is 0\.5, 0\.25; needed are Z", id="sized"),
    pytest.param(imageless_hdf5, "a.h5", None, FormatError, "no dataset of two axes or more", id="imageless-hdf5"),
    pytest.param(saved(np.array(3)), "a.npy", None, FormatError, "it holds a single number", id="number"),
    pytest.param(saved(VOXELS), "a.npy#scene=3", None, ConfigError, "a single image: leave `scene=` out", id="scene"),
    pytest.param(saved(VOXELS), "b.npy", None, MissingInputError, "no file", id="missing"),
    pytest.param(saved(poisoned(np.nan)), "a.npy", None, FormatError, "1 in plane t=0 c=0 z=3", id="nan"),
    pytest.param(saved(poisoned(np.inf)), "a.npy", None, FormatError, "1 in plane t=0 c=0 z=3", id="inf"),
    pytest.param(saved(VOXELS[:0]), "a.npy", None, FormatError, "is empty", id="empty"),
    pytest.param(saved(VOXELS), "a.npy", "ZY", FormatError, "do not fit", id="too-few-axes"),
    pytest.param(saved(VOXELS), "a.npy", "QYX", FormatError, "has axes 'QYX'", id="unknown-axis"),
    pytest.param(
        saved(VOXELS[None, None, None]), "a.npy", None, FormatError, "shape .1, 1, 1, 5, 33, 47.", id="six-axes"
    ),
    pytest.param(saved(VOXELS), "a.npy", "YYX", FormatError, "at most once", id="axis-twice"),
    pytest.param(saved(VOXELS.astype(np.complex64)), "a.npy", None, FormatError, "is complex64", id="dtype"),
    pytest.param(saved(VOXELS), "a.npy#z=9", None, ConfigError, "has 5 entries", id="outside"),
    pytest.param(saved(VOXELS), "a.npy#z=oops", None, ConfigError, "cannot understand", id="selection"),
    pytest.param(saved(VOXELS), "a.npy#sum=h", None, ConfigError, "names the axis 'h'", id="no-such-axis"),
    pytest.param(saved(VOXELS), "a.npy#bin=z:2", None, ConfigError, "does not divide", id="bin"),
]


@pytest.mark.filterwarnings("ignore")  # tifffile warns of what the error then says
@pytest.mark.parametrize(("make", "source", "axes", "error", "match"), WRONG)
def test_wrong_sources_are_refused_and_leave_no_product(
    tmp_path: Path, make: object, source: str, axes: str | None, error: type[SsdenoiseError], match: str
) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(error, match=match) as caught:
        read(tmp_path, source, axes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.ome.zarr" / "zarr.json").exists()
    begun = (tmp_path / "v.ome.zarr").exists()  # what is amiss in the voxels alone is seen when they are read
    assert records_of(tmp_path / "v.ome.zarr").exists() == begun


def test_a_volume_of_another_shape_than_its_partner_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VOXELS)
    noisy = read(tmp_path, "a.npy").path
    np.save(tmp_path / "b.npy", VOXELS[:, :30])
    with pytest.raises(FormatError, match="voxel by voxel"):
        ingest(spec_for("b.npy"), tmp_path / "b.ome.zarr", like=noisy, root=tmp_path)
    assert not list(tmp_path.glob("b.ome.zarr*"))


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(FormatError, match=r"\.jpg, \.lif, \.mrc, .*\.nii\.gz, \.npy, \.png, \.ptu, .*\.sdt, .*\.tif"):
        read(tmp_path, "a.xyz")


def picture(path: Path, voxels: np.ndarray) -> None:
    Image.fromarray(voxels).save(path)


def test_pictures_of_a_folder_become_planes(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    for name, plane in zip("bca", planes, strict=True):
        picture(tmp_path / f"{name}.png", plane)
    volume = read(tmp_path, "*.png")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], planes[[2, 0, 1]])
    assert len(volume.record["provenance"]["inputs"]) == 3


def test_upright_pictures_are_turned_and_colours_are_channels(tmp_path: Path) -> None:
    wide, tall = (
        np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8)
        for i, size in enumerate([(20, 30, 3), (30, 20, 3)])
    )
    picture(tmp_path / "a.png", wide)
    picture(tmp_path / "b.png", tall)
    volume = read(tmp_path, "*.png#landscape", "ZYXC")
    assert volume.shape == (1, 3, 2, 20, 30)
    found = volume.read((slice(None),) * 5)[0]
    np.testing.assert_array_equal(found[:, 0], wide.transpose(2, 0, 1))
    np.testing.assert_array_equal(found[:, 1], np.rot90(tall).transpose(2, 0, 1))
    with pytest.raises(FormatError, match="`#landscape` turns upright ones"):
        read(tmp_path, "*.png")
    with pytest.raises(MissingInputError, match="no files"):
        read(tmp_path, "*.jpg")


@pytest.mark.parametrize(("name", "mode"), [("a.png", "I;16"), ("a.jpg", "RGB"), ("a.jpeg", "L"), ("a.bmp", "RGB")])
def test_kinds_of_pictures(name: str, mode: str, tmp_path: Path) -> None:
    shape = (20, 30, 3) if mode == "RGB" else (20, 30)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint16 if mode == "I;16" else np.uint8)
    picture(tmp_path / name, noise)
    found = read(tmp_path, name).read((slice(None),) * 5)[0, :, 0]
    expected = np.asarray(Image.open(tmp_path / name))  # JPEG loses some
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, 0) if mode == "RGB" else expected[None])


def several(path: Path, number: int) -> None:
    first, *others = [Image.fromarray(np.full((20, 30), i, np.uint8)) for i in range(number)]
    first.save(path, save_all=True, append_images=others)


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("a.png", lambda path: tifffile.imwrite(path, VOXELS), "holds TIFF; let its name end as"),
        ("a.bmp", lambda path: Image.new("L", (9, 9)).save(path, "PNG"), "holds PNG; let its name end as"),
        ("a.png", lambda path: several(path, 3), "is a film of 3 pictures"),
        ("a.png", lambda path: Image.new("RGBA", (9, 9)).save(path), "the kind RGBA with transparency; needed grey"),
        ("a.png", lambda path: Image.new("LA", (9, 9)).save(path), "the kind LA with transparency; needed grey"),
        ("a.png", lambda path: Image.new("L", (9, 9)).save(path, transparency=0), "the kind L with transparency"),
        ("a.jpg", lambda path: Image.new("CMYK", (9, 9)).save(path), "the kind CMYK; needed grey"),
    ],
)
def test_pictures_that_would_lose_something_are_refused(name: str, write: Any, why: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(FormatError, match=why):
        read(tmp_path, name)


# --- formats, each made by its own writer --------------------------------------------------------------------------


def write_hdf5(path: Path, **attributes: object) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("raw/nuclei", data=VOXELS, chunks=(2, 16, 16), compression="gzip")
        dataset.attrs.update(attributes)


def test_hdf5_datasets(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", element_size_um=(0.5, 0.25, 0.25))
    volume = read(tmp_path, "a.h5")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS)
    assert volume.metadata.voxel_size_um == (0.5, 0.25, 0.25)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["other"] = VOXELS[:2]
        file["other"].dims[0].label, file["other"].dims[1].label, file["other"].dims[2].label = "c", "y", "x"
        file["shape"] = [1, 2, 3]  # no image
    assert read(tmp_path, "a.h5#dataset=/other").shape == (1, 2, 1, 33, 47)
    np.testing.assert_array_equal(
        read(tmp_path, "a.h5#dataset=raw/nuclei&z=2").read((slice(None),) * 5)[0, 0, 0], VOXELS[2]
    )
    with pytest.raises(
        ConfigError, match=r"one dataset has to be chosen, as `#dataset=0`; the file has 'other', 'raw/nu"
    ):
        read(tmp_path, "a.h5")
    with pytest.raises(ConfigError, match="there is no dataset 'labels'"):
        read(tmp_path, "a.h5#dataset=labels")


def test_hdf5_axes_of_ilastik(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", axistags=json.dumps({"axes": [{"key": "t"}, {"key": "y"}, {"key": "x"}]}))
    assert read(tmp_path, "a.h5").shape == (5, 1, 1, 33, 47)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int16, np.float16])
def test_mrc(dtype: type, tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc", VOXELS.astype(dtype)) as mrc:
        mrc.set_volume()
        mrc.voxel_size = (2500.0, 2500.0, 5000.0)  # X, Y, Z in Angstrom
    volume = read(tmp_path, "a.mrc")
    found = volume.read((slice(None),) * 5)[0, 0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, VOXELS.astype(dtype))
    assert volume.metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))


@pytest.mark.parametrize("end", ["nii", "nii.gz"])
def test_nifti(end: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(np.int16).T, np.diag([0.25, 0.25, 0.5, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / f"a.{end}")
    volume = read(tmp_path, f"a.{end}")
    found = volume.read((slice(None),) * 5)[0, 0]
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, VOXELS)
    assert volume.metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))


def test_scaled_nifti_is_read_as_it_is_meant(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(np.int16).T, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read(tmp_path, "a.nii")
    np.testing.assert_allclose(volume.read((slice(None),) * 5)[0, 0], nibabel.load(tmp_path / "a.nii").get_fdata().T)
    assert volume.array.dtype == np.float32


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_written_one_by_one_are_one_volume(compression: str | None, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane in VOXELS:
            tiff.write(plane, contiguous=False, compression=compression)
    np.testing.assert_array_equal(read(tmp_path, "a.tif", "ZYX").read((slice(None),) * 5)[0, 0], VOXELS)
    with pytest.raises(FormatError, match=r"has axes 'IYX' .* name them \(`axes`; I and Q stand for"):
        read(tmp_path, "a.tif")


def test_the_images_of_a_tiff(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        for planes in (VOXELS, VOXELS[:2, ::-1]):
            tiff.write(planes, metadata={"axes": "ZYX"}, compression="zlib")
    np.testing.assert_array_equal(read(tmp_path, "a.ome.tif#scene=1").read((slice(None),) * 5)[0, 0], VOXELS[:2, ::-1])
    with pytest.raises(ConfigError, match="one scene has to be chosen"):
        read(tmp_path, "a.ome.tif")
    with pytest.raises(ConfigError, match="there is no scene '2'"):
        read(tmp_path, "a.ome.tif#scene=2")


def write_omezarr(path: Path, voxels: np.ndarray, version: str, unit: str = "nanometer") -> None:
    """An image of axes CZYX in the layout of either version, checked by a validator of another origin."""
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", "unit": unit} for axis in "zyx")]
    scale = [{"type": "scale", "scale": [1.0, 500.0, 250.0, 250.0]}]
    image = {"version": version, "axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}
    omero = {"channels": [{"label": "actin", "color": "00FF00", "window": {"min": 0, "max": 9, "start": 0, "end": 9}}]}
    attributes: dict[str, object] = {"multiscales": [image], "omero": omero}
    new = version == "0.5"
    group = zarr.create_group(str(path), zarr_format=3 if new else 2)
    if new:
        del image["version"]
        attributes = {"ome": attributes | {"version": version}}
    group.attrs.update(attributes)
    names = {"dimension_names": list("czyx")} if new else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    group.create_array("s0", data=voxels, chunks=(1, 2, 16, 16), **names)  # type: ignore[arg-type]
    validate_zarr_store(str(path))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(version: str, tmp_path: Path) -> None:
    write_omezarr(tmp_path / "a.zarr", VOXELS[None], version)
    volume = read(tmp_path, "a.zarr#z=1:4")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS[1:4])
    assert volume.metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    assert (volume.metadata.channels, volume.metadata.colors) == (("actin",), ("00FF00",))
    (tmp_path / "v.ome.zarr").rename(tmp_path / "ours.ome.zarr")  # a source like others
    assert read(tmp_path, "ours.ome.zarr").digest == volume.digest


def test_images_of_a_collection_of_ome_zarr(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a.zarr"))
    for name, voxels in (("0", VOXELS), ("1", VOXELS[::-1])):
        write_omezarr(tmp_path / "a.zarr" / name, voxels[None], "0.5", unit="parsec" if name == "1" else "nanometer")
    volume = read(tmp_path, "a.zarr#scene=1")
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS[::-1])
    assert volume.metadata.voxel_size_um is None
    with pytest.raises(ConfigError, match="the file has '0', '1'"):
        read(tmp_path, "a.zarr")


def write_ome_tiffs(folder: Path, *, images: bool = False) -> list[str]:
    """Planes of one image, or images of one plane, each in a file of its own; each file describes all."""
    names = [f"plane-{z}.ome.tif" for z in range(len(VOXELS))]
    z, y, x = (1 if images else len(VOXELS)), *VOXELS.shape[1:]
    planes = [
        f'<TiffData FirstZ="{0 if images else i}" IFD="0" PlaneCount="1"><UUID FileName="{name}">'
        f"urn:uuid:{i:08d}-0000-0000-0000-000000000000</UUID></TiffData>"
        for i, name in enumerate(names)
    ]
    described = "".join(
        f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" Type="uint16" SizeX="{x}" SizeY="{y}" '
        f'SizeZ="{z}" SizeC="1" SizeT="1">{inside}</Pixels></Image>'
        for i, inside in enumerate(planes if images else ["".join(planes)])
    )
    for number, (name, plane) in enumerate(zip(names, VOXELS, strict=True)):
        ome = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{number:08d}-0000-0000-0000-000000000000">{described}</OME>'
        )
        tifffile.imwrite(folder / name, plane, description=ome, metadata=None, compression=None if images else "zlib")
    return names


def test_planes_of_one_ome_tiff_in_several_files(tmp_path: Path) -> None:
    names = write_ome_tiffs(tmp_path)
    volume = read(tmp_path, names[0])
    np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], VOXELS)
    assert list(volume.record["provenance"]["inputs"]) == [str(tmp_path / name) for name in names]
    with tifffile.TiffFile(tmp_path / names[2]) as old:
        tifffile.imwrite(tmp_path / names[2], VOXELS[2] + 1, description=old.ome_metadata, metadata=None)
    np.testing.assert_array_equal(read(tmp_path, names[0]).read((slice(None),) * 5)[0, 0, 2], VOXELS[2] + 1)
    (tmp_path / names[2]).write_bytes((tmp_path / names[2]).read_bytes()[:-300])
    with pytest.raises(FormatError, match=r"is it whole"):
        read(tmp_path, names[0] + "#z=0:5")
    (tmp_path / names[2]).unlink()
    with pytest.raises(MissingInputError, match=r"no file .*plane-2\.ome\.tif, which planes of .*plane-0\.ome\.tif"):
        read(tmp_path, names[0])


def test_a_workflow_waits_for_all_files_of_an_ome_tiff(tmp_path: Path) -> None:
    names = write_ome_tiffs(tmp_path)
    (tmp_path / "sheet.tsv").write_text(f"dataset\tnoisy\na\t{names[0]}\n")
    project = Project({"run": "r", "datasets": "sheet.tsv", "methods": {"median": {"name": "median"}}}, tmp_path)
    assert project.inputs(names[0]) == names


def test_images_of_one_ome_tiff_in_several_files(tmp_path: Path) -> None:
    """Not compressed, they lie at the same place of different files."""
    names = write_ome_tiffs(tmp_path, images=True)
    for i in (0, 3):
        found = read(tmp_path, f"{names[0]}#scene={i}").read((slice(None),) * 5)[0, 0, 0]
        np.testing.assert_array_equal(found, VOXELS[i])


def test_images_of_a_plate_of_ome_zarr(tmp_path: Path) -> None:
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/2", "rowIndex": 1, "columnIndex": 1}]
    zarr.create_group(str(tmp_path / "a.zarr"), attributes={"ome": {"version": "0.5", "plate": {"wells": wells}}})
    for name, voxels in (("A/1/0", VOXELS), ("B/2/0", VOXELS[::-1]), ("B/2/1", VOXELS[:, ::-1])):
        write_omezarr(tmp_path / "a.zarr" / name, voxels[None], "0.5")
    for name, voxels in (("B/2/0", VOXELS[::-1]), ("B/2/1", VOXELS[:, ::-1])):
        volume = read(tmp_path, f"a.zarr#scene={name}")
        np.testing.assert_array_equal(volume.read((slice(None),) * 5)[0, 0], voxels)
    with pytest.raises(ConfigError, match="the file has 'A/1/0', 'B/2/0'"):
        read(tmp_path, "a.zarr")
    with pytest.raises(FormatError, match="has no image A/1/7"):
        read(tmp_path, "a.zarr#scene=A/1/7")


def test_zarrs_without_an_image_are_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a.zarr"))
    with pytest.raises(FormatError, match="no OME metadata of an image"):
        read(tmp_path, "a.zarr")
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(MissingInputError, match="no file"):
        read(tmp_path, "c.zarr")


@pytest.mark.parametrize("end", ["h5", "mrc", "nii"])
def test_files_that_are_not_what_their_names_say(end: str, tmp_path: Path) -> None:
    for content in (b"", b"hello" * 1000):
        (tmp_path / f"a.{end}").write_bytes(content)
        with pytest.raises(FormatError, match=rf"a\.{end} cannot be read as {end} \(.+\); is it whole\?$"):
            read(tmp_path, f"a.{end}")


def test_an_array_whose_columns_come_first(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(VOXELS))
    np.testing.assert_array_equal(read(tmp_path, "a.npy").read((slice(None),) * 5)[0, 0], VOXELS)


def test_packed_nifti_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can only be read from its start."""
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16).T, np.eye(4)), tmp_path / "a.nii.gz")
    reads: list[int] = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, n=-1: reads.append(n) or original(file, n))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ssdenoise.ingest.BAND_BYTES", 20_000)
    np.testing.assert_array_equal(read(tmp_path, "a.nii.gz").read((slice(None),) * 5)[0, 0], VOXELS)
    assert reads.count(2 * VOXELS.size + 352) == 1
    assert not list(tmp_path.glob("ssdenoise-*"))
    whole = (tmp_path / "a.nii.gz").read_bytes()
    for broken in (whole[:-3000], whole[:-8] + b"12345678"):
        (tmp_path / "a.nii.gz").write_bytes(broken)
        with pytest.raises(FormatError, match=r"a\.nii\.gz cannot be read as nii\.gz \(.+\); is it whole\?$"):
            read(tmp_path, "a.nii.gz#z=0")
        assert not list(tmp_path.glob("ssdenoise-*"))


def test_what_is_inspected_need_not_be_as_expected(tmp_path: Path) -> None:
    """Three samples of one channel; a name that no folder may have; an image too thin for the noise."""
    colours = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", colours, photometric="rgb", metadata={"axes": "YXS", "Channel": {"Name": "stain"}}
    )
    assert "channel 2   no name" in inspect(f"{tmp_path}/a.ome.tif")
    np.save(tmp_path / "Größe.npy", colours[:6, :64, 0])
    said = inspect(f"{tmp_path}/Größe.npy")
    assert "intensity" in said
    assert "noise       cannot be measured: planes of (6, 64) pixels" in said
    (tmp_path / "sheet.tsv").write_text(said.partition("\n\n")[2])
    assert read_sheet(tmp_path / "sheet.tsv")[0].dataset == "Gr--e"


def claims_of(folder: Path) -> list[str]:
    """Files of a few kilobytes that speak of 16 MB."""
    shape = (64, 512, 512)
    zeros = np.zeros(shape, np.uint8)
    tifffile.imwrite(folder / "a.tif", zeros, compression="zlib", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "b.tif", zeros[..., None], compression="zlib", metadata={"axes": "ZYXS"})
    np.save(folder / "a.npy", zeros)
    mrcfile.write(folder / "a.mrc", zeros.astype(np.int16))
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(zeros, np.eye(4)), folder / name)
    for name in ("a.npy", "a.mrc", "a.nii"):
        (folder / name).write_bytes((folder / name).read_bytes()[:9000])
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", data=zeros, chunks=shape, compression="gzip")
    (folder / "a.ptu").write_bytes(bytes(9000))
    return ["a.tif", "b.tif", "a.npy", "a.mrc", "a.nii", "a.nii.gz", "a.h5", "a.ptu"]


def test_claims_are_refused_before_memory_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ptu(nullcontext):  # nobody writes PTU
        dims, shape, nbytes = "TYXCH", (64, 512, 512, 1, 1), 2**24

    monkeypatch.setattr("ptufile.PtuFile", Ptu)
    monkeypatch.setattr("ptufile.PtuFile.__enter__", lambda self: self)
    monkeypatch.setattr("ssdenoise.ingest.source.HARMLESS_BYTES", 2**20)
    monkeypatch.setattr("ssdenoise.ingest.source.INFLATION", 2)
    for name in claims_of(tmp_path):
        tracemalloc.start()
        with pytest.raises(
            FormatError, match=r"claims an array of .64, 512, 512.*in a file of|its header|Expected|mmap"
        ):
            read_source(name, tmp_path, None)
        assert tracemalloc.get_traced_memory()[1] < 2**22, name
        tracemalloc.stop()


def test_hdf5_that_was_written_in_part_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdenoise.ingest.source.HARMLESS_BYTES", 2**16)
    monkeypatch.setattr("ssdenoise.ingest.source.INFLATION", 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (16, 256, 256), np.uint16, chunks=(1, 64, 64))[3, :64, :64] = 7
    found = read(tmp_path, "a.h5").read((slice(None),) * 5)[0, 0]
    assert (found[3, :64, :64] == 7).all()
    assert found.sum() == 7 * 64 * 64


def test_shards_and_large_planes_are_read_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdenoise.ingest.source.CHUNK_BYTES", 8000)
    monkeypatch.setattr("ssdenoise.ingest.omezarr.CHUNK_BYTES", 8000)
    voxels = np.random.default_rng(0).integers(0, 1000, (32, 96, 128), dtype=np.uint16)
    write_omezarr(tmp_path / "a.zarr", voxels[None], "0.5")
    (tmp_path / "a.zarr" / "s0" / "zarr.json").unlink()
    group = zarr.open_group(str(tmp_path / "a.zarr"))
    group.create_array("s0", data=voxels[None], chunks=(1, 4, 16, 16), shards=(1, 16, 32, 64), overwrite=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = voxels
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.eye(4)), tmp_path / "a.nii")
    for name, block in (("a.zarr", (1, 4, 16, 32)), ("a.h5", (1, 31, 128)), ("a.nii", (128, 31, 1))):
        with closing(read_source(name, tmp_path, None)) as source:
            assert source.array.chunksize == block
        np.testing.assert_array_equal(read(tmp_path, name).read((slice(None),) * 5)[0, 0], voxels)


def test_bigtiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.btf", VOXELS, bigtiff=True, metadata={"axes": "ZYX"}, compression="zlib")
    np.testing.assert_array_equal(read(tmp_path, "a.btf").read((slice(None),) * 5)[0, 0], VOXELS)


@pytest.mark.parametrize("end", ["tif", "btf", "h5", "mrc", "nii", "nii.gz", "npy", "png", "jpg", "bmp"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore")  # tifffile warns of what the error then says
def test_files_that_end_early(end: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{end}"
    if end in ("tif", "btf"):
        tifffile.imwrite(path, VOXELS, bigtiff=end == "btf", metadata={"axes": "ZYX"})
    elif end == "h5":
        write_hdf5(path)
    elif end == "mrc":
        mrcfile.write(path, VOXELS)
    elif end.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.int16).T, np.eye(4)), path)
    elif end == "npy":
        np.save(path, VOXELS)
    else:
        picture(path, VOXELS[0].astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FormatError, match=rf"a\.{end} cannot be read as {end} \(.+\); is it whole\?$") as caught:
        read(tmp_path, path.name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.ome.zarr" / "zarr.json").exists()
