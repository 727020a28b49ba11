"""Exported models give what the tiles give, at any size, and pass the model zoo's own test."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ssdenoise import denoise as stage
from ssdenoise.config.specs import Storage
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.export import export
from ssdenoise.export.graph import smallest
from ssdenoise.export.package import citations, default_name, volumes_said
from ssdenoise.methods import METHODS
from ssdenoise.model import load_model
from ssdenoise.store import Volume
from tests.conftest import make_store, scene
from tests.unit.test_denoise import FLOAT, make_model, run

#: bioimageio.spec leaves the files open that it reads.
FOREIGN = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

GIVEN = {"authors": ["A. Author"], "license": "CC-BY-4.0"}


def noisy_store(folder: Path, shape: tuple[int, ...]) -> Volume:
    noisy = np.random.default_rng(0).poisson(scene(shape) / 20).astype(np.uint16)
    return make_store(folder, "noisy", noisy, Storage(chunk=(2, 16, 16), shard=(4, 64, 64)))


@FOREIGN
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ndim", "channels", "options"),
    [("n2v", 2, 1, {}), ("hqssl", 2, 1, {}), ("n2n", 3, 2, {}), ("hqssl", 3, 1, {"planes": 3})],
)
def test_the_package_passes_the_zoo_s_test_and_gives_what_tiles_give(
    name: str, ndim: int, channels: int, options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    volume = noisy_store(tmp_path, (1, channels, 5, 128, 192))
    model = make_model(tmp_path, volume, name, ndim, **options)
    package = export(model, volume.path, tmp_path / "package", **GIVEN)
    tested = subprocess.run(
        [sys.executable, "-m", "bioimageio.core", "test", str(package)], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr

    tiled = run(FLOAT, volume, model, tmp_path / "out")
    products = [tiled] + ([Volume(tmp_path / "out" / "uncertainty.ome.zarr")] if name == "hqssl" else [])
    session = onnxruntime.InferenceSession(package / "weights.onnx", providers=["CPUExecutionProvider"])
    whole = volume.read((slice(None),) * 5).astype(np.float32)
    samples = whole if ndim == 3 else np.moveaxis(whole[0], 1, 0)  # planes are samples
    for found, product in zip(session.run(None, {"noisy": samples}), products, strict=True):
        expected = product.read((slice(None),) * 5)
        assert np.abs(found - (expected if ndim == 3 else np.moveaxis(expected[0], 1, 0))).max() < 1e-4 * whole.std()


@FOREIGN
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        *((name, 1, {}) for name in sorted(METHODS) if METHODS[name].trainable and name not in ("n2v", "hqssl")),
        ("n2v", 2, {"channels": "independent", "test_time_augmentation": True}),
        ("hqssl", 3, {}),
        ("hqssl", 1, {"likelihood": "impulse", "parameters": "unknown"}),
        ("hqssl", 1, {"parameters": "unknown_per_image", "patch": (1, 64, 64)}),
    ],
)
def test_every_trained_method_becomes_a_graph_of_free_size(
    name: str, channels: int, options: dict[str, object], tmp_path: Path
) -> None:
    """The export itself compares with onnxruntime, at another size than the graph was traced with."""
    volume = noisy_store(tmp_path, (1, channels, 2, 128, 128))
    model = make_model(tmp_path, volume, name, 2, **options)
    assert (export(model, volume.path, tmp_path / "package", **GIVEN) / "weights.onnx").is_file()


@FOREIGN
def test_a_zip_file_tells_nothing_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    volume = noisy_store(tmp_path, (1, 1, 1, 64, 64))  # smaller than the smallest input
    model = make_model(tmp_path, volume, "n2v", 2)
    package = export(model, volume.path, tmp_path / "package.zip", **GIVEN, name="a name")
    with zipfile.ZipFile(package) as files:
        assert {"rdf.yaml", "README.md", "weights.onnx", "noisy.npy", "denoised.npy"} <= set(files.namelist())
        contents = {name: files.read(name) for name in files.namelist()}
    for name, content in contents.items():
        assert b"site-packages" not in content, name
        assert str(Path(__file__).parents[2]).encode() not in content, name
        assert str(tmp_path).encode() not in content, name
    lengths = [n + 2 * s for n, s in zip(smallest(load_model(model)), load_model(model).net.stride, strict=True)]
    assert np.load(io.BytesIO(contents["noisy.npy"])).shape == (1, 1, *lengths)
    with pytest.raises(ConfigError, match=r"package\.zip exists already"):
        export(model, volume.path, package, **GIVEN)


@FOREIGN
def test_what_cannot_be_exported_is_one_clear_line(tmp_path: Path) -> None:
    volume = noisy_store(tmp_path, (1, 1, 1, 64, 64))
    (tmp_path / "nlm").mkdir()
    baseline = make_model(tmp_path / "nlm", volume, "nlm", 2)
    with pytest.raises(ConfigError, match="holds nlm, which has no network"):
        export(baseline, volume.path, tmp_path / "package", **GIVEN)
    model = make_model(tmp_path, volume, "n2v", 2)
    (tmp_path / "two").mkdir()
    two = noisy_store(tmp_path / "two", (1, 2, 1, 64, 64))
    with pytest.raises(FormatError, match=r"has 2 channels, the model .* 1"):
        export(model, two.path, tmp_path / "package", **GIVEN)
    with pytest.raises(ConfigError, match="BioImage Model Zoo refuses name: "):
        export(model, volume.path, tmp_path / "package", **GIVEN, name="a/b/c/d")
    assert not (tmp_path / "package").exists()


def test_the_page_names_the_volumes_that_a_model_was_trained_on() -> None:
    def said(*volumes: str) -> str:
        return volumes_said({"trained_on": {"dataset": "g", "noise": "measured", "volumes": volumes}})

    assert said("g noisy") == "the dataset `g` at the noise level `measured`"
    assert said("a noisy", "b noisy") == (
        "the group `g` of 2 volumes (`a noisy`, `b noisy`) at the noise level `measured`"
    )
    assert "`9`, and 2 more) at" in said(*map(str, range(12)))
    old = {"method": {"name": "n2v"}, "provenance": {"spec": {"dataset": "g", "noise": "measured"}}}
    assert volumes_said(old) == "the dataset or group `g` at the noise level `measured`"
    assert default_name(old) == "n2v of g measured"


def test_methods_name_their_papers() -> None:
    named = {name: citations(cls()) for name, cls in METHODS.items() if cls.trainable}  # type: ignore[call-arg]
    assert all(named.values())
    assert named["structn2v"][0][1] == "https://doi.org/10.1109/ISBI45749.2020.9098336"
    assert named["hqssl"][0][1] == "https://arxiv.org/abs/1901.10277"
