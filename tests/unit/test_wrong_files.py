"""Models, stores, records and sheets that are not what they should be: one line that names the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.__main__ import app
from ssdenoise.calibrate import calibrate
from ssdenoise.commit import commit
from ssdenoise.config.models import read_sheet
from ssdenoise.config.project import Project
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.errors import ConfigError, DamagedStore, FormatError, SsdenoiseError
from ssdenoise.methods import METHODS
from ssdenoise.model import load_model
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume
from ssdenoise.train import Scene, train
from tests.conftest import spec_for


def refused(kind: type[SsdenoiseError], pattern: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=pattern) as raised:
        call()
    assert "\n" not in str(raised.value)


#: Contents of `model.json`, and what is told of them.
WRONG_MODELS = [
    ("{}", "KeyError: 'method'"),
    ("[]", "TypeError"),
    ('{"method": {"name": "n3v"}}', "KeyError: 'n3v'"),
    ('{"method": {"name": "n2v", "colour": 1}}', "colour: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("text", "told"), WRONG_MODELS)
def test_wrong_models_are_one_line(text: str, told: str, tmp_path: Path) -> None:
    folder = tmp_path / "m" / "n2v"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(text)
    (folder / "model.safetensors").touch()
    pattern = f"m/n2v/model.json describes no model that this version of ssdenoise knows .*{re.escape(told)}.*; train"
    refused(FormatError, pattern, lambda: load_model(folder))
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), np.uint16))
    (tmp_path / "sheet.tsv").write_text("dataset\tnoisy\tmodel\na\ta.npy\tm/{method}\n")
    config = {"run": "r", "datasets": "sheet.tsv", "methods": {"n2v": {"name": "n2v"}}}
    refused(FormatError, f"sheet.tsv: dataset 'a': .*{pattern}", lambda: Project(config, tmp_path))


def test_models_cut_short_are_one_line(counts: Volume, tmp_path: Path) -> None:
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    train(spec_for("gaussian"), [Scene(counts.path, tmp_path / "c.json")], tmp_path / "m")
    assert load_model(tmp_path / "m").channels == 1
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(FormatError, r"model.safetensors cannot be read \(", lambda: load_model(tmp_path / "m"))
    whole = METHODS["gaussian"]().model_dump(mode="json")  # type: ignore[call-arg]
    (tmp_path / "m" / "model.json").write_text(json.dumps({"method": whole, "channels": 1}))
    refused(FormatError, r"KeyError: 'ndim'", lambda: load_model(tmp_path / "m"))
    (tmp_path / "m" / "model.json").write_bytes(b"\xff\xfe\x00")
    refused(FormatError, r"model.json is no JSON", lambda: load_model(tmp_path / "m"))


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"attributes": []}', '{"attributes": {"ssdenoise": {}, "ome": {}}}', "\xff"]
)
def test_zarrs_of_others_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_bytes(text.encode("latin-1"))
    refused(FormatError, "zarr.json was not written by ssdenoise", lambda: Volume(tmp_path))


@pytest.mark.parametrize("text", [None, "{", "{}", "[]"])
def test_stores_without_their_array_are_one_line(text: str | None, counts: Volume) -> None:
    metadata = counts.path / "0" / "zarr.json"
    metadata.unlink()
    if text is not None:
        metadata.write_text(text)
    refused(DamagedStore, r"counts.ome.zarr/0 is no array any more .*; run the job", lambda: Volume(counts.path))


@pytest.mark.parametrize("text", ["{}", "[]", '{"layouts": {}}'])
def test_what_is_no_record_of_a_slab_is_one_line(text: str, counts: Volume, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    refused(
        FormatError,
        "r.json is no record of a slab",
        lambda: commit(counts.path, [tmp_path / "r.json"], "denoised", tmp_path),
    )


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "sheet.tsv").write_bytes("dataset\tnoisy\nKöln\ta.npy\n".encode("latin-1"))
    refused(ConfigError, "sheet.tsv is not in UTF-8 .*; save it as such", lambda: read_sheet(tmp_path / "sheet.tsv"))
    (tmp_path / "r.json").write_bytes(b"\xff")
    refused(FormatError, "r.json is no JSON", lambda: read_json(tmp_path / "r.json"))


@pytest.mark.parametrize("output", ["file", "file/a.ome.zarr", "file/zarr.json"])
def test_a_file_in_the_place_of_a_product_is_one_line(output: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = ["ingest", "--spec", "{}", "--output", str(tmp_path / output)]
    refused(ConfigError, f"{tmp_path}/file is a file; name a folder", lambda: app(command, standalone_mode=False))
