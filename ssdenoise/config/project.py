"""A checked project: configuration and sheet together, and what the Snakemake rules ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssdenoise.config.models import MEASURED, Config, Dataset, TrainSpec, read_sheet
from ssdenoise.config.specs import (
    CalibrateSpec,
    CompareSpec,
    DenoiseSpec,
    FetchSpec,
    IngestSpec,
    ScoreSpec,
    SynthesizeSpec,
    validated,
)
from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.noise import likelihoods
from ssdenoise.provenance import code_hash, listed, zarr_metadata


class Project:
    """A checked configuration with its sheet; what the Snakemake rules ask.

    Parameters
    ----------
    config : mapping
        Content of the YAML file.
    root : Path
        Folder that relative paths start from.
    """

    def __init__(self, config: dict[str, Any], root: Path) -> None:
        self.config = validated(Config, config, "config")
        self.root = root
        self._codes: dict[tuple[str, str | None], str] = {}
        self.datasets = {row.dataset: row for row in read_sheet(root / self.config.datasets)}
        for row in self.datasets.values():
            self._check(row)
        known = {job[:3] for job in self.jobs()}
        for one in self.config.published:
            if (one.dataset, one.noise, one.method) not in known:
                raise ConfigError(f"config: published: no {one.method!r} runs on {one.dataset!r} at {one.noise!r}")

    def _check(self, row: Dataset) -> None:
        where = f"{self.config.datasets}: dataset {row.dataset!r}"
        for kind, names, known in (
            ("method entry", row.methods, self.config.methods),
            ("noise level", row.noise, self.config.noise),
        ):
            for name in names or ():
                if name not in known:
                    raise ConfigError(f"{where} names the {kind} {name!r}; the config has {listed(known) or 'none'}")
        if row.clean is not None and not self.noise_of(row.dataset):
            raise ConfigError(f"{where} is clean and the config has no noise levels; add one under `noise:`")
        if row.model is not None:
            self._check_model(row, where)
        if row.train_only and all(other.model != row.dataset for other in self.datasets.values()):
            raise ConfigError(
                f"{where} is `train_only`, but no other takes its models; name it in their `model` column"
            )
        for name in self.methods_of(row.dataset):
            self._check_method(row, name, where)
        for source in (row.clean, row.noisy, row.reference, row.pair if row.pairing == "volume" else None):
            path = self.located(source).partition("#")[0] if source else ""
            if path and (self.root / path).is_dir() and not path.endswith(".zarr"):
                raise MissingInputError(
                    f"{where}: {path} is a folder; name its files by a pattern, such as {path}/*.tif"
                )
            if path and path not in self.downloaded and not self.files(path):
                raise MissingInputError(f"{where}: no file {path}; it is neither on disk nor among the downloads")

    def _check_method(self, row: Dataset, name: str, where: str) -> None:
        """Refuse a method entry that lacks what it needs, or has an option that the dataset leaves without effect."""
        method, others = self.config.methods[name], "list other entries in its `methods` column"
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
        for level in self.noise_of(row.dataset) if method.true_noise else ():
            true = None if level == MEASURED else self.config.noise[level].model()
            if method.true_noise not in (fits := likelihoods(true)):
                known = f"it is described by {listed(fits)}" if fits else "its parameters are not known"
                raise ConfigError(
                    f"{where}: {name!r} takes the parameters of noise as known, with `likelihood: "
                    f"{method.true_noise}`; of {level!r} {known}"
                )
        if getattr(method, "planes", 0) and row.ndim == 2:
            raise ConfigError(f"{where} has `ndim` 2, where {name!r} sees no `planes`; set `ndim` 3 or {others}")

    def _check_model(self, row: Dataset, where: str) -> None:
        """Refuse a model that is not trained, or trained on other dimensions."""
        assert row.model is not None
        if (other := self.datasets.get(row.model)) is None:
            raise ConfigError(f"{where} takes its models from {row.model!r}; the sheet has {listed(self.datasets)}")
        if row.train_only:
            raise ConfigError(f"{where} is `train_only`, but takes its models from {row.model!r}; one of the two")
        if other.model is not None or other.ndim != row.ndim:
            raise ConfigError(
                f"{where} takes its models from {row.model!r}, which trains none of {row.ndim} dimensions"
            )
        for what, needed, there in (
            ("noise level", self.noise_of(row.dataset), self.noise_of(row.model)),
            ("method entry", self.methods_of(row.dataset), self.methods_of(row.model)),
        ):
            if missing := [name for name in needed if name not in there]:
                raise ConfigError(f"{where}: {row.model!r} has no models for the {what} {listed(missing)}")

    def trained_on(self, dataset: str) -> str:
        """The dataset whose models denoise a dataset."""
        return self.datasets[dataset].model or dataset

    def located(self, source: str) -> str:
        """A source with its path from the project's folder: downloads are there, others under `data`."""
        if source.partition("#")[0] in self.downloaded or not self.config.data:
            return source
        return str(Path(self.config.data) / source)

    def files(self, path: str) -> list[str]:
        """Files that are there: one, or those that a pattern fits; of a Zarr, what says that it is one."""
        pattern = self.root / path
        if "*" not in pattern.name:
            if pattern.is_dir():
                return [str(Path(path) / file.name) for file in zarr_metadata(pattern)[:1]]
            return [path] if pattern.exists() else []
        return [str(Path(path).parent / found.name) for found in sorted(pattern.parent.glob(pattern.name))]

    @property
    def downloaded(self) -> dict[str, FetchSpec]:
        """Path of each downloaded file, and how to get it."""
        return {
            f"results/downloads/{Path(member).name}": FetchSpec(download=download, member=member)
            for download in self.config.downloads.values()
            for member in download.members
        }

    def methods_of(self, dataset: str) -> tuple[str, ...]:
        """Method entries that run on a dataset."""
        return self.datasets[dataset].methods or tuple(self.config.methods)

    def noise_of(self, dataset: str) -> tuple[str, ...]:
        """Noise levels of a dataset."""
        row = self.datasets[dataset]
        return (MEASURED,) if row.clean is None else row.noise or tuple(self.config.noise)

    def scenes(self) -> list[tuple[str, str]]:
        """Dataset and noise level of each volume that is denoised and scored."""
        rows = [row.dataset for row in self.datasets.values() if not row.train_only]
        return [(dataset, noise) for dataset in rows for noise in self.noise_of(dataset)]

    def jobs(self) -> list[tuple[str, str, str, int]]:
        """Dataset, noise level, method entry and seed of each score; methods that draw no lots run for one seed."""
        return [
            (dataset, noise, method, seed)
            for dataset, noise in self.scenes()
            for method in self.methods_of(dataset)
            for seed in self.config.seeds[: None if self.config.methods[method].trainable else 1]
        ]

    def ingest(self, dataset: str, role: str) -> IngestSpec:
        """Options for the volume that a dataset has under a column of the sheet."""
        row = self.datasets[dataset]
        return IngestSpec(
            name=f"{dataset} {role}",
            source=self.located(getattr(row, role)),
            axes=row.axes,
            voxel_size_um=row.voxel_size_um,
            storage=self.config.storage,
        )

    def synthesize(self, dataset: str, noise: str, realization: int) -> SynthesizeSpec:
        """Options for one realization."""
        key = (self.config.noise_seed, dataset, noise, realization)
        return SynthesizeSpec(key=key, noise=self.config.noise[noise], storage=self.config.storage)

    def calibrate(self, dataset: str) -> CalibrateSpec:
        """Options for the calibration."""
        return CalibrateSpec(repeats=self.datasets[dataset].pairing == "repeats")

    def train(self, dataset: str, noise: str, method: str, seed: int) -> TrainSpec:
        """Options for one model."""
        row = self.datasets[dataset]
        return TrainSpec(
            dataset=dataset,
            noise=noise,
            seed=seed,
            ndim=row.ndim,
            pairing=row.pairing if self.config.methods[method].target == "pair" else "volume",
            photon_gain=row.photon_gain if self.config.methods[method].target == "pair" else 1.0,
            method=self.config.methods[method],
        )

    def denoise(self, dataset: str) -> DenoiseSpec:
        """Options for inference on a dataset."""
        return DenoiseSpec(denoised_dtype=self.datasets[dataset].denoised_dtype)

    def score(self, dataset: str, noise: str, method: str, seed: int) -> ScoreSpec:
        """Options for the scores of one denoised volume."""
        return ScoreSpec(
            dataset=dataset,
            situation=self.datasets[dataset].situation,
            noise=noise,
            method=method,
            seed=seed,
            data_range=self.config.scoring.data_range,
            reference_fit=self.datasets[dataset].reference_fit,
        )

    def compare(self) -> CompareSpec:
        """Options for the tables."""
        return CompareSpec(
            run=self.config.run,
            average=self.config.scoring.average,
            bootstrap_block=self.config.scoring.bootstrap_block,
            published=self.config.published,
        )

    def code(self, stage: str, entry: str | None = None) -> str:
        """Hash of the code that a stage runs, for a method entry where there is one."""
        key = stage, self.config.methods[entry].name if entry else None
        if key not in self._codes:  # the rules ask once for each job, and ten thousand jobs run the same few
            self._codes[key] = code_hash(*key)
        return self._codes[key]
