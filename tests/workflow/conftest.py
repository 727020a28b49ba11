"""A tiny project in a folder of its own, and a way to run Snakemake on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT, scene


@dataclass
class Workflow:
    """A project folder with the workflow's files."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        profile = str(self.folder / "workflow" / "profiles" / "default")
        # an option with one value comes last, or targets would be taken for more threads
        threads = ["--set-threads", "train=1", "denoise=1", "--cores", "2"]
        options = ["--configfile", "config.yaml", "--profile", profile, *threads]
        return [sys.executable, "-m", "snakemake", *options, *arguments]

    def environment(self) -> dict[str, str]:
        # the copy of the package in the folder comes first, so that tests can edit it
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return os.environ | {"PYTHONPATH": str(self.folder), "PATH": path}

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def planned(self) -> dict[str, set[str]]:
        """Rules that a dry run would run, and the method entries that each runs for."""
        jobs: dict[str, set[str]] = {}
        rule = ""
        for line in self.run("--dry-run").stdout.splitlines():
            if line.startswith(("rule ", "localrule ")):
                rule = line.split()[1].rstrip(":")
                jobs.setdefault(rule, set())
            if line.strip().startswith("wildcards:"):
                values = dict(part.strip().split("=", 1) for part in line.split(":", 1)[1].split(","))
                jobs[rule].add(values.get("entry", ""))
        return jobs

    def configure(self, **changes: Any) -> None:
        value = yaml.safe_load((self.folder / "config.yaml").read_text())
        (self.folder / "config.yaml").write_text(yaml.safe_dump(value | changes, sort_keys=False))

    def digests(self, run: str = "tiny") -> dict[str, Any]:
        """Digest of every store of a run."""
        root = self.folder / "results" / run
        return {
            str(path.relative_to(root)): json.loads(path.read_text())["attributes"]["ssdenoise"]["digest"]
            for path in sorted(root.rglob("*.ome.zarr/zarr.json"))
        }


def make(folder: Path) -> Workflow:
    """Copy the workflow and write the tiny data."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "ssdenoise"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    shutil.copy(ROOT / "tests" / "config" / "tiny.yaml", folder / "config.yaml")
    shutil.copy(ROOT / "tests" / "config" / "tiny.tsv", folder / "datasets.tsv")
    rng = np.random.default_rng(0)
    clean = scene((6, 96, 80))
    np.save(folder / "clean.npy", clean.astype(np.uint16))
    np.save(folder / "counts.npy", rng.poisson(clean / 20).astype(np.uint16))
    np.save(
        folder / "repeats.npy", rng.poisson(scene((1, 1, 90, 70))[0] / 20, (5, 1, 90, 70)).astype(np.uint16)[:, None]
    )
    return Workflow(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tiny project, run to its end once; tests that change it work on a copy."""
    workflow = make(tmp_path_factory.mktemp("workflow") / "finished")
    workflow.run()
    return workflow


@pytest.fixture
def copied(finished: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished project, with its times."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Workflow(tmp_path / "copy")
