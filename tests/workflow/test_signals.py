"""Signals at any moment, to Snakemake and to its jobs: nothing goes on or is half written, and a rerun ends the same.

`SIGNALS` in the environment says how many moments are tried.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors import safe_open

from ssdenoise.verify import verify
from tests.workflow.conftest import Workflow, make

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SIGNALS = int(os.environ.get("SIGNALS", "6"))

#: Signals, in turn, and whom they are sent to: Snakemake; one of its jobs; all its processes, as a keyboard does.
SENT = list(product((signal.SIGTERM, signal.SIGINT), ("snakemake", "job", "all")))

#: A benchmark and an archive of two slabs, which begin most of the stages.
SHEET = """\
dataset\tclean\tnoisy\tpair\tmethods\tndim\tslabs
bench\tclean.npy\t\t\tgaussian,n2n\t2\t1
archive\t\tcounts.npy\tthinning\tn2n\t3\t2
"""

#: Seconds that a process has to be gone after Snakemake.
SOON = 5.0


def project(folder: Path) -> Workflow:
    workflow = make(folder)
    (folder / "datasets.tsv").write_text(SHEET)
    methods = yaml.safe_load((folder / "config.yaml").read_text())["methods"]
    workflow.configure(methods={name: methods[name] for name in ("gaussian", "n2n")})
    return workflow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workflow, float]:
    """The project after an uninterrupted run, and the seconds that it took."""
    workflow = project(tmp_path_factory.mktemp("signals") / "whole")
    start = time.monotonic()
    workflow.run()
    return workflow, time.monotonic() - start


def start(workflow: Workflow) -> subprocess.Popen[bytes]:
    # what is started in the background is told to ignore the keyboard's signal, and the tests may have been
    return subprocess.Popen(
        ["env", "--default-signal=INT", *workflow.command()],
        cwd=workflow.folder,
        env=workflow.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def processes(workflow: Workflow) -> dict[int, list[bytes]]:
    """Command of each process that was started for a project: those that have its folder in their environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"PYTHONPATH={workflow.folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another's
            continue
    return found


def jobs(workflow: Workflow) -> list[int]:
    """Processes that run a stage."""
    return sorted(pid for pid, command in processes(workflow).items() if b"ssdenoise" in command)


def interrupt(workflow: Workflow, number: signal.Signals, to: str, seconds: float, rng: np.random.Generator) -> bool:
    """Start Snakemake and send a signal after some seconds, if it has not ended by then; whether it was sent."""
    process = start(workflow)
    moment = time.monotonic() + seconds
    try:
        while process.poll() is None:
            if time.monotonic() > moment:
                running = {"snakemake": [process.pid], "job": jobs(workflow), "all": [-process.pid]}[to]
                with suppress(ProcessLookupError):  # it has just ended
                    if running:
                        os.kill(int(rng.choice(running)), number)
                        process.wait(timeout=120)
                        return True
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.returncode == 0
    return False


def assert_nothing_runs(workflow: Workflow) -> None:
    deadline = time.monotonic() + SOON
    while left := processes(workflow):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def _weights(path: Path) -> None:
    with safe_open(path, framework="numpy") as weights:
        assert weights.keys()


def _picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


READ: dict[str, Callable[[Path], object]] = {
    ".html": _page,
    ".png": _picture,
    ".json": lambda path: json.loads(path.read_text()),
    ".parquet": pd.read_parquet,
    ".csv": pd.read_csv,
    ".safetensors": _weights,
}


def assert_nothing_is_half_written(workflow: Workflow) -> None:
    """Every store with a commit record is what was committed, and every other product can be read to its end."""
    for path in sorted((workflow.folder / "results").rglob("[!.]*")):
        if path.match("*.ome.zarr/zarr.json"):
            verify(path.parent)
        elif path.suffix in READ and path.is_file():
            READ[path.suffix](path)


def unlock(workflow: Workflow) -> None:
    """What a user does where Snakemake was ended before it could take its locks away."""
    if any((workflow.folder / ".snakemake" / "locks").glob("*")):
        workflow.run("--unlock")


def test_a_signal_at_any_moment_leaves_nothing_behind_and_the_same_bits(
    whole: tuple[Workflow, float], tmp_path: Path
) -> None:
    """Each run goes on where the one before was interrupted, and one that comes to its end is begun anew."""
    expected, seconds = whole[0].digests(), whole[1]
    workflow, rng = project(tmp_path / "interrupted"), np.random.default_rng(0)
    sent = 0
    while sent < SIGNALS:
        number, to = SENT[sent % len(SENT)]
        if interrupt(workflow, number, to, rng.uniform(0, seconds / 2), rng):
            sent += 1
            assert_nothing_runs(workflow)
            assert_nothing_is_half_written(workflow)
            unlock(workflow)
        else:
            assert workflow.digests() == expected
            shutil.rmtree(workflow.folder / "results")
    workflow.run()
    assert workflow.digests() == expected
