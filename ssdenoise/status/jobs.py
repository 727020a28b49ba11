"""The jobs of a run, as the rules of the workflow have them, without Snakemake; a test compares both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssdenoise.config.models import MEASURED, Auto
from ssdenoise.config.project import Project
from ssdenoise.denoise.crew import DENOISED, UNCERTAINTY
from ssdenoise.store import lock_of

#: In the order in which the table shows them.
STAGES = (
    *("fetch", "ingest", "synthesize", "calibrate", "train", "probe", "choose"),
    *("denoise", "commit", "score", "compare", "figures", "report"),
)


@dataclass(frozen=True)
class Job:
    """One job; paths are from the project's folder.

    Attributes
    ----------
    stage : str
    product : str
        The file whose presence says that the job is done; of several, the one written last.
    log : str
    claim : str or None
        What the job claims while it works, where it does.
    store : str or None
        The store whose shards tell how far the job is.
    """

    stage: str
    product: str
    log: str
    claim: str | None = None
    store: str | None = None


def jobs(project: Project) -> list[Job]:
    """All jobs of a run, each once."""
    return list({job.product: job for job in _jobs(project, f"results/{project.config.run}")}.values())


def _jobs(project: Project, run: str) -> Iterator[Job]:
    trained = _trained(project, run)
    for dataset, noise in _scenes(project, trained):
        yield Job(
            "calibrate", f"{run}/{dataset}/{noise}/calibration.json", f"{run}/{dataset}/{noise}/logs/calibrate.log"
        )
    for dataset, noise, realization in _realizations(project, trained):
        scene = f"{run}/{dataset}/{noise}"
        if noise != MEASURED:
            yield _volume("synthesize", f"{scene}/noisy-{realization}.ome.zarr")
            yield from _ingest(project, dataset, "clean", f"{run}/{dataset}/clean.ome.zarr")
        else:
            role = ("noisy", "pair")[realization]
            yield from _ingest(project, dataset, role, f"{scene}/noisy-{realization}.ome.zarr")
    for folder in trained:
        yield Job("train", f"{folder}/model.json", f"{folder}/logs/train.log", f"{folder}/train.lock")
    for dataset, noise in project.scenes():
        scene = f"{run}/{dataset}/{noise}"
        if project.datasets[dataset].situation == "reference":
            yield from _ingest(project, dataset, "reference", f"{run}/{dataset}/reference.ome.zarr")
        yield Job("score", f"{scene}/noisy-scores.parquet", f"{scene}/logs/score.log")
        yield Job("figures", f"{scene}/images.png", f"{scene}/logs/figures.log")
    for job in project.jobs():
        yield from _of_a_model(project, run, *job)
    yield Job("compare", f"{run}/comparison.csv", f"{run}/logs/compare.log")
    yield Job("report", f"{run}/report.html", f"{run}/logs/report.log")


def _of_a_model(project: Project, run: str, dataset: str, noise: str, entry: str, seed: int) -> Iterator[Job]:
    """The jobs of one denoised volume, but for its training."""
    folder, method = f"{run}/{dataset}/{noise}/{entry}/seed-{seed}", project.config.methods[entry]
    if isinstance(method, Auto):
        yield Job("choose", f"{folder}/choice.json", f"{folder}/logs/choose.log")
        for _, _, probe in project.candidates(dataset, noise, entry, seed):
            yield Job("probe", probe, f"{Path(probe).parent}/logs/probe.log")
    else:
        yield Job("probe", f"{folder}/probe.parquet", f"{folder}/logs/probe.log")
    slabs = project.datasets[dataset].slabs
    for slab in range(slabs):
        name, store = f"{slab}-of-{slabs}", f"{folder}/{DENOISED}.ome.zarr"
        log, claim = f"{folder}/logs/denoise-{name}.log", f"{folder}/slabs/{name}.lock"
        yield Job("denoise", f"{folder}/slabs/{name}.json", log, claim, store)
    for product in (DENOISED, UNCERTAINTY) if method.probabilistic else (DENOISED,):
        store = f"{folder}/{product}.ome.zarr"
        yield Job("commit", f"{store}/zarr.json", f"{folder}/logs/commit-{product}.log", str(lock_of(Path(store))))
    yield Job("score", f"{folder}/scores.parquet", f"{folder}/logs/score.log")


def _trained(project: Project, run: str) -> dict[str, tuple[str, str, str]]:
    """Folder of each model that the run trains: whose it is, noise level and method entry."""
    found: dict[str, tuple[str, str, str]] = {}
    for dataset, noise, entry, seed in project.jobs():
        if isinstance(project.config.methods[entry], Auto):
            models = [(one, model) for one, model, _ in project.candidates(dataset, noise, entry, seed)]
        else:
            models = [(entry, project.model_folder(dataset, noise, entry, seed))]
        row = project.datasets[dataset]
        owner = row.model or row.trains or ""
        # the folder of a given model may be one of this run's own
        found |= {model: (owner, noise, one) for one, model in models if model.startswith(f"{run}/{owner}/")}
    return found


def _scenes(project: Project, trained: dict[str, tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Dataset and noise level of each noisy volume: of what is scored, and of what is only trained on."""
    members = [(row.dataset, noise) for owner, noise, _ in trained.values() for row in project.members(owner)]
    return list(dict.fromkeys([*project.scenes(), *members]))


def _realizations(project: Project, trained: dict[str, tuple[str, str, str]]) -> list[tuple[str, str, int]]:
    """Dataset, noise level and number of each realization that something is made of."""
    found = [(*scene, 0) for scene in _scenes(project, trained)]
    for owner, noise, entry in trained.values():
        rows = project.members(owner)
        if project.config.methods[entry].target == "pair" and rows[0].pairing == "volume":
            found += [(row.dataset, noise, 1) for row in rows]
    found += [(d, n, 1) for d, n, entry, _ in project.jobs() if project.config.methods[entry].averages_pair]
    unseen = [(d, n, project.unseen(d, None)) for d, n in project.scenes()]
    unseen += [(d, n, project.unseen(d, entry)) for d, n, entry, _ in project.jobs()]
    found += [(d, n, realization) for d, n, realization in unseen if realization is not None]
    return list(dict.fromkeys(found))


def _volume(stage: str, store: str) -> Job:
    path = Path(store)
    log = f"{path.parent}/logs/{path.name.removesuffix('.ome.zarr')}.log"
    return Job(stage, f"{store}/zarr.json", log, str(lock_of(path)), store)


def _ingest(project: Project, dataset: str, column: str, store: str) -> Iterator[Job]:
    """The ingest of a volume, and the downloads that it waits for."""
    path = project.located(getattr(project.datasets[dataset], column)).partition("#")[0]
    if path in project.downloaded:
        yield Job("fetch", path, f"results/downloads/logs/{Path(path).name}.log")
    yield _volume("ingest", store)
