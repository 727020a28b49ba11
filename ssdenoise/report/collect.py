"""What a run has, and why the rest is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssdenoise.config.specs import ReferenceFit, ReportSpec, Situation
from ssdenoise.run import told_by

#: Reason and log of a job that has neither.
NOT_BEGUN = ("it was not begun: the run ended before, or what it waits for failed", "")


@dataclass(frozen=True)
class Scene:
    """A dataset at one noise level, and the method entry and seed of each of its jobs."""

    dataset: str
    noise: str
    situation: Situation
    reference_fit: ReferenceFit
    jobs: tuple[tuple[str, int], ...]
    run: Path

    @property
    def title(self) -> str:
        """As the figures name it."""
        return f"{self.dataset}/{self.noise}"

    @property
    def folder(self) -> Path:
        """Where its products lie."""
        return self.run / self.dataset / self.noise

    @property
    def truth(self) -> Path | None:
        """Store of the clean volume or the reference, finished or not; None for archives."""
        role = {"benchmark": "clean", "reference": "reference"}.get(self.situation)
        return self.run / self.dataset / f"{role}.ome.zarr" if role else None

    def job(self, entry: str, seed: int) -> Path:
        """Folder of the products of one job."""
        return self.folder / entry / f"seed-{seed}"

    @property
    def shown(self) -> dict[str, Path]:
        """Method entry, and the folder of its first seed that has a denoised volume."""
        found: dict[str, Path] = {}
        for entry, seed in self.jobs:
            if finished(self.job(entry, seed) / "denoised.ome.zarr"):
                found.setdefault(entry, self.job(entry, seed))
        return found

    @property
    def scores(self) -> dict[tuple[str, int], Path]:
        """Files of scores that are there, by method entry and seed, that of the noisy input among them."""
        files = {("noisy", 0): self.folder / "noisy-scores.parquet"}
        files |= {job: self.job(*job) / "scores.parquet" for job in self.jobs}
        return {job: file for job, file in files.items() if file.is_file()}


@dataclass(frozen=True)
class Missing:
    """Jobs that the run has not done, for one reason; `log` is where it stands, in the run's folder or beside it."""

    what: tuple[str, ...]
    reason: str
    log: str


def finished(store: Path) -> bool:
    """Whether a store has been committed."""
    return (store / "zarr.json").is_file()


def scenes_of(spec: ReportSpec, run: Path) -> list[Scene]:
    """All scenes that a run is to have, in the order of the sheet as far as datasets are alike."""
    return [
        Scene(dataset, noise, expected.situation, expected.reference_fit, expected.jobs, run)
        for expected in spec.expected
        for dataset in expected.datasets
        for noise in expected.noise
    ]


def missing(spec: ReportSpec, scenes: list[Scene], run: Path) -> list[Missing]:
    """Jobs without scores or without a denoised volume, and what else of the run failed; by their reasons."""
    found: dict[tuple[str, str], list[str]] = {}
    entries: dict[tuple[tuple[str, str], str, int], list[str]] = {}
    for scene in scenes:
        for entry, seed in scene.jobs:
            folder = scene.job(entry, seed)
            scores = folder / "scores.parquet"
            done = scores.is_file() and finished(folder / "denoised.ome.zarr")
            # scores of an earlier run do not make up for a step that failed since
            since = scores.stat().st_mtime if done else 0.0
            if reason := _failed(_steps(spec, scene, entry, seed), since, run) or (None if done else NOT_BEGUN):
                entries.setdefault((reason, scene.title, seed), []).append(entry)
    for (reason, title, seed), names in entries.items():
        found.setdefault(reason, []).append(f"{title}, seed {seed}: {', '.join(names)}")
    for scene in scenes:
        steps = [(scene.folder / "logs" / "figures.log", scene.folder / "images.png")]
        steps += [(scene.folder / "logs" / "score.log", scene.folder / "noisy-scores.parquet")]
        steps += _aside(scene)
        for step in steps:
            if failed := _failure(*step):
                product = step[1].relative_to(scene.folder)
                found.setdefault((failed, _within(step[0], run)), []).append(f"{scene.title}: {product}")
    log = run / "logs" / "compare.log"
    if failed := _failure(log, run / "comparison.csv"):
        found.setdefault((failed, _within(log, run)), []).append("comparison of the run")
    return [Missing(tuple(what), reason, log) for (reason, log), what in found.items()]


def _steps(spec: ReportSpec, scene: Scene, entry: str, seed: int) -> Iterator[tuple[Path, Path]]:
    """Log and product of each step to the scores of a job, in their order."""
    downloads = scene.run.parent / "downloads"
    for name in spec.downloads.get(scene.dataset, ()):
        yield downloads / "logs" / f"{name}.log", downloads / name
    if scene.truth:
        role = scene.truth.name.partition(".")[0]
        yield scene.run / scene.dataset / "logs" / f"{role}.log", scene.truth / "zarr.json"
    for realization in "012":
        store = scene.folder / f"noisy-{realization}.ome.zarr"
        yield scene.folder / "logs" / f"noisy-{realization}.log", store / "zarr.json"
    yield scene.folder / "logs" / "calibrate.log", scene.folder / "calibration.json"
    folder = scene.job(entry, seed)
    trained = scene.run / spec.trained.get(scene.dataset, scene.dataset) / scene.noise / entry / f"seed-{seed}"
    yield trained / "logs" / "train.log", trained / "model.json"
    yield folder / "logs" / "choose.log", folder / "choice.json"
    for log in sorted((folder / "logs").glob("denoise-*.log")):
        yield log, folder / "slabs" / f"{log.stem.removeprefix('denoise-')}.json"
    for product in ("denoised", "uncertainty"):
        yield folder / "logs" / f"commit-{product}.log", folder / f"{product}.ome.zarr" / "zarr.json"
    yield folder / "logs" / "score.log", folder / "scores.parquet"


def _aside(scene: Scene) -> Iterator[tuple[Path, Path]]:
    """Log and product of what no score waits for: probes, and the training of those that are only chosen from."""
    own = {scene.job(*job) for job in scene.jobs}
    for folder in sorted(scene.folder.glob("*/seed-*")):
        if folder not in own:
            yield folder / "logs" / "train.log", folder / "model.json"
        yield folder / "logs" / "probe.log", folder / "probe.parquet"


def _failed(steps: Iterator[tuple[Path, Path]], since: float, run: Path) -> tuple[str, str] | None:
    """Error and log of the first step that began, since some time, and left no product; None if there is none."""
    for log, product in steps:
        if (failed := _failure(log, product)) and log.stat().st_mtime > since:
            return failed, _within(log, run)
    return None


def _failure(log: Path, product: Path) -> str | None:
    """The error that ended a job; None if it has its product, or never began."""
    if product.is_file() or not log.is_file():
        return None
    error, last = told_by(log)
    return error or "it ended without an error of its own: it was killed, or is still running" + (
        f"; the last line of its log: {last}" if last else ""
    )


def _within(log: Path, run: Path) -> str:
    """A path from the folder of all runs."""
    return str(log.relative_to(run.parent))
