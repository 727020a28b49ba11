"""Plans: Snakemake's dry run read back, rates measured or taken from a table, and what does not fit."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.config.project import Project
from ssdenoise.device import Device
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.methods import METHODS
from ssdenoise.plan import _misfits, _other_device
from ssdenoise.plan.estimate import Estimate, Takes
from ssdenoise.plan.jobs import PlannedJob, dry_run, parsed
from ssdenoise.plan.rates import Rate, Rates
from ssdenoise.plan.volumes import noisy_layout, volumes
from tests.conftest import CPU

TEXT = """\
Building DAG of jobs...
Job stats:
job             count
total              43

[Fri Nov 27 02:15:47 2026]
rule train:
    input: results/tiny/a/measured/noisy-0.ome.zarr/zarr.json, results/tiny/a/measured/calibration.json
    output: results/tiny/a/measured/n2v/seed-0/model.safetensors
    jobid: 4
    reason: Missing output files: x; Input files updated by another job: y
    wildcards: trained=a, noise=measured, entry=n2v, seed=0
    threads: 8
    resources: tmpdir=<TBD>, gpu=1, mem_mb=4000, mem=4 GB, runtime=240
[Fri Nov 27 02:15:47 2026]
localrule compare:
    input: results/tiny/a/scores.parquet
    jobid: 5
    resources: tmpdir=/tmp, runtime=30, mem_mb=1000
[Fri Nov 27 02:15:47 2026]
rule all:
    input: results/tiny/comparison.csv
    jobid: 0

Job stats:
job             count
"""


def test_a_dry_run_is_read_back() -> None:
    train, compare = parsed(TEXT)
    assert (train.rule, train.threads, train.granted("gpu"), train.granted("mem_mb")) == ("train", 8, 1, 4000)
    assert train.wildcards == {"trained": "a", "noise": "measured", "entry": "n2v", "seed": "0"}
    assert (compare.rule, compare.threads, compare.granted("gpu"), compare.wildcards) == ("compare", 1, 0, {})


def test_a_dry_run_that_is_not_understood_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "host: here\nJob stats:\ntotal  3\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, said, ""))
    with pytest.raises(ConfigError, match="names no job, nor says that there is none"):
        dry_run(Path("c.yaml"), Path("p"), tmp_path)
    said = "Nothing to be done (all requested files are present and up to date).\n"
    assert dry_run(Path("c.yaml"), Path("p"), tmp_path) == []


def test_resources_that_are_not_known_yet_fit() -> None:
    assert PlannedJob("train", {}, 1, {"mem_mb": "<TBD>"}).granted("mem_mb") == float("inf")


def test_rates_are_measured_once_and_kept_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = METHODS["n2v"](patch=(1, 16, 16), batch=1)  # type: ignore[call-arg]
    rate = Rates(CPU, tmp_path / "rates.json").of(method, 2, 1)
    assert rate.step_seconds > 0
    assert rate.voxels_per_second > 1e3
    monkeypatch.setattr("ssdenoise.plan.rates.measured", lambda *a: pytest.fail("measured again"))
    assert Rates(CPU, tmp_path / "rates.json").of(method, 2, 1) == rate


def test_rates_of_a_device_are_not_taken_for_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, table = METHODS["median"](), tmp_path / "rates.json"  # type: ignore[call-arg]
    slow, fast = (Rate(kind, 0.0, speed) for kind, speed in (("cpu", 1.0), ("cuda", 9.0)))
    monkeypatch.setattr("ssdenoise.plan.rates.measured", lambda m, n, c, device: slow if device == CPU else fast)
    here, gpu = Rates(CPU, table), Device("cuda", "NVIDIA H100")
    assert here.of(method, 2, 1) == slow
    assert Rates(gpu, table).of(method, 2, 1) == fast
    assert Rates(CPU, table).of(method, 2, 1) == slow
    there = Rates(CPU, table, "H100")
    assert there.name == "NVIDIA H100"
    assert there.of(method, 2, 1) == fast
    with pytest.raises(ConfigError, match=r"no rate of median .* for 3 dimensions and 1 channels on NVIDIA H100; run"):
        there.of(method, 3, 1)
    for part, fits in (("A100", 0), ("", 2)):
        with pytest.raises(
            ConfigError, match=f"'{part}' fits {fits} of the devices in .*: 'NVIDIA H100', 'cpu, 1 threa"
        ):
            Rates(CPU, table, part)


@pytest.mark.parametrize("text", ["{", "[]", '{"cpu": {"a": {"kind": "cpu"}}}', '{"0a": {"device": "cpu"}}'])
def test_a_wrong_table_of_rates_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(FormatError, match=r"rates.json is no (table of rates|JSON).*; delete it"):
        Rates(CPU, tmp_path / "rates.json")


def test_rates_of_processors_are_not_passed_off_as_a_gpu_s() -> None:
    on_gpu = PlannedJob("train", {}, 1, {"gpu": "1"})
    (line,) = _other_device([on_gpu], [Takes(1.0, 0.0, "cpu")], "cpu, 1 threads")
    assert line.startswith(
        "beware: these rates, of cpu, 1 threads, are a processor's, not a GPU's, and the profile grants"
    )
    (line,) = _other_device([replace(on_gpu, resources={})], [Takes(1.0, 0.0, "cuda")], "H100")
    assert "of H100, are a GPU's, and the profile grants none; plan on" in line
    assert _other_device([on_gpu], [Takes(1.0, 0.0, "cuda")], "H100") == []
    assert _other_device([on_gpu], [Takes()], "cpu") == []


def test_what_is_wrong_with_a_source_is_told_with_its_dataset(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "datasets.tsv").write_text("dataset\tnoisy\taxes\na\ta.npy\tYX\n")
    project = Project({"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}, tmp_path)
    with pytest.raises(FormatError, match=r"^datasets.tsv: dataset 'a': .*a.npy"):
        Estimate(project, Rates(CPU))


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: Rate, **granted: str) -> list[str]:
    """What does not fit of a volume of 1.3e9 voxels, which is not written."""
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (5, 16384, 16384))
    (tmp_path / "datasets.tsv").write_text("dataset\tnoisy\tslabs\na\ta.npy\t2\n")
    project = Project({"run": "r", "datasets": "datasets.tsv", "methods": {"n2v": {"name": "n2v"}}}, tmp_path)
    monkeypatch.setattr("ssdenoise.plan.rates.measured", lambda *a: rate)
    estimate = Estimate(project, Rates(CPU))
    assert estimate.layouts["a"] is not None
    assert estimate.layouts["a"].shape == (1, 1, 5, 16384, 16384)
    wildcards = {"dataset": "a", "trained": "a", "noise": "measured", "entry": "n2v", "seed": "0", "slabs": "2"}
    jobs = [
        PlannedJob(rule, wildcards, 2, {"gpu": "0", "mem_mb": "4000", "runtime": "240"} | granted)
        for rule in ("train", "denoise")
    ]
    return _misfits(jobs, [estimate.of(job) for job in jobs])


def test_what_does_not_fit_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = Rate("cpu", 0.1, 1e6)
    assert planned(tmp_path, monkeypatch, rate) == []
    train, denoise, *_ = planned(tmp_path, monkeypatch, rate, mem_mb="500")
    assert train.startswith("does not fit: train of a by n2v needs about 9")
    assert "grants 500 (`set-resources: train: mem_mb=`)" in train
    assert denoise.startswith("does not fit: denoise of a by n2v needs about 9")
    slow = Rate("cpu", 100.0, 1e4)
    train, denoise = planned(tmp_path, monkeypatch, slow)
    # 800 steps of 100 s; 671 million voxels at 10000 a second, and halos
    assert "train of a by n2v takes about 22.2 hours, the profile grants 4" in train
    assert "denoise of a by n2v takes about 2" in denoise
    assert "set `slabs` to 1" in denoise


def test_more_slabs_than_tiles_are_told() -> None:
    job = PlannedJob("denoise", {"dataset": "a", "entry": "n2v", "slabs": "9"}, 1, {"mem_mb": "1", "runtime": "1"})
    (line,) = _misfits([job], [Takes(tiles=4)])
    assert line.startswith("of no use: denoise of a by n2v has tiles for 4 of its 9 slabs,")
    assert _misfits([job], [Takes(tiles=9)]) == []


def test_sizes_are_those_of_each_volume_and_summed(tmp_path: Path) -> None:
    for name, dtype in (("noisy", np.uint16), ("pair", np.uint8), ("reference", np.float32), ("clean", np.uint8)):
        np.save(tmp_path / f"{name}.npy", np.zeros((3, 100, 100), dtype))
    (tmp_path / "sheet.tsv").write_text(
        "dataset\tnoisy\tpair\treference\tclean\tmethods\n"
        "a\tnoisy.npy\tpair.npy\treference.npy\t\tn2n\n"
        "b\tnoisy.npy\tpair.npy\treference.npy\t\tn2v\n"
        "c\t\t\t\tclean.npy\tn2n\nd\t\t\t\tclean.npy\tn2v\n"
    )
    config = {
        "run": "r",
        "datasets": "sheet.tsv",
        "noise": {"low": {"kind": "gaussian", "sigma": 1}, "high": {"kind": "gaussian", "sigma": 9}},
        "methods": {name: {"name": name} for name in ("n2n", "n2v")},
    }
    project = Project(config, tmp_path)
    table = volumes(project, {name: noisy_layout(project, name) for name in "abcd"}).set_index("dataset")
    # 30 kvoxel and a third of it in the pyramid; pairs are for scores, too
    assert table["stores of it"].to_dict() == {
        "a": "280 kB",  # 2 + 1 + 4 bytes
        "b": "280 kB",
        "c": "1 MB",  # 1 + 2 levels * 3 realizations * 4 bytes
        "d": "680 kB",  # of which one is for n2n
        "together": "2.24 MB",
    }
    assert table["noisy"]["together"] == "360 kB"
    assert table["denoised"]["together"] == "800 kB"  # 2 + 2 + 2 * 4 + 2 * 4 bytes
