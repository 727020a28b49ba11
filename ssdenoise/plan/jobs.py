"""What Snakemake would run: its own dry run, read back."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdenoise.errors import ConfigError

#: Line of a dry run that begins a job.
JOB = re.compile(r"^(localrule|rule|checkpoint) (\w+):$", re.MULTILINE)

#: Cores that any job's threads are fewer than.
MANY = 65536


@dataclass(frozen=True)
class PlannedJob:
    """A job of a dry run: its rule, its wildcards, what the rule and the profile grant it, its files.

    `local`: it runs on the machine of Snakemake itself, whatever the executor.
    """

    rule: str
    wildcards: dict[str, str]
    threads: int
    resources: dict[str, str]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    local: bool = False

    @property
    def name(self) -> str:
        """Its rule, and whose it is; slabs, seeds and noise levels have the same."""
        who = self.wildcards.get("trained") or self.wildcards.get("dataset")
        entry = self.wildcards.get("entry")
        return self.rule + (f" of {who}" if who else "") + (f" by {entry}" if entry else "")

    @property
    def gpus(self) -> int:
        """GPUs that it is granted, as `gpu` or, where a Slurm wants that, as `gres`: the rules count both."""
        return int(max(self.granted("gpu"), self.granted("devices")))

    def granted(self, resource: str) -> float:
        """A resource as a number; 0 if it has none of that name, infinity if it is not known before the job runs."""
        value = self.resources.get(resource, "0")
        return math.inf if value == "<TBD>" else float(value)


def dry_run(
    configfile: Path, profile: Path, root: Path, config: Sequence[str] = (), *, local: bool = True
) -> list[PlannedJob]:
    """Jobs that are left to be run.

    Parameters
    ----------
    configfile, profile, root : Path
    config : sequence of str
        `key=value`, for Snakemake's `--config`.
    local : bool
        Whether jobs run on this machine, to whose cores their threads are scaled down then.

    Raises
    ------
    ConfigError
        If Snakemake refuses the configuration, with its reason; or tells of jobs in a way that is not understood.
    """
    # Snakemake 9.27 tells what jobs are granted in this text only; the profile may be quiet about them, `host` is not
    options = ["--dry-run", "--quiet", "host", "--configfile", str(configfile), "--profile", str(profile)]
    if not local:
        options += ["--cores", str(MANY)]
    if config:
        options += ["--config", *config]
    done = subprocess.run([sys.executable, "-m", "snakemake", *options], cwd=root, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = [line.removeprefix("ssdenoise: ") for line in lines if line.startswith("ssdenoise: ")]
        raise ConfigError(
            told[0] if told else f"snakemake cannot plan this: {lines[-1] if lines else 'it said nothing'}"
        )
    if not JOB.search(done.stdout) and "Nothing to be done" not in done.stdout + done.stderr:
        raise ConfigError(
            f"the dry run of snakemake names no job, nor says that there is none; plan with the snakemake of "
            f"requirements.lock, and look at what `snakemake {' '.join(options)}` prints"
        )
    return parsed(done.stdout)


def parsed(text: str) -> list[PlannedJob]:
    """Jobs from the text of a dry run."""
    jobs: list[PlannedJob] = []
    local, rule, fields = False, "", dict[str, str]()
    for line in [*text.splitlines(), ""]:
        if (match := JOB.match(line)) or (rule and not line.startswith("    ")):
            if rule:
                jobs.append(_job(rule, fields, local=local))
            local, rule = (match[1] == "localrule", match[2]) if match else (False, "")
            fields = {}
        elif rule:
            name, _, value = line.strip().partition(": ")
            fields[name] = value
    return [job for job in jobs if job.rule != "all"]


def _job(rule: str, fields: dict[str, str], *, local: bool) -> PlannedJob:
    def pairs(name: str) -> dict[str, str]:
        return dict(part.partition("=")[::2] for part in fields.get(name, "").split(", ") if part)

    def files(name: str) -> tuple[str, ...]:
        return tuple(fields[name].split(", ")) if name in fields else ()

    threads = int(fields.get("threads", 1))
    return PlannedJob(
        rule, pairs("wildcards"), threads, pairs("resources"), files("input"), files("output"), local=local
    )
