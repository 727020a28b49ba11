"""The command line: a verb per stage, one line for a mistake, no heavy import for help."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from ssdenoise.__main__ import MALLOC, app
from ssdenoise.config.models import TrainSpec, read_sheet
from ssdenoise.config.specs import CompareSpec, IngestSpec, ProbeSpec, ReportSpec, ScoreSpec, SynthesizeSpec
from ssdenoise.device import Device
from ssdenoise.errors import ConfigError
from tests.conftest import ROOT, make_store, scene

VERBS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def ssdenoise(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ssdenoise", *arguments], capture_output=True, text=True)


def test_every_verb_has_help_that_does_not_import_torch() -> None:
    listed = ssdenoise("--help").stdout
    assert {"ingest", "synthesize", "calibrate", "train", "denoise", "score", "compare", "figures", "report"} < set(
        VERBS
    )
    assert all(verb in listed for verb in VERBS)
    for verb in VERBS:
        with pytest.raises(SystemExit) as done:
            app([verb, "--help"])
        assert done.value.code == 0
    code = "import sys; from ssdenoise.__main__ import app; app(['--help'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("verb", "spec"),
    [
        ("ingest", IngestSpec),
        ("synthesize", SynthesizeSpec),
        ("train", TrainSpec),
        ("score", ScoreSpec),
        ("probe", ProbeSpec),
        ("compare", CompareSpec),
        ("report", ReportSpec),
    ],
)
def test_the_options_that_help_names_are_all_that_is_needed(verb: str, spec: type[BaseModel]) -> None:
    (callback,) = [one.callback for one in app.registered_commands if one.callback and one.callback.__name__ == verb]
    told = get_type_hints(callback, include_extras=True)["spec"].__metadata__[0].help
    example, _ = json.JSONDecoder().raw_decode(told.partition("At least: ")[2])
    spec.model_validate(example)
    for key in example:
        with pytest.raises(ValidationError, match=key):
            spec.model_validate({k: v for k, v in example.items() if k != key})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "--spec", "{", "--output", "x"], "--spec is no JSON"),
        (["ingest", "--spec", "{}", "--output", "x"], "--spec: source: Field required"),
        (["ingest", "--spec", '{"sorce": "v"}', "--output", "x"], "sorce: unknown key; did you mean 'source'?"),
        (["init", "."], ". is not empty; a project starts in an empty folder or one that is not there yet"),
        (["inspect", "d/a.tif", "d/b.tif"], "found 2 files, d/a.tif to d/b.tif; inspect takes one, or a pattern"),
        (["plan", "--configfile", "missing.yaml"], "missing.yaml"),
        (["plan", "--rates", "r.json", "--device", "H100"], "no table of rates r.json; `plan --rates r.json` without"),
        (["calibrate", "--noisy", "nowhere.ome.zarr", "--output", "x"], "nowhere.ome.zarr is no finished store"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ssdenoise(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_the_same_name_is_not_taken_for_the_package(tmp_path: Path) -> None:
    (tmp_path / "ssdenoise").mkdir()
    (tmp_path / "ssdenoise" / "__init__.py").write_text("raise SystemExit('not this one')\n")
    script = tmp_path / "bin" / "ssdenoise"
    script.parent.mkdir()
    script.write_text("from ssdenoise.__main__ import main\nmain()\n")  # what pip writes
    environment = {k: v for k, v in os.environ.items() if k not in MALLOC} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, "fetch", "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Download a file" in done.stdout


@pytest.mark.parametrize(
    "option", ["--threads 0", "--workers 0", "--gpu -1", "--memory-mb 0", "--slab -1", "--slabs 0"]
)
def test_numbers_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("denoise", "plan") if "threads" in option or "gpu" in option else ("denoise",):
        with pytest.raises(SystemExit) as done:
            app([verb, *option.split()])
        assert done.value.code == 2
        assert f"Invalid value for '{option.split()[0]}'" in capsys.readouterr().err


def test_a_file_is_inspected_and_its_line_can_be_pasted(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(scene((40, 64, 80)) / 20).astype(np.uint16)
    np.save(tmp_path / "my scan.npy", counts)
    done = ssdenoise("inspect", str(tmp_path / "my scan.npy"))
    assert done.returncode == 0, done.stderr
    assert "shape       1x1x40x64x80 (TCZYX), 0.4096 MB" in done.stdout
    assert "{name: hqssl, likelihood: poisson_gaussian}" in done.stdout
    assert float(re.search("gain ([0-9.]+),", done.stdout)[1]) == pytest.approx(1, rel=0.1)  # type: ignore[index]
    (tmp_path / "sheet.tsv").write_text(done.stdout.partition("\n\n")[2])
    row = read_sheet(tmp_path / "sheet.tsv")[0]
    assert (row.dataset, row.noisy) == ("my-scan", str(tmp_path / "my scan.npy"))


def test_of_a_picture_without_noise_nothing_is_recommended(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.full((64, 64), 9, np.uint8))
    done = ssdenoise("inspect", str(tmp_path / "flat.npy"), "--axes", "YX")
    assert done.returncode == 0, done.stderr
    assert "all voxels are equal: there is no noise to measure" in done.stdout
    assert "  method " not in done.stdout
    assert "    noise " not in done.stdout


def test_stores_are_verified(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "v", scene((1, 1, 5, 40, 40)).astype(np.float32))
    done = ssdenoise("verify", str(volume.path / "zarr.json"), "--threads", "2")
    assert done.stdout == f"{volume.digest}  {volume.path}\n"
    shutil.rmtree(volume.path / "0" / "c")
    other = make_store(tmp_path, "w", scene((1, 1, 5, 40, 40)).astype(np.float32))
    done = ssdenoise("verify", "nowhere", str(volume.path), str(other.path))
    assert done.returncode == 1
    missing, damaged = [line for line in done.stderr.splitlines() if line.startswith("ssdenoise: ")]
    assert "nowhere is no finished store" in missing
    assert "does not hold the voxels that were committed: level 0 shard 0/0/0/0/0; " in damaged
    assert done.stdout == f"{other.digest}  {other.path}\n"
    assert ssdenoise("verify", "nowhere", str(other.path)).returncode == 2


def test_the_version_is_told() -> None:
    assert ssdenoise("--version").stdout == f"ssdenoise {version('ssdenoise')}\n"


def test_schema_is_json() -> None:
    assert json.loads(ssdenoise("schema").stdout)["title"] == "Config"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_granted_gpu_that_torch_cannot_see_is_an_error() -> None:
    with pytest.raises(ConfigError, match="grants 1 GPU"):
        Device.granted(gpu=1, threads=1)
