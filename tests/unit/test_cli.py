"""The command line: a verb per stage, one line for a mistake, no heavy import for help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssdenoise.__main__ import app
from ssdenoise.device import Device
from ssdenoise.errors import ConfigError

VERBS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def ssdenoise(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ssdenoise", *arguments], capture_output=True, text=True)


def test_every_verb_has_help_that_does_not_import_torch() -> None:
    listed = ssdenoise("--help").stdout
    assert {"ingest", "synthesize", "calibrate", "train", "denoise", "score", "compare", "report"} < set(VERBS)
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
    ("arguments", "message"),
    [
        (["ingest", "--spec", "{", "--output", "x"], "--spec is no JSON"),
        (["ingest", "--spec", "{}", "--output", "x"], "--spec: name: Field required"),
        (["calibrate", "--noisy", "nowhere.ome.zarr", "--output", "x"], "nowhere.ome.zarr is no finished store"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ssdenoise(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_schema_is_json() -> None:
    assert json.loads(ssdenoise("schema").stdout)["title"] == "Config"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_granted_gpu_that_torch_cannot_see_is_an_error() -> None:
    with pytest.raises(ConfigError, match="grants 1 GPU"):
        Device.granted(gpu=1, threads=1)
