"""Files of microscopes, read through bioio.

CZI files are written by Zeiss's own library. Nobody's writes ND2 or LIF: those are made here, by what is known of their
containers (that is, what the readers of them ask for), and stand in for files of microscopes, which are not at hand.
"""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.ingest import ingest
from ssdenoise.store import Volume
from tests.unit.test_ingest import read, spec_for

#: Two scenes of axes T, C, Z, Y, X.
SCENES = np.random.default_rng(0).integers(0, 1000, (2, 3, 2, 5, 33, 46), dtype=np.uint16)
CHANNELS = ("DNA", "actin")
WHOLE = (slice(None),) * 5

NEEDS_CZI = pytest.mark.skipif(importlib.util.find_spec("bioio_czi") is None, reason="bioio-czi is not installed: GPL")


# --- ND2 -----------------------------------------------------------------------------------------------------------


def entry(name: str, value: object) -> bytes:
    """One of ND2's metadata: its type, its name in UTF-16, its value or the entries below it."""
    spelt = f"{name}\0".encode("utf-16-le")
    if isinstance(value, dict):
        inner = b"".join(entry(key, below) for key, below in value.items())
        head = struct.pack("BB", 11, len(name) + 1) + spelt
        return head + struct.pack("<IQ", len(value), len(head) + 12 + len(inner)) + inner + bytes(8 * len(value))
    kinds = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d"), str: (8, "")}
    kind, code = kinds[type(value)]
    packed = f"{value}\0".encode("utf-16-le") if isinstance(value, str) else struct.pack(code, value)
    return struct.pack("BB", kind, len(name) + 1) + spelt + packed


def nd2_chunks(scenes: np.ndarray, *, calibrated: bool) -> dict[str, bytes]:
    p, t, c, z, y, x = scenes.shape
    size = {"uiWidth": x, "uiWidthBytes": 2 * c * x, "uiHeight": y, "uiComp": c, "uiSequenceCount": p * t * z}
    colors = (0xFF0000, 0x00FF00)  # blue, green, red
    planes = {
        f"a{i}": {"sDescription": name, "uiColor": color, "uiCompCount": 1, "pFluorescentProbe": {"m_sName": name}}
        for i, (name, color) in enumerate(zip(CHANNELS, colors, strict=True))
    }
    picture = {
        "bCalibrated": calibrated,
        "dCalibration": 0.25,
        "sPicturePlanes": {"uiCount": c, "sPlaneNew": planes},
    }
    points = {f"i{i:010}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0, "dPosName": f"well {i}"} for i in range(p)}
    stack = {"eType": 4, "uLoopPars": {"uiCount": z, "dZStep": 0.5}}
    times = {"eType": 1, "uLoopPars": {"uiCount": t, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 3.0}}
    loops = {
        "eType": 2,
        "uLoopPars": {"Points": points},
        "ppNextLevelEx": {"i0": times | {"ppNextLevelEx": {"i0": stack}}},
    }
    frames = np.moveaxis(scenes, 2, -1).reshape(-1, y, x, c)  # channels interleaved
    return {
        "ImageAttributesLV!": entry("SLxImageAttributes", size | {"uiBpcInMemory": 16, "uiBpcSignificant": 16}),
        "ImageMetadataSeqLV|0!": entry("SLxPictureMetadata", picture),
        "ImageMetadataLV!": entry("SLxExperiment", loops),
        "CustomData|AcqTimesCache!": np.arange(len(frames), dtype=float).tobytes(),
        **{f"ImageDataSeq|{i}!": bytes(8) + frame.tobytes() for i, frame in enumerate(frames)},
    }


def write_nd2(path: Path, scenes: np.ndarray, *, calibrated: bool = True) -> None:
    """Named chunks one after the other, and at the end where each is."""
    with path.open("wb") as file:

        def write(name: str, data: bytes) -> int:
            at, room = file.tell(), 4072 if name.startswith("ImageDataSeq") else len(name)
            file.write(struct.pack("<IIQ", 0x0ABECEDA, room, len(data)) + name.encode().ljust(room, b"\0") + data)
            return at

        write("ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"))
        places = b"".join(
            name.encode() + struct.pack("<QQ", write(name, data), len(data))
            for name, data in nd2_chunks(scenes, calibrated=calibrated).items()
        )
        end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", file.tell())
        write("ND2 FILEMAP SIGNATURE NAME 0001!", places + end)


# --- LIF -----------------------------------------------------------------------------------------------------------


def lif_image(name: str, block: str, shape: tuple[int, ...]) -> str:
    """Description of an image of axes T, C, Z, Y, X that lies in the order T, Z, C, Y, X."""
    t, c, z, y, x = shape
    plane = 2 * y * x
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="1" '
        f'Unit="" LUTName="{lut}" IsLUTInverted="0" BytesInc="{i * plane}" BitInc="0"/>'
        for i, lut in enumerate(CHANNELS)
    )
    # number of the axis, entries, their distance in metres or seconds, in bytes
    axes = ((1, x, 2.5e-7, 2), (2, y, 2.5e-7, 2 * x), (3, z, 5e-7, c * plane), (4, t, 1.0, z * c * plane))
    dimensions = "".join(
        f'<DimensionDescription DimID="{i}" NumberOfElements="{n}" Origin="0" Length="{(n - 1) * step}" '
        f'Unit="{"s" if i == 4 else "m"}" BytesInc="{distance}" BitInc="0"/>'
        for i, n, step, distance in axes
    )
    return (
        f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{channels}</Channels><Dimensions>{dimensions}'
        f'</Dimensions></ImageDescription></Image></Data><Memory MemoryBlockID="{block}"/></Element>'
    )


def write_lif(path: Path, scenes: np.ndarray) -> None:
    """A description as XML in UTF-16, and the blocks that it names."""
    images = "".join(lif_image(f"well {i}", f"Block_{i}", scene.shape) for i, scene in enumerate(scenes))
    text = f'<Element Name="a"><Children>{images}</Children></Element>'
    text = f'<LMSDataContainerHeader Version="2">{text}</LMSDataContainerHeader>'
    data = struct.pack("<IIBI", 0x70, 2 * len(text) + 5, 0x2A, len(text)) + text.encode("utf-16-le")
    for i, scene in enumerate(scenes):
        name, voxels = f"Block_{i}", np.swapaxes(scene, 1, 2).tobytes()
        data += struct.pack("<IIBQBI", 0x70, 2 * len(name) + 14, 0x2A, len(voxels), 0x2A, len(name))
        data += name.encode("utf-16-le") + voxels
    path.write_bytes(data)


# --- CZI -----------------------------------------------------------------------------------------------------------


def write_czi(path: Path, scenes: np.ndarray, *, named: bool = True) -> None:
    from pylibCZIrw import czi

    with czi.create_czi(str(path), exist_ok=True) as file:
        for s, t, c, z in np.ndindex(scenes.shape[:4]):
            plane = {"T": t, "C": c, "Z": z}
            file.write(scenes[s, t, c, z][..., None], location=(100 * s, 0), plane=plane, scene=s)
        scales = {"scale_x": 0.25e-6, "scale_y": 0.25e-6, "scale_z": 0.5e-6}
        file.write_metadata("-" * 200, channel_names=dict(enumerate(CHANNELS)), **scales)
    if named:  # microscopes name scenes, the writer does not: names take the room of the document's title
        data = path.read_bytes()
        names = "".join(f'<Scene Index="{i}" Name="well {i}"/>' for i in range(len(scenes)))
        named_scenes = f"</Channels><S><Scenes>{names}</Scenes></S>".encode()
        room = b"-" * (len(named_scenes) - len(b"</Channels>"))
        path.write_bytes(data.replace(room, b"", 1).replace(b"</Channels>", named_scenes, 1))


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {"nd2": write_nd2, "lif": write_lif, "czi": write_czi}
FORMATS = [pytest.param(end, marks=NEEDS_CZI if end == "czi" else ()) for end in WRITERS]


def is_open(path: Path) -> bool:
    return str(path) in {file.path for file in psutil.Process().open_files()}


@pytest.mark.parametrize("end", FORMATS)
def test_voxels_and_metadata_of_a_scene(end: str, tmp_path: Path) -> None:
    WRITERS[end](tmp_path / f"a.{end}", SCENES)
    volume = read(tmp_path, f"a.{end}#scene=well 1")
    np.testing.assert_array_equal(volume.read(WHOLE), SCENES[1])
    assert volume.metadata.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    assert volume.metadata.channels == CHANNELS
    assert volume.metadata.colors == (("0000FF", "00FF00") if end == "nd2" else ("FFFFFF",) * 2)
    assert not is_open(tmp_path / f"a.{end}")
    by_number = read(tmp_path, f"a.{end}#scene=0&z=1:3&c=1")
    np.testing.assert_array_equal(by_number.read(WHOLE), SCENES[0][:, 1:, 1:3])
    assert by_number.metadata.channels == CHANNELS[1:]
    with pytest.raises(
        ConfigError, match=r"one scene has to be chosen, as `#scene=0`; the file has 'well 0', 'well 1'$"
    ):
        read(tmp_path, f"a.{end}")
    with pytest.raises(ConfigError, match="there is no scene 'well 7'"):
        read(tmp_path, f"a.{end}#scene=well 7")
    assert not is_open(tmp_path / f"a.{end}")


@pytest.mark.parametrize("end", FORMATS)
def test_threads_read_the_same_band_by_band(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdenoise.ingest.BAND_BYTES", 20_000)
    WRITERS[end](tmp_path / f"a.{end}", SCENES)
    ingest(spec_for(f"a.{end}#scene=1"), tmp_path / "v.ome.zarr", root=tmp_path, threads=4)
    np.testing.assert_array_equal(Volume(tmp_path / "v.ome.zarr").read(WHOLE), SCENES[1])


@pytest.mark.parametrize(("end", "chunks"), [("nd2", 15), ("lif", 30)])
def test_every_chunk_is_read_once(end: str, chunks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of ND2 is a plane of all channels."""
    import liffile
    import nd2

    WRITERS[end](tmp_path / f"a.{end}", SCENES)
    where, name = (nd2.ND2File, "read_frame") if end == "nd2" else (liffile.LifImageFrames, "asarray")
    original, reads = getattr(where, name), []
    monkeypatch.setattr(where, name, lambda self, *given: reads.append(given) or original(self, *given))
    read(tmp_path, f"a.{end}#scene=1")
    assert len(reads) == chunks


@pytest.mark.parametrize("end", FORMATS)
@pytest.mark.parametrize("broken", ["empty", "text", "cut"])
def test_files_that_are_not_what_their_names_say(broken: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{end}"
    WRITERS[end](path, SCENES)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello" * 1000, "cut": whole[: len(whole) * 3 // 4]}[broken])
    with pytest.raises(FormatError, match=rf"a\.{end} cannot be read as {end} \(.+\); is it whole\?$") as caught:
        read(tmp_path, f"a.{end}#scene=1")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.ome.zarr" / "zarr.json").exists()
    assert not is_open(path)


def test_nd2_that_was_not_calibrated_has_no_voxel_size(tmp_path: Path) -> None:
    write_nd2(tmp_path / "a.nd2", SCENES, calibrated=False)
    assert read(tmp_path, "a.nd2#scene=0").metadata.voxel_size_um is None


def test_czi_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio_czi", None)
    (tmp_path / "a.czi").write_text("hello")
    with pytest.raises(ConfigError, match=r"a\.czi needs the package bioio-czi, .*GPL; `pip install -e '.\[czi\]'`"):
        read(tmp_path, "a.czi")
    (tmp_path / "a.czi").write_bytes(b"")
    with pytest.raises(FormatError, match=r"a\.czi cannot be read as czi \(it is empty\)"):
        read(tmp_path, "a.czi")


@pytest.mark.parametrize("missing", ["bioio_nd2", "nd2"])
def test_a_package_that_is_missing_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in ("bioio_nd2", missing)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    write_nd2(tmp_path / "a.nd2", SCENES)
    package = missing.replace("_", "-")
    with pytest.raises(ConfigError, match=rf"needs the package {package}, which is not installed; `pip install -e \.`"):
        read(tmp_path, "a.nd2")


@NEEDS_CZI
def test_czi_whose_scenes_have_no_names_is_refused(tmp_path: Path) -> None:
    write_czi(tmp_path / "a.czi", SCENES, named=False)
    with pytest.raises(FormatError, match="holds 2 scenes, its metadata name 1; name them, or write one file a scene"):
        read(tmp_path, "a.czi")


@NEEDS_CZI
def test_czi_of_tiles_and_of_colours(tmp_path: Path) -> None:
    from pylibCZIrw import czi

    plane, colours = SCENES[0, 0, 0, 0], SCENES[0, 0, :1, :3].astype(np.uint8)[0].transpose(1, 2, 0)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for y, x in np.ndindex(3, 2):
            tile = np.ascontiguousarray(plane[11 * y : 11 * y + 11, 23 * x : 23 * x + 23, None])
            file.write(tile, location=(23 * x, 11 * y))
        file.write_metadata("a", scale_x=1e-6, scale_y=1e-6)
    with czi.create_czi(str(tmp_path / "b.czi")) as file:
        file.write(np.ascontiguousarray(colours))
        file.write_metadata("b", scale_x=1e-6, scale_y=1e-6)
    np.testing.assert_array_equal(read(tmp_path, "a.czi").read(WHOLE)[0, 0, 0], plane)
    np.testing.assert_array_equal(read(tmp_path, "b.czi").read(WHOLE)[0, :, 0], colours.transpose(2, 0, 1))
