"""What a project's sheet must not ask for: datasets without what their methods need, models that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssdenoise.config.models import MEASURED, Auto, Dataset
from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.model import read_description
from ssdenoise.provenance import listed
from ssdenoise.remote import is_remote

if TYPE_CHECKING:
    from ssdenoise.config.project import Project


def check_datasets(project: Project) -> None:
    """Refuse datasets, with the row or the group and the reason in one line."""
    baseline = project.config.scoring.baseline
    if baseline is not None and baseline not in project.config.methods:
        raise ConfigError(f"config: scoring.baseline is {baseline!r}; the config has {listed(project.config.methods)}")
    for name, method in project.config.methods.items():
        for one in method.among if isinstance(method, Auto) else ():
            if isinstance(project.config.methods.get(one, method), Auto):
                known = listed(k for k, v in project.config.methods.items() if not isinstance(v, Auto))
                raise ConfigError(f"config: methods.{name}: among: found {one!r}; it chooses among {known or 'none'}")
    for row in project.datasets.values():
        _check_dataset(project, row)
    for name in project.trained():
        if (rows := project.members(name))[0].group:
            _check_group(project, rows)


def _check_dataset(project: Project, row: Dataset) -> None:
    where = f"{project.config.datasets}: dataset {row.dataset!r}"
    for kind, names, known in (
        ("method entry", row.methods, project.config.methods),
        ("noise level", row.noise, project.config.noise),
    ):
        for name in names or ():
            if name not in known:
                raise ConfigError(f"{where} names the {kind} {name!r}; the config has {listed(known) or 'none'}")
    if row.clean is not None and not project.noise_of(row.dataset):
        raise ConfigError(f"{where} is clean and the config has no noise levels; add one under `noise:`")
    if row.model is not None:
        _check_model(project, row, where)
    if row.train_only and not any(
        other.model == row.trains or (other.trains == row.trains and not other.train_only)
        for other in project.datasets.values()
    ):
        raise ConfigError(
            f"{where} is `train_only`, but no other takes its models; name it in their `model` column, or put it "
            "into their `group`"
        )
    for name in project.methods_of(row.dataset):
        _check_method(project, row, name, where)
    for source in (row.clean, row.noisy, row.reference, row.pair if row.pairing == "volume" else None):
        path = project.located(source).partition("#")[0] if source else ""
        if is_remote(path):
            continue  # looked at when it is read
        if path and (project.root / path).is_dir() and not path.endswith(".zarr"):
            raise MissingInputError(f"{where}: {path} is a folder; name its files by a pattern, such as {path}/*.tif")
        if path and path not in project.downloaded and not project.files(path):
            raise MissingInputError(f"{where}: no file {path}; it is neither on disk nor among the downloads")


def _check_method(project: Project, row: Dataset, name: str, where: str) -> None:
    """Refuse a method entry that lacks what it needs, or has an option that the dataset leaves without effect."""
    method, others = project.config.methods[name], "list other entries in its `methods` column"
    if isinstance(method, Auto):
        if row.model is not None:
            raise ConfigError(f"{where} takes its models from {row.model!r}, and has none for {name!r}; {others}")
        for one in method.among:
            _check_method(project, row, one, where)
        return
    if method.target == "clean" and row.clean is None and row.model is None:
        raise ConfigError(f"{where} has no clean volume, which {name!r} needs; {others}")
    if method.target == "pair" and not row.has_pair and row.model is None:
        raise ConfigError(
            f"{where} offers no pairs, which {name!r} needs; fill its `pair` column (a source, `thinning` "
            f"of photon counts, `repeats` or `interleaved`) or {others}"
        )
    if method.averages_pair and (row.pairing != "volume" or not row.has_pair):
        raise ConfigError(
            f"{where} has no second realization as a volume, which `both_directions` of {name!r} denoises; {others}"
        )
    for level in project.noise_of(row.dataset) if method.true_noise else ():
        fits = frozenset() if level == MEASURED else project.config.noise[level].likelihoods
        if method.true_noise not in fits:
            described = f"it is described by {listed(fits) or 'no likelihood'}"
            known = "its parameters are not known" if level == MEASURED else described
            raise ConfigError(
                f"{where}: {name!r} takes the parameters of noise as known, with `likelihood: "
                f"{method.true_noise}`; of {level!r} {known}"
            )
    if getattr(method, "planes", 0) and row.ndim == 2:
        raise ConfigError(f"{where} has `ndim` 2, where {name!r} sees no `planes`; set `ndim` 3 or {others}")


def _check_model(project: Project, row: Dataset, where: str) -> None:
    """Refuse a model that is not there, or not trained, or trained on other dimensions."""
    assert row.model is not None
    if row.train_only:
        raise ConfigError(f"{where} is `train_only`, but takes its models from {row.model!r}; one of the two")
    if "/" in row.model:
        for job in project.jobs_of(row):
            _check_given(project, project.model_folder(*job), job[2], row, where)
        return
    if not (others := project.members(row.model)):
        known = listed({other.trains for other in project.datasets.values() if other.trains})
        raise ConfigError(
            f"{where} takes its models from {row.model!r}; the sheet trains those of {known or 'no dataset'}, and "
            "the folder of a model has a `/` in it"
        )
    if others[0].ndim != row.ndim:
        raise ConfigError(f"{where} takes its models from {row.model!r}, which trains none of {row.ndim} dimensions")
    for what, needed, there in (
        ("noise level", project.noise_of(row.dataset), project.noise_of(others[0].dataset)),
        ("method entry", project.methods_of(row.dataset), project.methods_of(others[0].dataset)),
    ):
        if missing := [name for name in needed if name not in there]:
            raise ConfigError(f"{where}: {row.model!r} has no models for the {what} {listed(missing)}")


def _check_given(project: Project, folder: str, entry: str, row: Dataset, where: str) -> None:
    """Refuse a folder without a model, or with one of another method or other dimensions than are asked for."""
    for name in ("model.json", "model.safetensors"):
        if not (project.root / folder / name).is_file():
            raise MissingInputError(f"{where}: no {folder}/{name}, which its `model` column names")
    try:
        method, found = read_description(project.root / folder / "model.json")
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    name, ndim = project.config.methods[entry].name, found.get("ndim")
    if method.name != name or ndim != row.ndim:
        raise ConfigError(
            f"{where}: {folder} holds a model of {method.name} for {ndim} dimensions; needed {name} for {row.ndim}, as "
            f"the method entry {entry!r} and `ndim` say"
        )


def _check_group(project: Project, rows: list[Dataset]) -> None:
    """Refuse a group whose datasets cannot share a model."""
    first, where = rows[0], f"{project.config.datasets}: group {rows[0].group!r}"
    if first.group in project.datasets:
        raise ConfigError(f"{where} is the name of a dataset, too; products of both would lie in one folder")
    for row in rows[1:]:
        for what, one, other in (
            ("ndim", first.ndim, row.ndim),
            (
                "pair",
                (first.pairing, first.photon_gain, first.has_pair),
                (row.pairing, row.photon_gain, row.has_pair),
            ),
            ("noise", project.noise_of(first.dataset), project.noise_of(row.dataset)),
            ("methods", project.methods_of(first.dataset), project.methods_of(row.dataset)),
        ):
            if one != other:
                raise ConfigError(
                    f"{where}: {first.dataset!r} and {row.dataset!r} differ in `{what}`; datasets that share "
                    "their models have the same"
                )
