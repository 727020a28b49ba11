"""The whole job through Snakemake: products, reruns, kills, reproducibility. All share one finished run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from yaozarrs import validate_zarr_store

from ssdenoise.store import Volume
from tests.workflow.conftest import Workflow, make

pytestmark = pytest.mark.workflow

#: Rules that run for each model.
OF_A_MODEL = ("train", "denoise", "commit", "score", "probe")
TABLES = ("compare", "figures", "figures_uncertain", "report", "all")


def test_every_product_is_there_and_valid(finished: Workflow) -> None:
    run = finished.folder / "results" / "tiny"
    table = pd.read_csv(run / "comparison.csv").set_index(["dataset", "method"])
    assert len(table) == 5 + 2 + 3
    for method in ("gaussian", "n2n", "n2v", "hqssl"):
        assert table.loc[("bench", method), "psnr"] > table.loc[("bench", "noisy"), "psnr"] + 2
    assert table.loc["archive"]["psnr"].isna().all()
    assert 0.5 < table.loc[("archive", "n2n"), "residual_ratio"] < 2
    choice = json.loads((run / "archive" / "measured" / "best" / "seed-0" / "choice.json").read_text())
    assert table.loc[("archive", "best"), "chosen"] == choice["chosen"]
    assert {one["entry"] for one in choice["candidates"]} == {"gaussian", "n2n"}
    chosen = Volume(run / "archive" / "measured" / "best" / "seed-0" / "denoised.ome.zarr")
    if choice["chosen"] == "n2n":
        assert chosen.digest == Volume(run / "archive" / "measured" / "n2n" / "seed-0" / "denoised.ome.zarr").digest
    store = run / "archive" / "measured" / "n2n" / "seed-0" / "denoised.ome.zarr"
    validate_zarr_store(str(store))
    assert Volume(store).array.dtype == np.uint16
    uncertainty = Volume(run / "bench" / "gaussian" / "hqssl" / "seed-0" / "uncertainty.ome.zarr")
    assert uncertainty.intensities()[0].minimum >= 0
    assert uncertainty.intensities()[0].maximum > 0
    for name in ("images.png", "profiles.pdf", "uncertainty.pdf", "training.pdf", "calibration.pdf"):
        assert (run / "bench" / "gaussian" / name).stat().st_size > 5000
    page = (run / "report.html").read_text()
    assert f"{table.loc[('bench', 'n2v'), 'psnr']:.2f}" in page
    assert "all 7 denoised volumes are scored" in page
    assert page.count('<div class="viewer"') == 3
    assert page.count("<img ") == 3 + 7 + 6 + 6  # of the run and of each scene; the uncertainty is that of `bench`
    assert "snakemake --profile workflow/profiles/default --configfile config.yaml" in page
    assert "no GPU granted" in (run / "bench" / "gaussian" / "n2v" / "seed-0" / "logs" / "train.log").read_text()


def test_a_second_run_has_nothing_to_do(finished: Workflow) -> None:
    done = finished.run()
    assert "Nothing to be done" in done.stderr + done.stdout


def told(workflow: Workflow, code: int) -> str:
    """What `status` says of a run, and that it ends with a code."""
    command = [sys.executable, "-m", "ssdenoise", "status", "tiny", "--configfile", "config.yaml"]
    done = subprocess.run(command, cwd=workflow.folder, env=workflow.environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_all_jobs_of_a_finished_run_are_done(finished: Workflow) -> None:
    sentence, table = told(finished, 0).split("\n\n")
    done, number = re.fullmatch(r"tiny: (\d+) of (\d+) jobs are done", sentence).groups()  # type: ignore[union-attr]
    assert done == number
    assert table.count("\n") == 2 + 12  # the head, and all stages but for `fetch`


def test_snakemake_s_report_is_one_offline_page(finished: Workflow, tmp_path: Path) -> None:
    finished.run("--report", str(tmp_path / "snakemake-report.html"))
    page = (tmp_path / "snakemake-report.html").read_text()
    assert "comparison.csv" in page
    assert page.count("images.png") >= 3
    assert "report.html" in page
    assert not [part for part in page.split("<script")[1:] if part.lstrip().startswith('src="http')]


@pytest.mark.slow
def test_a_run_that_fails_has_a_report_that_says_why_and_the_next_one_completes_it(copied: Workflow) -> None:
    report = copied.folder / "results" / "tiny" / "report.html"
    source, sheet = copied.folder / "lost.npy", copied.folder / "datasets.tsv"
    source.write_bytes(b"no array")
    sheet.write_text(sheet.read_text() + "lost\t\tlost.npy\t\t\tgaussian\t2\t1\n")
    done = copied.run(check=False)
    assert done.returncode == 1
    assert "what there is, and why the rest is not: results/tiny/report.html" in done.stderr
    page = report.read_text()
    assert '<section id="missing">' in page
    assert "lost.npy cannot be read as npy" in page
    assert "lost/measured, seed 0: gaussian" in page
    assert page.count('<div class="viewer"') == 3  # those of the datasets that are done
    found = told(copied, 1)
    assert " 1 failed, " in found
    assert (
        "lost.npy cannot be read as npy"
        in found.partition("failed: why, and the log\n  ingest lost/measured/noisy-0")[2]
    )
    np.save(source, np.random.default_rng(0).poisson(50, (3, 64, 64)).astype(np.uint16))
    copied.run()
    assert '<section id="missing">' not in report.read_text()
    assert report.read_text().count('<div class="viewer"') == 4


def test_another_noise_level_runs_its_own_cells_only(copied: Workflow) -> None:
    levels = {"gaussian": {"kind": "gaussian", "sigma": 60}, "more": {"kind": "gaussian", "sigma": 90}}
    copied.configure(noise=levels)
    plan = copied.run("--dry-run").stdout
    told = [line for line in plan.splitlines() if line.strip().startswith("wildcards:") and "noise=" in line]
    assert told
    assert all("noise=more" in line for line in told)
    assert {"compare", "report", "figures_uncertain", "train"} <= set(copied.planned())


def test_another_dataset_runs_its_own_jobs_only(copied: Workflow) -> None:
    sheet = copied.folder / "datasets.tsv"
    header, *rows = sheet.read_text().splitlines()
    first = dict(zip(header.split("\t"), rows[0].split("\t"), strict=True))
    sheet.write_text("\n".join([header, *rows, "\t".join((first | {"dataset": "more"}).values())]) + "\n")
    plan = copied.run("--dry-run").stdout
    told = [line for line in plan.splitlines() if line.strip().startswith("wildcards:")]
    assert told
    assert all("=more" in line for line in told)
    assert {"compare", "report", "train"} <= set(copied.planned())


def test_a_dataset_that_is_taken_away_leaves_the_others_as_they_are(copied: Workflow) -> None:
    sheet = copied.folder / "datasets.tsv"
    sheet.write_text("\n".join(sheet.read_text().splitlines()[:-1]) + "\n")
    assert set(copied.planned()) <= {*TABLES, "all"}


def test_an_option_of_one_method_reruns_that_method_only(copied: Workflow) -> None:
    methods = yaml.safe_load((copied.folder / "config.yaml").read_text())["methods"]
    methods["n2v"]["radius"] = 2
    copied.configure(methods=methods)
    assert rerun(copied) == {rule: {"n2v"} for rule in OF_A_MODEL}


def rerun(workflow: Workflow) -> dict[str, set[str]]:
    """Rules, without the tables, and the method entries that they would rerun for."""
    return {rule: entries for rule, entries in workflow.planned().items() if rule not in TABLES}


def test_an_edit_of_one_method_reruns_that_method_only(copied: Workflow) -> None:
    path = copied.folder / "ssdenoise" / "methods" / "n2v.py"
    path.write_text(path.read_text().replace(".square().mean()", ".abs().mean()"))
    assert rerun(copied) == {rule: {"n2v"} for rule in OF_A_MODEL}


def test_an_edit_of_a_docstring_reruns_nothing(copied: Workflow) -> None:
    path = copied.folder / "ssdenoise" / "methods" / "n2v.py"
    path.write_text(path.read_text().replace('"""Noise2Void (Krull', '"""Noise-2-Void (Krull'))
    assert "Nothing to be done" in copied.run("--dry-run").stdout


def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "Snakemake ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_job(workflow: Workflow, verb: str, condition: object, *arguments: str) -> None:
    """Start a run, and kill -9 the job of a verb once a condition holds."""
    process = subprocess.Popen(
        workflow.command(*arguments),
        cwd=workflow.folder,
        env=workflow.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(condition, process)
        jobs = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and is_job(entry, str(workflow.folder), verb)
        ]
        assert jobs, "no job to kill"
        for job in jobs:
            os.kill(job, signal.SIGKILL)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()


def is_job(entry: Path, folder: str, verb: str) -> bool:
    try:
        command = (entry / "cmdline").read_bytes().split(b"\0")
        return b"ssdenoise" in command and verb.encode() in command and os.readlink(entry / "cwd") == folder
    except OSError:
        return False


@pytest.mark.slow
def test_another_folder_and_a_killed_train_job_give_the_same_digests_and_scores(
    finished: Workflow, tmp_path: Path
) -> None:
    other = make(tmp_path / "other")
    entries = ["bench/gaussian/n2n/seed-0", "bench/gaussian/hqssl/seed-0", "archive/measured/n2n/seed-0"]
    targets = [f"results/tiny/{entry}/scores.parquet" for entry in entries]
    folder = other.folder / "results" / "tiny" / entries[0]
    kill_job(other, "train", (folder / "checkpoint.safetensors").exists, targets[0])
    assert not (folder / "model.safetensors").exists()
    assert f"  train {entries[0]}/model.json: killed: process " in told(other, 1)
    other.run(*targets)
    assert "resuming at step" in (folder / "logs" / "train.log").read_text()
    assert {f"{entry}/denoised.ome.zarr/zarr.json" for entry in entries} < other.digests().keys()
    assert other.digests().items() < finished.digests().items()
    costs = ["train_seconds", "denoise_seconds", "megavoxels_per_second", "peak_memory_mb"]
    for target in targets:
        tables = [pd.read_parquet(w.folder / target) for w in (finished, other)]
        pd.testing.assert_frame_equal(*(table.drop(columns=costs) for table in tables))


@pytest.mark.slow
def test_a_killed_denoise_job_keeps_its_shards_and_ends_with_the_same_bits(copied: Workflow) -> None:
    """Tiles of single shards, each slowed down on purpose, so that the kill falls between two of them."""
    stage, crew = (copied.folder / "ssdenoise" / "denoise" / name for name in ("__init__.py", "crew.py"))
    stage.write_text(stage.read_text().replace("TILE_VOXELS = 2**24", "TILE_VOXELS = 1"))
    text = crew.read_text().replace("IN_FLIGHT = 3", "IN_FLIGHT = 1")
    crew.write_text(
        text.replace(
            "        clock = Clock()\n",
            "        clock = Clock()\n        __import__('time').sleep(0.5)\n",
        )
    )
    name = "bench/gaussian/hqssl/seed-0"
    folder = copied.folder / "results" / "tiny" / name
    target = f"results/tiny/{name}/denoised.ome.zarr/zarr.json"
    records = folder / "denoised.ome.zarr.shards" / "0"
    others = sorted(set(copied.planned()["denoise"]))
    assert "hqssl" in others
    copied.run(target)
    expected = copied.digests()[f"{name}/denoised.ome.zarr/zarr.json"]
    for store in ("denoised", "uncertainty"):
        shutil.rmtree(folder / f"{store}.ome.zarr")
        shutil.rmtree(folder / f"{store}.ome.zarr.shards")
    shutil.rmtree(folder / "slabs")
    kill_job(copied, "denoise", lambda: len(list(records.glob("[0-9]*.json"))) >= 2, target)
    assert not (folder / "denoised.ome.zarr" / "zarr.json").exists()
    copied.run(target)
    logs = "".join(log.read_text() for log in (folder / "logs").glob("denoise*.log"))
    kept = [int(n) for n in re.findall(r"(\d+) shards kept", logs)]
    assert max(kept) >= 1, logs
    assert copied.digests()[f"{name}/denoised.ome.zarr/zarr.json"] == expected
