"""What a Snakemake profile says of where jobs run, how often they are tried, and how many at once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssdenoise.errors import FormatError, MissingInputError

#: Seconds between looks at the jobs of a cluster: Snakemake's default, and that of its plugin for Slurm 2.8, which
#: waits so much longer after each look that found none ended.
LOOKS, SLURM_LOOKS, SLURM_GROWTH = 10.0, 40.0, 10.0

#: A number, a size or a time, all that is no expression.
AMOUNT = re.compile(r"'?(\d+(\.\d+)?\s*[A-Za-z]*\s*)+'?")


@dataclass(frozen=True)
class Profile:
    """What a plan needs of a profile.

    Attributes
    ----------
    executor : str
        `local`, or the name of the plugin that submits.
    attempts : int
        How often a job is tried.
    jobs, cores : float
        Jobs that are submitted, or cores that are in use, at once; infinite where it does not say.
    looks, growth : float
        Seconds between looks at the submitted jobs, and how many more after a look that found none ended.
    fixed : frozenset of (str, str)
        Rule and resource that it sets, so that no attempt asks for more.
    """

    executor: str
    attempts: int
    jobs: float
    cores: float
    looks: float
    growth: float
    fixed: frozenset[tuple[str, str]]

    @property
    def local(self) -> bool:
        """Whether jobs run on the machine of Snakemake itself."""
        return self.executor == "local"

    @classmethod
    def read(cls, folder: Path) -> Profile:
        """The profile in a folder.

        Raises
        ------
        MissingInputError
            If there is none.
        FormatError
            If it is no mapping.
        """
        # as Snakemake looks for it: of the versions' files, the newest
        file = max(folder.glob("config.v*+.yaml"), default=folder / "config.yaml")
        if not file.is_file():
            raise MissingInputError(f"no file {file}; name the folder of a Snakemake profile with --profile")
        try:
            value = yaml.safe_load(file.read_text()) or {}
        except yaml.YAMLError as error:
            raise FormatError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(value, dict):
            raise FormatError(f"{file} is no profile: found {type(value).__name__}, needed are keys and their values")
        executor = value.get("executor", "local")
        slurm = executor == "slurm"
        key = "slurm-init-seconds-before-status-checks" if slurm else "seconds-between-status-checks"
        return cls(
            executor,
            1 + int(value.get("retries", 0)),
            _number(value.get("jobs")),
            _number(value.get("cores")),
            float(value.get(key, SLURM_LOOKS if slurm else LOOKS)),
            SLURM_GROWTH if slurm else 0.0,
            frozenset(_fixed(value.get("set-resources", {}))),
        )


def _number(value: object) -> float:
    """A limit; none of `all` and `unlimited`."""
    return float(value) if isinstance(value, int) else math.inf


def _fixed(value: Any) -> list[tuple[str, str]]:
    """Rule and resource of what is set to amounts, in either of the forms that Snakemake knows, by its usual name."""
    if isinstance(value, dict):
        given = [(rule, name, str(amount)) for rule, of_rule in value.items() for name, amount in of_rule.items()]
    else:
        given = [tuple(one.replace(":", "=", 1).split("=", 2)) for one in value]
    return [(rule, "mem_mb" if name == "mem" else name) for rule, name, amount in given if AMOUNT.fullmatch(amount)]
