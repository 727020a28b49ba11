"""How long planned jobs take: by those of a finished run, by the rates of a device, or by what they are allowed."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ssdenoise import needs
from ssdenoise.config.models import MEASURED
from ssdenoise.config.project import Project
from ssdenoise.errors import MissingInputError
from ssdenoise.plan.estimate import Estimate, Takes
from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.provenance import canonical, listed, read_json
from ssdenoise.run import folder_of

#: Seconds until a process computes, of jobs that no run tells of: Python, torch and the package, on a machine that is
#: not busy.
PROCESS_SECONDS = 5.0

#: Larger volumes than those of a run by this factor are told.
FAR = 10.0

#: Rules that run the same as another one.
SAME = {"ingest_noisy": "ingest", "ingest_truth": "ingest", "figures_uncertain": "figures"}

#: Rules whose jobs are told apart by their method entry, too.
OF_A_METHOD = ("train", "denoise")


class Run:
    """Seconds of a finished run's jobs, from Snakemake's benchmarks, as lines over their sizes.

    Parameters
    ----------
    folder : Path
        Of the run.

    Raises
    ------
    MissingInputError
        If it has no benchmark.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._methods = _methods(folder)
        self.points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for file in sorted(folder.glob("**/logs/*.tsv")):
            for key, size in self._jobs(file):
                self.points[key].append((size, _seconds(file)))
        if not self.points:
            raise MissingInputError(
                f"{folder} has no benchmark, no `logs/*.tsv`; name a run that has finished with --like"
            )
        least = min(seconds for points in self.points.values() for _, seconds in points)
        self.lines = {key: fitted(points, least) for key, points in self.points.items()}

    def _jobs(self, file: Path) -> Iterator[tuple[str, float]]:
        """What a benchmark is of, and the size that counts for it; nothing if its volume is gone."""
        rule, where = _rule(file), file.parent.parent.relative_to(self.folder).parts
        if rule in OF_A_METHOD and len(where) != 4:
            return  # no run's folder
        if not where:
            yield rule, float(sum(1 for _ in self.folder.glob("**/*scores.parquet")) - 1)
            return
        if rule == "train":  # of a group, too, whose folder has no volume
            if where in (trained := self._methods.get(where[2], {})):
                yield _key(rule, *trained[where]), 1.0
            return
        noise = where[1] if len(where) > 1 else "*"
        store = next(self.folder.glob(f"{where[0]}/{noise}/noisy-0.ome.zarr/zarr.json"), None)
        if store is None:
            return
        layout = needs.layout_of(str(store))
        if rule != "denoise":
            yield rule, float(needs.size_of(layout))
        elif entry := self._methods.get(where[2]):
            slabs = int(file.stem.rpartition("-")[2])
            method, ndim, _ = entry.get(where) or next(iter(entry.values()))
            yield _key(rule, method, ndim, layout.shape[1]), math.prod(layout.shape) / layout.shape[1] / slabs

    def seconds(self, key: str, size: float) -> float | None:
        """Of a job of so large a volume; None if the run had no such job."""
        if key not in self.lines:
            return None
        start, slope = self.lines[key]
        return start + slope * size


def _methods(folder: Path) -> dict[str, dict[tuple[str, ...], tuple[Any, int, int]]]:
    """By method entry and folder of a model: the method as configured, dimensions and channels."""
    found: dict[str, dict[tuple[str, ...], tuple[Any, int, int]]] = defaultdict(dict)
    for file in sorted(folder.glob("*/*/*/seed-*/model.json")):
        value, where = read_json(file), file.parent.relative_to(folder).parts
        if value["provenance"]["stage"] == "train":  # the others were chosen
            found[where[2]][where] = value["provenance"]["spec"]["method"], value["ndim"], value["channels"]
    return found


def _rule(file: Path) -> str:
    """The rule whose benchmark a file is."""
    name = file.stem.partition("-")[0]
    if name in ("noisy", "clean", "reference"):
        synthesized = name == "noisy" and file.parent.parent.name != MEASURED
        return "synthesize" if synthesized else "ingest"
    return "score_noisy" if name == "score" and not file.parent.parent.name.startswith("seed-") else name


def _seconds(file: Path) -> float:
    with file.open() as text:
        return float(next(csv.DictReader(text, delimiter="\t"))["s"])


def _key(rule: str, method: Any, ndim: int, channels: int) -> str:
    return canonical([rule, method, ndim, channels])


def fitted(points: list[tuple[float, float]], least: float) -> tuple[float, float]:
    """Seconds `start + slope * size` through sizes and seconds, neither negative.

    Where all sizes are equal, the start is taken to be `least`.
    """
    sizes, seconds = np.array(points).T
    most = sizes.max()
    if sizes.min() == most:
        mean = float(seconds.mean())
        return (least, (mean - least) / float(most)) if most > 0 and mean > least else (mean, 0.0)
    (start, slope), _ = nnls(np.column_stack([np.ones_like(sizes), sizes / most]), seconds)
    return float(start), float(slope / most)


class Durations:
    """Seconds of work of planned jobs, and where they are known from.

    Parameters
    ----------
    estimate : Estimate
    like : str, optional
        Name or folder of a finished run.
    networks : bool
        Whether that run tells of training and inference, too; else the rates do.
    """

    def __init__(self, estimate: Estimate, like: str | None, *, networks: bool) -> None:
        self._estimate, self._networks = estimate, networks
        self._run = Run(folder_of(like)) if like else None
        self._key = cache(self._method_key)
        self._tables = len(estimate.project.scenes()) + len(estimate.project.jobs())
        self.known: Counter[tuple[str, str]] = Counter()
        self.far: dict[str, float] = {}

    def of(self, job: PlannedJob, takes: Takes) -> float:
        """Seconds that a job works."""
        rule = SAME.get(job.rule, job.rule)
        key, size = self._size(job, rule)
        if self._run and (self._networks or rule not in OF_A_METHOD):
            seconds = self._run.seconds(key, size)
            if seconds is not None:
                most = max(of for of, _ in self._run.points[key])
                if size > FAR * most:
                    self.far[rule] = max(self.far.get(rule, 0.0), size / most)
                self.known["measured", rule] += 1
                return seconds
        if takes.kind:
            self.known["rates", rule] += 1
            return PROCESS_SECONDS + takes.hours * 3600
        self.known["allowed", rule] += 1
        minutes = takes.asked.minutes - needs.START_MINUTES if takes.asked else 0.0
        return PROCESS_SECONDS + minutes * 60

    def _size(self, job: PlannedJob, rule: str) -> tuple[str, float]:
        """What a job is compared with, and its size, as those of a run's benchmarks."""
        if not job.wildcards:
            return rule, float(self._tables)
        layout = self._estimate.layouts.get(job.wildcards.get("dataset", ""))
        if rule == "train":
            return self._key(rule, job.wildcards["trained"], job.wildcards["entry"]), 1.0
        if layout is None:
            return "", 0.0
        if rule == "denoise":
            voxels = math.prod(layout.shape) / layout.shape[1] / int(job.wildcards["slabs"])
            return self._key(rule, job.wildcards["dataset"], job.wildcards["entry"]), voxels
        return rule, float(needs.size_of(layout))

    def _method_key(self, rule: str, name: str, entry: str) -> str:
        project: Project = self._estimate.project
        rows = project.members(name) if rule == "train" else [project.datasets[name]]
        layout = next((found for row in rows if (found := self._estimate.layouts[row.dataset])), None)
        method = project.config.methods[entry].model_dump(mode="json")
        return _key(rule, method, rows[0].ndim, layout.shape[1] if layout else 0)

    def __str__(self) -> str:
        """Where the seconds are from."""
        named = {
            "measured": f"as in {self._run.folder}" if self._run else "",
            "rates": f"by the rates of {self._estimate.rates.name}",
            "allowed": "by what jobs are allowed, which is no measurement (`--like RUN` takes a finished run's)",
        }
        by_source: dict[str, set[str]] = defaultdict(set)
        for source, rule in self.known:
            by_source[source].add(rule)
        told = "; ".join(f"{listed(by_source[source])} {how}" for source, how in named.items() if source in by_source)
        lines = [f"Seconds of work: {told}."]
        if self.far:
            far = ", ".join(f"{rule} {factor:.3g} times" for rule, factor in self.far.items())
            lines.append(
                f"beware: jobs larger than any in that run: {far}; a run of volumes more like these tells more"
            )
        return "\n".join(lines)
