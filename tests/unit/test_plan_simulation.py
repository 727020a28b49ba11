"""Simulated runs: schedules that were worked out by hand, and bounds that hold for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdenoise.errors import ConfigError
from ssdenoise.plan.simulation import Job, Machine, critical_path, simulate


def gpu_job(work: float, *after: int) -> Job:
    return Job("denoise", work, gpus=1, after=after)


def test_a_chain_takes_the_sum_of_its_jobs_however_many_gpus() -> None:
    chain = [gpu_job(10), gpu_job(20, 0), gpu_job(30, 1)]
    assert simulate(chain, Machine(1)).makespan == 60
    outcome = simulate(chain, Machine(4))
    assert (outcome.makespan, outcome.gpu_share) == (60, 0.25)
    assert critical_path(chain) == [0, 1, 2]


def test_a_fan_out_is_shared_by_the_gpus() -> None:
    # one job, then three beside each other, then one that waits for them all
    jobs = [Job("ingest", 5), *(gpu_job(10, 0) for _ in range(3)), Job("commit", 1, after=(1, 2, 3))]
    assert simulate(jobs, Machine(1)).makespan == 5 + 30 + 1
    assert simulate(jobs, Machine(2)).makespan == 5 + 20 + 1
    assert simulate(jobs, Machine(3)).makespan == 5 + 10 + 1
    assert simulate(jobs, Machine(2)).gpu_share == pytest.approx(30 / (2 * 26))
    assert critical_path(jobs)[::2] == [0, 4]


def test_cores_limit_what_runs_at_once_and_are_scaled_down_to_those_there_are() -> None:
    jobs = [Job("train", 10, cores=64), Job("score", 4, cores=2), Job("score", 4, cores=2)]
    outcome = simulate(jobs, Machine(0, cores=4))
    assert outcome.makespan == 14
    assert outcome.core_share == pytest.approx((10 * 4 + 2 * 4 * 2) / (14 * 4))
    # a job that fits goes before one that was first and does not
    wide_later = [Job("score", 4, cores=1), Job("train", 10, cores=2), Job("score", 4, cores=1)]
    assert simulate(wide_later, Machine(0, cores=2)).makespan == 14


def test_cores_of_jobs_with_a_gpu_are_of_their_own_on_a_cluster() -> None:
    jobs = [Job("denoise", 10, gpus=1, cores=4), Job("score", 10, cores=4)]
    assert simulate(jobs, Machine(1, cores=4)).makespan == 20
    assert simulate(jobs, Machine(1, cores=4, apart=True)).makespan == 10


def test_a_job_that_fails_half_way_is_repeated() -> None:
    outcome = simulate([gpu_job(10), gpu_job(20, 0)], Machine(1, start=1.0), failing=1.0)
    assert outcome.makespan == (1 + 5) + (1 + 10) + (1 + 10) + (1 + 20)
    assert outcome.repeated == 2
    jobs = [gpu_job(n + 1.0) for n in range(40)]
    assert simulate(jobs, Machine(3), 0.2) == simulate(jobs, Machine(3), 0.2)
    assert simulate(jobs, Machine(3), 0.2).repeated == 8


def test_ends_are_seen_by_looks_that_become_rare_while_none_is_seen() -> None:
    # looks at 40, 90 and 150: the job has ended at 100; then, as one was seen, at 190 and 240
    jobs = [gpu_job(100), gpu_job(50, 0)]
    assert simulate(jobs, Machine(1, looks=40, growth=10)).makespan == 240
    assert simulate(jobs[:1], Machine(1, looks=40)).makespan == 120


def test_jobs_beyond_those_that_are_submitted_at_once_wait_for_a_place() -> None:
    jobs = [gpu_job(10), gpu_job(10), Job("score", 10)]
    assert simulate(jobs, Machine(1)).makespan == 20
    assert simulate(jobs, Machine(1, submitted=2)).makespan == 20
    assert simulate(jobs, Machine(1, submitted=1)).makespan == 30


def test_more_gpus_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="train asks for 2 GPUs, and --simulate has 1"):
        simulate([Job("train", 1, gpus=2)], Machine(1))


@st.composite
def graphs(draw: st.DrawFn) -> list[Job]:
    jobs = []
    for index in range(draw(st.integers(1, 20))):
        after = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        work, gpus, cores = draw(st.integers(0, 50)), draw(st.integers(0, 2)), draw(st.integers(1, 4))
        jobs.append(Job("job", float(work), gpus, cores, tuple(sorted(after))))
    return jobs


@given(graphs(), st.integers(2, 5), st.integers(4, 9), st.integers(1, 5), st.sampled_from([0.0, 3.0]))
def test_no_run_is_shorter_than_its_bounds_nor_longer_than_all_jobs_one_by_one(
    jobs: list[Job], gpus: int, cores: int, submitted: int, start: float
) -> None:
    longest = math.fsum(start + jobs[index].work for index in critical_path(jobs, start))
    all_work = math.fsum(start + job.work for job in jobs)
    outcome = simulate(jobs, Machine(gpus, cores, submitted=submitted, start=start))
    on_gpus = math.fsum(job.gpus * (start + job.work) for job in jobs) / gpus
    on_cores = math.fsum(job.cores * (start + job.work) for job in jobs) / cores
    assert max(longest, on_gpus, on_cores) <= outcome.makespan <= all_work
    assert simulate(jobs, Machine(1000, start=start)).makespan == longest
    failed = simulate(jobs, Machine(gpus, cores, start=start), failing=1.0).makespan
    assert longest <= failed <= all_work + math.fsum(start + job.work / 2 for job in jobs)
