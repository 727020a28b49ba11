"""What a cluster's partitions can never run, by what `sinfo` printed of real ones."""

from __future__ import annotations

import math
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.needs import SNAKEMAKE_MB, Need, gpus_of
from ssdenoise.plan.jobs import PlannedJob, parsed
from ssdenoise.plan.partitions import Nodes, ask_sinfo, impossible
from ssdenoise.plan.partitions import parsed as nodes_of
from ssdenoise.plan.profile import Profile
from tests.conftest import ROOT

#: Of the sandbox, as Slurm 22.05 printed it, and lines in the form of other clusters.
SANDBOX = """\
cpu*|up|2:00:00|8|16000|(null)|mixed
cpu*|up|2:00:00|8|16000|(null)|idle
gpu|up|2:00:00|8|16000|gpu:a100:2|mixed
"""
OTHERS = """\
long|up|14-00:00:00|128+|1031000+|(null)|mixed
mixed|up|infinite|64|515000|gpu:a100:4(S:0-1),gpu:v100:2(S:1),mps:400|allocated
plain|up|30:00|16|64000|gpu:2|idle
broken|up|1-12:00:00|16|64000|(null)|down*
closed|drain|1-00:00:00|16|64000|(null)|idle
"""

SLURM = Profile("slurm", 3, 200, math.inf, 40, 10, frozenset())
WILDCARDS = {"trained": "a", "noise": "measured", "entry": "n2v", "seed": "0"}


def job(rule: str = "train", threads: int = 4, **resources: str) -> PlannedJob:
    given = {"slurm_partition": "gpu", "mem_mb": "4000", "runtime": "30", "gpu": "1"}
    return PlannedJob(rule, WILDCARDS, threads, {k: v for k, v in (given | resources).items() if v})


def told(one: PlannedJob, need: Need | None = None, profile: Profile = SLURM, text: str = SANDBOX + OTHERS) -> str:
    return "\n".join(impossible([one], [need], profile, nodes_of(text)))


def test_what_sinfo_prints_is_understood() -> None:
    cpu, _, gpu = nodes_of(SANDBOX)
    assert cpu == Nodes("cpu", True, True, 120, 8, 16000, ())
    assert (gpu.default, gpu.gpus, gpu.gpus_of("a100"), gpu.gpus_of("h100")) == (False, (("a100", 2),), 2, 0)
    long, mixed, plain, broken, closed = nodes_of(OTHERS)
    assert (long.minutes, long.threads, long.memory_mb) == (14 * 1440, 128, 1031000)
    assert (mixed.minutes, mixed.gpus) == (math.inf, (("a100", 4), ("v100", 2)))
    assert (mixed.gpus_of(""), mixed.gpus_of("v100")) == (6, 2)
    assert (plain.minutes, plain.gpus, plain.gpus_of("")) == (30, (("", 2),), 2)
    assert [one.up for one in (plain, broken, closed)] == [True, False, False]


def test_what_fits_is_not_told() -> None:
    assert told(job()) == ""
    assert told(job(slurm_partition="", gpu="0")) == ""
    assert told(job(slurm_partition="long,mixed", gpu_model="v100", gpu="2", mem_mb="100000")) == ""
    assert told(job(slurm_partition="mixed", gpu="0", gres="gpu:a100:4")) == ""


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (job(mem_mb="20000"), "asks for 21200 MB, and a node of partition gpu with such GPUs has at most 16000"),
        (job(threads=9), "asks for 9 threads, and a node of partition gpu with such GPUs has at most 8"),
        (job(runtime="150"), "asks for 150 minutes, and partition gpu grants at most 120 (`set-resources: train: run"),
        (job(gpu="3"), "asks for 3 GPUs, and no node of partition gpu has more than 2 (its kinds: a100)"),
        (job(gpu_model="h100"), "asks for 1 GPUs h100, and no node of partition gpu has more than 0 (its kinds: a100)"),
        (job(gpu="0", gres="gpu:h100:1"), "asks for 1 GPUs h100, and no node of partition gpu has more than 0"),
        (job(slurm_partition="cpu"), "asks for 1 GPUs, and no node of partition cpu has more than 0"),
        (job(slurm_partition="gpus"), "goes to partition gpus, and the cluster has cpu, gpu, long, mixed, plain"),
        (job(slurm_partition="broken", gpu="0"), "goes to partition broken, which is down, or all of whose nodes are"),
        (job(slurm_partition="closed", gpu="0"), "goes to partition closed, which is down"),
    ],
)  # fmt: skip
def test_what_no_node_can_run_is_told_with_the_largest_and_what_to_set(one: PlannedJob, message: str) -> None:
    line = told(one)
    assert line.startswith(f"can never run: train of a by n2v {message}")
    assert "set-" in line or "is down" in line


def test_a_node_must_have_all_that_a_job_asks_for() -> None:
    text = "two|up|infinite|64|16000|(null)|idle\ntwo|up|infinite|4|64000|(null)|idle\n"
    one = job(slurm_partition="two", gpu="0", threads=32, mem_mb="20000")
    assert "asks for 21200 MB, 32 threads and 30 minutes, each of which a node of" in told(one, text=text)


def test_later_attempts_ask_for_more_unless_the_profile_says_how_much() -> None:
    assert told(job(mem_mb="7000")).startswith("can never run at attempt 3 of 3: train of a by n2v asks for 22200 MB")
    assert told(job(runtime="70")).startswith("can never run at attempt 2 of 3: train of a by n2v asks for 140 minutes")
    assert told(job(mem_mb="7000"), profile=replace(SLURM, attempts=2)) == ""
    fixed = frozenset({("train", "mem_mb")})
    assert told(job(mem_mb="16000"), profile=replace(SLURM, fixed=fixed)) == ""


def test_what_is_not_known_yet_is_taken_from_the_needs() -> None:
    unknown = job(mem_mb="<TBD>", runtime="<TBD>")
    assert told(unknown) == ""
    assert f"asks for {15001 + SNAKEMAKE_MB} MB" in told(unknown, Need(15000.5, 10))
    assert "at attempt 3 of 3: train of a by n2v asks for 180 minutes" in told(unknown, Need(100, 60))


def test_slabs_are_told_once_and_what_stays_here_is_not() -> None:
    slabs = [replace(job("denoise", mem_mb="90000"), wildcards={"dataset": "a", "slab": str(n)}) for n in range(5)]
    (line,) = impossible(slabs, [None] * 5, SLURM, nodes_of(SANDBOX))
    assert line.startswith("can never run: denoise of a asks for 91200 MB")
    text = "localrule fetch:\n    output: results/downloads/a.npy\n    resources: mem_mb=500000\n"
    (fetch,) = parsed(text)
    assert fetch.local
    assert impossible([fetch], [None], SLURM, nodes_of(SANDBOX)) == []


def test_sinfo_that_is_missing_or_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_sinfo() == "there is no `sinfo` here; plan on a machine that submits"
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'sinfo: error: some' >&2\necho 'sinfo: fatal: other' >&2\nexit 1\n")
    sinfo.chmod(sinfo.stat().st_mode | stat.S_IXUSR)
    assert ask_sinfo() == "`sinfo` says: sinfo: fatal: other"
    sinfo.write_text(f"#!/bin/sh\nprintf '{SANDBOX.replace(chr(10), chr(92) + 'n')}'\n")
    assert ask_sinfo() == nodes_of(SANDBOX)


def test_profiles_say_where_jobs_run_and_how_often() -> None:
    profile = Profile.read(ROOT / "workflow" / "profiles" / "slurm")
    assert (profile.executor, profile.attempts, profile.jobs, profile.looks) == ("slurm", 3, 200, 40)
    assert ("train", "gpu") in profile.fixed
    assert ("train", "mem_mb") not in profile.fixed
    here = Profile.read(ROOT / "workflow" / "profiles" / "default")
    assert (here.local, here.attempts, here.jobs, here.cores) == (True, 1, math.inf, math.inf)


def test_what_a_profile_sets_is_asked_for_at_every_attempt(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "set-resources:\n  train: {runtime: 4h, mem: 64GB, gpu: 1}\n"
        "  denoise: {mem_mb: attempt * 4000, runtime: '90'}\n"
    )
    fixed = {("train", "runtime"), ("train", "mem_mb"), ("train", "gpu"), ("denoise", "runtime")}
    assert Profile.read(tmp_path).fixed == fixed


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu", (("", 1),)),
        ("gpu:2", (("", 2),)),
        ("gpu:A100", (("A100", 1),)),
        ("gpu:3090:8", (("3090", 8),)),
        ("shard:4,gpu:nvidia_a100_1g.10gb:7(S:0-1)", (("nvidia_a100_1g.10gb", 7),)),
        ("gpu:a100:2,gpu:v100:1", (("a100", 2), ("v100", 1))),
        ("shard:4", ()),
        ("(null)", ()),
    ],
)
def test_gpus_among_generic_resources(gres: str, gpus: tuple[tuple[str, int], ...]) -> None:
    assert gpus_of(gres) == gpus


def test_a_profile_is_the_newest_file_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="name the folder of a Snakemake profile with --profile"):
        Profile.read(tmp_path)
    (tmp_path / "config.yaml").write_text("- nothing\n")
    with pytest.raises(FormatError, match="found list, needed are keys"):
        Profile.read(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [\n")
    with pytest.raises(FormatError, match="is no YAML"):
        Profile.read(tmp_path)
    (tmp_path / "config.v9+.yaml").write_text(
        "executor: kubernetes\ncores: 7\nset-resources:\n  - train:mem_mb=900\n  - train:runtime=60*attempt\n"
    )
    profile = Profile.read(tmp_path)
    assert (profile.executor, profile.cores, profile.looks, profile.growth) == ("kubernetes", 7, 10, 0)
    assert profile.fixed == {("train", "mem_mb")}
