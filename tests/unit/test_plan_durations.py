"""How long planned jobs take, by the benchmarks of a run, and what becomes of them in a schedule."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdenoise.config.project import Project
from ssdenoise.errors import MissingInputError
from ssdenoise.methods import METHODS
from ssdenoise.needs import Need
from ssdenoise.plan.durations import PROCESS_SECONDS, Durations, Run, fitted
from ssdenoise.plan.estimate import Estimate, Takes
from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.plan.profile import Profile
from ssdenoise.plan.rates import Rates
from ssdenoise.plan.schedule import START_SECONDS, Simulated, clock, machine_of, schedule, simulated_jobs
from ssdenoise.plan.simulation import Job, Machine
from ssdenoise.store import Layout
from tests.conftest import CPU

N2V = METHODS["n2v"](steps=60)  # type: ignore[call-arg]
CLUSTER = Profile("slurm", 3, 200, math.inf, 40, 10, frozenset())
HERE = Profile("local", 1, math.inf, math.inf, 10, 0, frozenset())


def benchmark(file: Path, seconds: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:0{seconds:.0f}\t100.0\n")


def finished(run: Path, planes: dict[str, int]) -> None:
    """A run's benchmarks, stores' records and models: seconds are 2, and one more for each plane of 1000 pixels."""
    for dataset, number in planes.items():
        scene, layout = run / dataset / "measured", Layout.fit((1, 1, number, 10, 100), "uint16", (1, 8, 8), (1, 8, 8))
        store = scene / "noisy-0.ome.zarr" / "zarr.json"
        store.parent.mkdir(parents=True)
        store.write_text(json.dumps({"attributes": {"ssdenoise": {"layout": vars(layout)}}}))
        for name in ("noisy-0", "calibrate", "score", "figures"):
            benchmark(scene / "logs" / f"{name}.tsv", 2 + number)
        model = scene / "n2v" / "seed-0"
        benchmark(model / "logs" / "train.tsv", 30)
        spec = {"method": N2V.model_dump(mode="json")}
        description = {"ndim": 2, "channels": 1, "provenance": {"stage": "train", "spec": spec}}
        (model / "model.json").write_text(json.dumps(description))
        for slab in range(2):
            benchmark(model / "logs" / f"denoise-{slab}-of-2.tsv", 2 + number / 2)
        benchmark(model / "logs" / "score.tsv", 7)
        for table in (scene / "noisy-scores.parquet", model / "scores.parquet"):
            table.touch()
    (run / "scores.parquet").touch()
    benchmark(run / "logs" / "compare.tsv", 8)


def test_lines_go_through_what_was_measured() -> None:
    assert fitted([(0.0, 2.0), (10.0, 4.0), (20.0, 6.0)], 1.0) == pytest.approx((2, 0.2))
    # neither a negative start nor a negative slope
    assert fitted([(10.0, 1.0), (20.0, 4.0)], 1.0)[0] == 0
    assert fitted([(10.0, 4.0), (20.0, 2.0)], 1.0) == pytest.approx((3, 0))
    # of one size, the start is that of the run's shortest job
    assert fitted([(10.0, 3.0), (10.0, 5.0)], 1.0) == pytest.approx((1, 0.3))
    assert fitted([(0.0, 3.0)], 1.0) == (3, 0)


def test_a_run_tells_seconds_by_rule_method_and_size(tmp_path: Path) -> None:
    finished(tmp_path / "r", {"a": 4, "b": 12})
    run = Run(tmp_path / "r")
    for rule in ("ingest", "calibrate", "score_noisy", "figures"):
        assert run.seconds(rule, 20 * 2000) == pytest.approx(2 + 20)
    assert run.seconds("score", 20 * 2000) == pytest.approx(7)
    assert run.seconds("synthesize", 1) is None
    assert sorted(size for size, _ in run.points["compare"]) == [4]
    with pytest.raises(MissingInputError, match=r"has no benchmark, no `logs/\*.tsv`"):
        Run(tmp_path / "r" / "a" / "measured" / "n2v")


def estimate(tmp_path: Path, planes: int, **options: Any) -> Estimate:
    np.lib.format.open_memmap(tmp_path / "c.npy", "w+", np.uint16, (planes, 10, 100))
    (tmp_path / "datasets.tsv").write_text("dataset\tnoisy\tslabs\nc\tc.npy\t4\n")
    methods = {"mine": {"name": "n2v", "steps": 60} | options}
    return Estimate(Project({"run": "later", "datasets": "datasets.tsv", "methods": methods}, tmp_path), Rates(CPU))


JOBS = {
    "ingest_noisy": {"dataset": "c", "realization": "0"},
    "train": {"trained": "c", "noise": "measured", "entry": "mine", "seed": "0"},
    "denoise": {"dataset": "c", "noise": "measured", "entry": "mine", "seed": "0", "slab": "1", "slabs": "4"},
    "commit": {"dataset": "c", "noise": "measured", "entry": "mine", "seed": "0", "product": "denoised"},
    "compare": {},
}


def test_planned_jobs_take_as_long_as_those_of_a_run(tmp_path: Path) -> None:
    finished(tmp_path / "r", {"a": 4, "b": 12})
    durations = Durations(estimate(tmp_path, 100), str(tmp_path / "r"), networks=True)
    takes = Takes(hours=1.0, kind="cpu", asked=Need(100, 70))
    found = {rule: durations.of(PlannedJob(rule, names, 1, {}), takes) for rule, names in JOBS.items()}
    assert found["ingest_noisy"] == pytest.approx(2 + 100)
    assert found["train"] == pytest.approx(30)
    assert found["denoise"] == pytest.approx(2 + 25)
    assert found["commit"] == PROCESS_SECONDS + 3600  # no such job was there
    # two tables of scores instead of four; it started as the run's shortest job, within 4 s
    assert found["compare"] == pytest.approx(4 + (8 - 4) / 2)
    said = str(durations)
    assert "compare, denoise, ingest, train as in " in said
    assert "beware: jobs larger than any in that run: " not in said


def test_another_device_or_method_takes_its_rates_and_small_runs_are_told(tmp_path: Path) -> None:
    finished(tmp_path / "r", {"a": 4, "b": 12})
    takes, train = Takes(hours=1.0, kind="cpu"), PlannedJob("train", JOBS["train"], 1, {})
    for durations in (
        Durations(estimate(tmp_path, 1000), str(tmp_path / "r"), networks=False),
        Durations(estimate(tmp_path, 1000, radius=3), str(tmp_path / "r"), networks=True),
    ):
        assert durations.of(train, takes) == PROCESS_SECONDS + 3600
        durations.of(PlannedJob("ingest_noisy", JOBS["ingest_noisy"], 1, {}), takes)
        assert "train by the rates of cpu" in str(durations)
        assert "beware: jobs larger than any in that run: ingest 83.3 times" in str(durations)


def test_without_a_run_what_jobs_are_allowed_is_told_as_such(tmp_path: Path) -> None:
    durations = Durations(estimate(tmp_path, 10), None, networks=True)
    # ten minutes of what is allowed are for the start on a busy machine
    seconds = durations.of(PlannedJob("commit", JOBS["commit"], 1, {}), Takes(asked=Need(100, 12.5)))
    assert seconds == PROCESS_SECONDS + 150
    assert "commit by what jobs are allowed, which is no measurement (`--like RUN` takes" in str(durations)


def test_jobs_wait_for_those_that_write_what_they_read() -> None:
    planned = [
        PlannedJob("ingest_noisy", {}, 1, {}, ("a.tif",), ("noisy",)),
        PlannedJob("train", {}, 4, {"gpu": "1"}, ("noisy", "there.json"), ("model", "history")),
        PlannedJob("denoise", {}, 4, {"gpu": "1"}, ("noisy", "model", "history"), ("slab",)),
    ]
    assert simulated_jobs(planned, [1, 2, 3]) == [
        Job("ingest_noisy", 1),
        Job("train", 2, 1, 4, (0,)),
        Job("denoise", 3, 1, 4, (0, 1)),
    ]


def test_machines_are_those_of_the_profile() -> None:
    assert machine_of(CLUSTER, Simulated((1,))) == Machine(
        0, apart=True, submitted=200, start=START_SECONDS, looks=40, growth=10
    )
    assert machine_of(CLUSTER, Simulated((1,), cores=8, start_seconds=0)).start == 0
    assert machine_of(HERE, Simulated((1,), cores=3)) == Machine(0, 3)
    assert machine_of(replace(HERE, cores=1), Simulated((1,))) == Machine(0, 1)


def test_a_schedule_says_what_more_gpus_are_worth() -> None:
    slabs = [Job("denoise", 3600, 1, 1, (0,)) for _ in range(16)]
    jobs = [Job("train", 3600, 1), *slabs, Job("commit", 1800, after=tuple(range(1, 17)))]
    table, shares, path, bound = schedule(jobs, Machine(0, apart=True, submitted=8), Simulated((1, 4, 64)))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert rows == [
        ["1", "17.5 h", "97%", "", "0"],
        ["4", "5.5 h", "77%", "", "0"],
        ["64", "3.5 h", "8%", "", "0"],  # 8 at once
    ]
    assert shares.startswith(
        "There are as many cores as jobs ask for, and of their own to jobs with a GPU; each job st"
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in path.splitlines()[2:]]
    assert rows == [["train", "1", "60 min"], ["denoise", "1", "60 min"], ["commit", "1", "30 min"]]
    assert "No number of GPUs makes it shorter than 2.5 h, the chain" in bound
    assert "Jobs hold GPUs for 17 h together: beyond 7, more of them gain little." in bound
    assert "beware: `jobs: 8` of the profile submits fewer jobs than 64 GPUs could run" in bound
    *_, bound = schedule([Job("score", 60)], Machine(0, 2), Simulated((1,)))
    assert "No job asks for a GPU: their number changes nothing." in bound
    assert [clock(seconds) for seconds in (59, 100, 7200, 360000)] == ["59 s", "1.67 min", "2 h", "4.17 d"]
