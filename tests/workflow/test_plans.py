"""What Snakemake plans, and how it refuses: tests that need no finished run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.config.read import read_project
from ssdenoise.device import Device
from ssdenoise.methods import METHODS
from ssdenoise.plan.estimate import Estimate
from ssdenoise.plan.jobs import parsed
from ssdenoise.plan.rates import Rate, Rates
from ssdenoise.provenance import canonical, digest
from ssdenoise.status.jobs import STAGES, jobs
from ssdenoise.store import Layout
from tests.workflow.conftest import make

pytestmark = pytest.mark.workflow


def test_training_on_clean_targets_waits_for_the_clean_volume(tmp_path: Path) -> None:
    workflow = make(tmp_path / "clean")
    workflow.configure(methods={"n2c": {"name": "n2c"}})
    (workflow.folder / "datasets.tsv").write_text("dataset\tclean\nbench\tclean.npy\n")
    model = "results/tiny/bench/gaussian/n2c/seed-0/model.json"
    plan = workflow.run("--dry-run", "--printshellcmds", model).stdout
    assert "--target results/tiny/bench/clean.ome.zarr/zarr.json" in plan


def test_another_dataset_s_models_are_not_trained_again(tmp_path: Path) -> None:
    workflow = make(tmp_path / "other")
    workflow.configure(methods={"n2n": {"name": "n2n", "both_directions": True}})
    sheet = "dataset\tclean\tmodel\nbench\tclean.npy\t\nother\tclean.npy\tbench\n"
    (workflow.folder / "datasets.tsv").write_text(sheet)
    plan = workflow.run("--dry-run", "--printshellcmds").stdout
    assert plan.count("ssdenoise train ") == 1
    command = next(line for line in plan.splitlines() if "ssdenoise denoise" in line and "other" in line)
    assert "--model results/tiny/bench/gaussian/n2n/seed-0" in command
    assert "--output results/tiny/other/gaussian/n2n/seed-0" in command
    assert "--pair results/tiny/other/gaussian/noisy-1.ome.zarr/zarr.json" in command


def test_a_group_trains_once_on_all_its_datasets(tmp_path: Path) -> None:
    workflow = make(tmp_path / "group")
    workflow.configure(methods={"n2n": {"name": "n2n"}})
    (workflow.folder / "datasets.tsv").write_text("dataset\tclean\tgroup\na\tclean.npy\tg\nb\tclean.npy\tg\n")
    plan = workflow.run("--dry-run", "--printshellcmds").stdout
    (command,) = [line for line in plan.splitlines() if "ssdenoise train " in line]
    for name in "ab":
        scene = f"results/tiny/{name}/gaussian"
        assert f"--noisy {scene}/noisy-0.ome.zarr/zarr.json" in command
        assert f"--target {scene}/noisy-1.ome.zarr/zarr.json" in command
        assert f"--calibration {scene}/calibration.json" in command
        assert f"--model results/tiny/g/gaussian/n2n/seed-0 --output {scene}/n2n/seed-0" in plan


@pytest.mark.parametrize(
    ("granted", "gpus"), [("gpu=1", 1), ("gres=gpu:A100_80:2", 2), ("gres=gpu", 1), ("mem_mb=9000", 0)]
)
def test_a_gpu_is_used_however_a_cluster_hands_it_out(granted: str, gpus: int, tmp_path: Path) -> None:
    workflow = make(tmp_path / "gpu")
    model = "results/tiny/archive/measured/n2n/seed-0/model.json"
    plan = workflow.run(model, "--dry-run", "--printshellcmds", "--set-resources", f"train:{granted}").stdout
    assert f"--gpu {gpus} --threads" in plan


@pytest.mark.slow
def test_a_plan_counts_the_jobs_that_snakemake_counts(tmp_path: Path) -> None:
    workflow = make(tmp_path / "plan")
    (workflow.folder / "data").mkdir()
    for file in workflow.folder.glob("*.npy"):
        file.rename(workflow.folder / "data" / file.name)
    with (workflow.folder / "workflow" / "profiles" / "default" / "config.yaml").open("a") as profile:
        profile.write("quiet: rules\n")
    data = ["--config", "data=data"]
    command = [sys.executable, "-m", "ssdenoise", "plan", *data, "--configfile", "config.yaml"]
    plan = subprocess.run(command, cwd=workflow.folder, env=workflow.environment(), capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    table = [[cell.strip() for cell in line.split("|")[1:3]] for line in plan.stdout.splitlines() if "|" in line]
    counted = {rule: int(jobs) for rule, jobs in table if jobs.isdigit()}
    lines = [line.split() for line in workflow.run("--dry-run", *data).stdout.splitlines()]
    stats = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
    assert counted == {rule: jobs for rule, jobs in stats.items() if rule not in ("all", "total", "jobid:")}
    assert f"{stats['total'] - 1} jobs; training and inference: " in plan.stdout
    assert "1x1x6x96x80" in plan.stdout
    assert "does not fit" not in plan.stdout
    wrong = subprocess.run([*command[:-1], "no.yaml"], cwd=workflow.folder, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == "ssdenoise: no file no.yaml; name the configuration with --configfile\n"


def test_a_plan_knows_beforehand_what_the_rules_will_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = make(tmp_path / "asked")
    shapes = {"bench": (1, 1, 50, 512, 1024), "repeats": (1, 1, 1, 4096, 4096), "archive": (1, 1, 30, 1024, 1024)}
    for name, shape in (
        ("clean", shapes["bench"]),
        ("counts", shapes["archive"]),
        ("repeats", (5, *shapes["repeats"][1:])),
    ):
        np.lib.format.open_memmap(workflow.folder / f"{name}.npy", "w+", np.uint16, shape)  # which takes no room
    monkeypatch.setattr("ssdenoise.plan.rates.measured", lambda *a: Rate("cpu", 1.0, 1e6))
    project = read_project(workflow.folder / "config.yaml", (), workflow.folder)
    estimate = Estimate(project, Rates(Device.granted(0, 1)))
    before = parsed(workflow.run("--dry-run").stdout)
    asked = {(job.rule, str(job.wildcards)): estimate.of(job).asked for job in before}
    known = {(job.rule, str(job.wildcards)) for job in before if job.resources["mem_mb"] != "<TBD>"}
    # what the rules read when the volumes are there
    for path in {path for job in before for path in job.outputs if path.endswith(".ome.zarr/zarr.json")}:
        dataset, store = path.split("/")[2], path.split("/")[-2]
        # noise is synthesized in float32; the reference is a mean
        same = store in ("clean.ome.zarr", "noisy-0.ome.zarr", "denoised.ome.zarr") and dataset != "bench"
        dtype = "uint16" if same or store == "clean.ome.zarr" else "float32"
        layout = vars(Layout.fit(shapes.get(dataset, (1,) * 5), dtype, (2, 32, 32), (4, 64, 64)))
        (workflow.folder / path).parent.mkdir(parents=True)
        (workflow.folder / path).write_text(json.dumps({"attributes": {"ssdenoise": {"layout": layout}}}))
    after = parsed(workflow.run("--dry-run", "--forceall").stdout)
    for job in after:
        name = (job.rule, str(job.wildcards))
        if name not in known:
            need = asked[name]
            assert need is not None, name
            found = (math.ceil(need.memory_mb), math.ceil(need.minutes))
            assert found == (job.granted("mem_mb"), job.granted("runtime")), name
    assert {job.rule for job in after} >= {"train", "denoise", "probe", "score", "commit", "figures_uncertain"}


def test_a_run_of_terabytes_is_simulated_from_the_heads_of_its_files(tmp_path: Path) -> None:
    workflow = make(tmp_path / "large")
    np.lib.format.open_memmap(workflow.folder / "v.npy", "w+", np.uint16, (3052, 8192, 8192))  # which takes no room
    for name in "abc":
        (workflow.folder / f"{name}.npy").hardlink_to(workflow.folder / "v.npy")
    rows = [f"{name}\t{name}.npy\tZYX\t8\n" for name in "abc"]
    (workflow.folder / "datasets.tsv").write_text("".join(["dataset\tnoisy\taxes\tslabs\n", *rows]))
    workflow.configure(methods={"n2v": {"name": "n2v"}}, storage={})
    profile = workflow.folder / "workflow" / "profiles" / "slurm" / "config.yaml"
    profile.write_text(profile.read_text().replace("jobs: 200", "jobs: 8"))
    rate = {"kind": "cuda", "step_seconds": 0.01, "voxels_per_second": 1e7}
    key = digest(canonical([METHODS["n2v"]().model_dump(mode="json"), 2, 1]))  # type: ignore[call-arg]
    (workflow.folder / "rates.json").write_text(json.dumps({"some GPU": {key: rate}}))
    command = [sys.executable, "-m", "ssdenoise", "plan", "--configfile", "config.yaml"]
    command += ["--profile", "workflow/profiles/slurm", "--rates", "rates.json", "--device", "some"]
    command += ["--simulate", "1,4,16", "--failing", "0.04"]
    environment = workflow.environment()
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho no cluster >&2\nexit 1\n")
    (tmp_path / "sinfo").chmod(0o755)
    plan = subprocess.run(command, cwd=workflow.folder, env=environment, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in plan.stdout.splitlines() if "|" in line]
    rows_of = {row[0]: row for row in reversed(table)}  # of rules, not of the critical path
    assert rows_of["together"][3] == "1.23 TB"
    # 614 Gvoxel at 10 Mvoxel/s, and halos
    assert 17 < float(rows_of["denoise"][2].removesuffix(" h")) < 20
    assert [float(rows_of[gpus][4]) for gpus in ("1", "4", "16")] == [2, 2, 2]  # 4 % of 50 jobs
    hours = [float(rows_of[gpus][1].removesuffix(" d")) * 24 for gpus in ("1", "4", "16")]
    assert hours[0] > hours[1] >= hours[2]
    assert (
        "not checked: whether the cluster's partitions can run these jobs, as `sinfo` says: no cluster" in plan.stdout
    )
    assert "train by the rates of some GPU; " in plan.stdout
    assert "by what jobs are allowed, which is no measurement" in plan.stdout
    assert "beware: `jobs: 8` of the profile submits fewer jobs than 16 GPUs could run" in plan.stdout
    alone = subprocess.run([*command[:-4], "--cores", "3"], cwd=workflow.folder, capture_output=True, text=True)
    assert alone.returncode == 2
    assert alone.stderr.endswith("--failing are of a simulation; add --simulate N_GPUS\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "config: colour: unknown key"),
        ({"datasets": "nowhere.tsv"}, "no sheet"),
        ({"methods": {"n2v": {"name": "n2v", "radius": 0}}}, "radius"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_code_2(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    workflow = make(tmp_path / "wrong")
    workflow.configure(**change)
    done = workflow.run("--dry-run", check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "ssdenoise:" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not (workflow.folder / "results").exists()


def test_a_url_is_no_file_to_wait_for_and_its_server_is_named(tmp_path: Path) -> None:
    workflow = make(tmp_path / "remote")
    url = "http://127.0.0.1:1/a.npy"
    (workflow.folder / "datasets.tsv").write_text(f"dataset\tclean\nbench\t{url}\n")
    target = "results/tiny/bench/clean.ome.zarr/zarr.json"
    assert workflow.run(target, check=False).returncode != 0
    log = (workflow.folder / "results" / "tiny" / "bench" / "logs" / "clean.log").read_text()
    assert [line for line in log.splitlines() if line.startswith(f"ssdenoise: {url} cannot be reached")]


def test_a_wrong_file_is_one_line_in_the_log_and_leaves_no_product(tmp_path: Path) -> None:
    workflow = make(tmp_path / "wrong")
    (workflow.folder / "clean.npy").write_bytes((workflow.folder / "clean.npy").read_bytes()[:1000])
    target = "results/tiny/bench/clean.ome.zarr/zarr.json"
    assert workflow.run(target, check=False).returncode != 0
    log = (workflow.folder / "results" / "tiny" / "bench" / "logs" / "clean.log").read_text()
    assert [line for line in log.splitlines() if line.startswith("ssdenoise:") and "cannot be read as npy" in line]
    assert not (workflow.folder / target).exists()


SHEET = """\
dataset\tclean\tnoisy\treference\tpair\tgroup\tmodel\ttrain_only\tndim\tslabs\tmethods
bench\tclean.npy\t\t\t\t\t\t\t2\t2\tgaussian,n2n,both,hqssl,best
other\tclean.npy\t\t\t\t\tbench\t\t2\t1\tn2n,both
scanned\t\tcounts.npy\tcounts.npy\tthinning\t\t\t\t3\t3\tn2n,best
twice\t\tcounts.npy\t\tcounts.npy\t\t\t\t2\t1\tboth,gaussian
fetched\t\tresults/downloads/f.npy#z=0:2\t\t\t\t\t\t2\t1\tgaussian
grouped\t\tcounts.npy\t\tthinning\tg\t\t\t2\t1\tn2n
partner\t\tcounts.npy\tcounts.npy\tthinning\tg\t\ttrue\t2\t1\tn2n
"""


def test_status_knows_the_jobs_that_snakemake_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = make(tmp_path / "status")
    methods = {name: {"name": name} for name in ("gaussian", "n2n", "n2v", "hqssl")}
    methods |= {
        "both": {"name": "n2n", "both_directions": True},
        "best": {"name": "auto", "among": ["gaussian", "n2v"]},
    }
    wheel = {"requirement": "wheel==1.0", "sha256": "0" * 64, "members": ["data/f.npy", "data/unused.npy"]}
    workflow.configure(methods=methods, seeds=[0, 1], downloads={"wheel": wheel})
    (workflow.folder / "datasets.tsv").write_text(SHEET)
    lines = [line.strip().partition(": ") for line in workflow.run("--dry-run").stdout.splitlines()]
    logs = [value for key, _, value in lines if key == "log"]
    outputs = {path for key, _, value in lines if key == "output" for path in value.split(", ")}
    monkeypatch.chdir(workflow.folder)
    found = jobs(read_project(Path("config.yaml"), (), workflow.folder))
    assert sorted(job.log for job in found) == sorted(logs)
    assert {job.product for job in found} <= outputs
    assert {job.stage for job in found} == set(STAGES)
