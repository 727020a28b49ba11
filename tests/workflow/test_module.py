"""The rules as a Snakemake module: of a project that `init` made, and of another workflow's Snakefile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ssdenoise.init import init
from tests.conftest import ROOT, scene
from tests.unit.test_init import host

pytestmark = pytest.mark.workflow

AROUND = f"""
configfile: "config/config.yaml"


rule all:
    input:
        "summary.txt",


module ssdenoise:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config["denoising"]


use rule * from ssdenoise as ssdenoise_*


use rule train from ssdenoise as ssdenoise_train with:
    threads: 2


rule summary:
    input:
        rules.ssdenoise_all.input,
    output:
        "summary.txt",
    shell:
        "wc -l {{input[0]}} > {{output}}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of `init` for photon counts, with a filter and small shards."""
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).poisson(scene((6, 96, 80)) / 20).astype(np.uint16))
    folder = tmp_path / "study"
    init(folder, [str(tmp_path / "counts.npy")], axes="ZYX")
    config = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    changes = {"methods": {"gaussian": {"name": "gaussian"}}, "storage": {"chunk": [2, 32, 32], "shard": [4, 64, 64]}}
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config | changes))
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
    )


def planned(folder: Path, snakefile: str = "Snakefile") -> dict[str, int]:
    """Jobs of a dry run, by their rules."""
    done = snakemake(folder, "--snakefile", snakefile, "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


def test_another_snakefile_uses_the_rules_beside_its_own(project: Path) -> None:
    alone = planned(project)
    assert planned(project, f"{ROOT}/workflow/Snakefile") == alone  # where the workflow catalogue looks
    config = yaml.safe_load((project / "config" / "config.yaml").read_text())
    (project / "config" / "config.yaml").write_text(yaml.safe_dump({"denoising": config, "other": "its own"}))
    (project / "Snakefile").write_text(AROUND)
    around = planned(project)
    total = alone.pop("total")
    assert alone.pop("all") == 1
    assert {"ingest_noisy", "calibrate", "train", "denoise", "commit", "compare", "figures", "report"} < set(alone)
    expected = {f"ssdenoise_{rule}": jobs for rule, jobs in alone.items()}
    # its first rule stays what is made by default
    assert around == expected | {"all": 1, "summary": 1, "total": total + 1}


@pytest.mark.slow
def test_a_project_from_an_empty_folder_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ["--profile", "workflow/profiles/default"]
    done = snakemake(project, *profile)
    assert done.returncode == 0, done.stdout + done.stderr
    run = project / "results" / "study"
    assert (run / "counts" / "measured" / "gaussian" / "seed-0" / "denoised.ome.zarr" / "zarr.json").is_file()
    page = (run / "report.html").read_text()
    assert "snakemake --profile workflow/profiles/default --configfile config/config.yaml" in page
    assert "Nothing to be done" in snakemake(project, *profile).stderr
    # nor is there with the same rules out of a repository
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.parent / "cache"))
    address = host(project.parent / "repository", monkeypatch)
    init(project.parent / "pinned", workflow=f"{address}@v1")
    (project.parent / "pinned" / "Snakefile").replace(project / "Snakefile")
    assert "Nothing to be done" in snakemake(project, *profile).stderr
    # a run that fails has its report, too
    with (project / "config" / "datasets.tsv").open("a") as sheet:
        sheet.write(f"broken\t{project / 'broken.npy'}\tZYX\n")
    (project / "broken.npy").write_bytes(b"no array")
    done = snakemake(project, *profile, "--keep-going")
    assert done.returncode == 1
    assert "what there is, and why the rest is not: results/study/report.html" in done.stderr
    assert "broken.npy" in (run / "report.html").read_text()
