"""A checked project: configuration and sheet together, and what the Snakemake rules ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ssdenoise.config.checks import check_datasets
from ssdenoise.config.models import MEASURED, Auto, Config, Dataset, TrainSpec, read_sheet
from ssdenoise.config.specs import (
    CalibrateSpec,
    ChooseSpec,
    CompareSpec,
    DenoiseSpec,
    Expected,
    FetchSpec,
    IngestSpec,
    ProbeSpec,
    ReportSpec,
    ScoreSpec,
    SynthesizeSpec,
    validated,
)
from ssdenoise.errors import ConfigError
from ssdenoise.provenance import code_hash, companions, digest, zarr_metadata
from ssdenoise.remote import is_remote


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
        check_datasets(self)
        known = {job[:3] for job in self.jobs()}
        for one in self.config.published:
            if (one.dataset, one.noise, one.method) not in known:
                raise ConfigError(f"config: published: no {one.method!r} runs on {one.dataset!r} at {one.noise!r}")

    @cached_property
    def _members(self) -> dict[str, list[Dataset]]:
        """Datasets by what is trained on them: rules ask several times for each job, too often to scan the sheet."""
        found: dict[str, list[Dataset]] = {}
        for row in self.datasets.values():
            if row.trains:
                found.setdefault(row.trains, []).append(row)
        # another order of the sheet trains nothing anew
        return {trained: sorted(rows, key=lambda row: row.dataset) for trained, rows in found.items()}

    def members(self, trained: str) -> list[Dataset]:
        """The datasets that the models of a dataset or a group are trained on; none if it trains none."""
        return self._members.get(trained, [])

    def trained(self) -> list[str]:
        """The datasets and groups that models are trained for."""
        return list(self._members)

    def unseen(self, dataset: str, method: str | None) -> int | None:
        """Number of a realization that no model of a method entry has seen; None where there is none.

        Of a benchmark a third is drawn, the same for all methods; without an entry: of the noisy volume itself.
        """
        row = self.datasets[dataset]
        if row.clean is not None:
            return 2
        if row.pairing != "volume" or row.pair is None:
            return None
        entry = self.config.methods[method] if method else None
        used = entry.among if isinstance(entry, Auto) else (method,) if method else ()
        return None if any(self.config.methods[one].target == "pair" for one in used) else 1

    def model_folder(self, dataset: str, noise: str, method: str, seed: int) -> str:
        """Folder of the model that denoises a dataset."""
        row = self.datasets[dataset]
        if isinstance(self.config.methods[method], Auto):  # each dataset has its own choice
            return f"results/{self.config.run}/{dataset}/{noise}/{method}/seed-{seed}"
        if row.model and "/" in row.model:
            try:
                return str(Path(row.model.format(noise=noise, method=method, seed=seed)))
            except (KeyError, IndexError, ValueError):
                raise ConfigError(
                    f"{self.config.datasets}: dataset {dataset!r}: `model` is {row.model!r}; in braces may stand "
                    "`noise`, `method` and `seed`"
                ) from None
        return f"results/{self.config.run}/{row.model or row.trains}/{noise}/{method}/seed-{seed}"

    def located(self, source: str) -> str:
        """A source, its path from the project's folder: downloads are there, others under `data`; URLs as they are."""
        if source.partition("#")[0] in self.downloaded or not self.config.data or is_remote(source):
            return source
        return str(Path(self.config.data) / source)

    def inputs(self, path: str) -> list[str]:
        """What a volume's ingest waits for and depends on: files, also those to be downloaded; of a URL nothing."""
        return [] if is_remote(path) else self.files(path) or [path]

    def files(self, path: str) -> list[str]:
        """Files that are there: one and its companions, or those of a pattern; of a Zarr, what says that it is one."""
        pattern = self.root / path
        if "*" not in pattern.name:
            if pattern.is_dir():
                return [str(Path(path) / file.name) for file in zarr_metadata(pattern)[:1]]
            inside = [str(Path(path).parent / file.relative_to(pattern.parent)) for file in companions(pattern)]
            return [path, *inside] if pattern.exists() else []
        return [str(Path(path).parent / found.name) for found in sorted(pattern.parent.glob(pattern.name))]

    @cached_property
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

    def candidates(self, dataset: str, noise: str, method: str, seed: int) -> list[tuple[str, str, str]]:
        """Method entry, model folder and probe of each model that an `auto` entry chooses from."""
        auto = self.config.methods[method]
        assert isinstance(auto, Auto)
        seeds = {one: seed if self.config.methods[one].trainable else self.config.seeds[0] for one in auto.among}
        return [
            (
                one,
                self.model_folder(dataset, noise, one, seeds[one]),
                f"results/{self.config.run}/{dataset}/{noise}/{one}/seed-{seeds[one]}/probe.parquet",
            )
            for one in auto.among
        ]

    def jobs(self) -> list[tuple[str, str, str, int]]:
        """Dataset, noise level, method entry and seed of each score; methods that draw no lots run for one seed."""
        return [job for row in self.datasets.values() if not row.train_only for job in self.jobs_of(row)]

    def jobs_of(self, row: Dataset) -> list[tuple[str, str, str, int]]:
        """The jobs of one dataset."""
        return [
            (row.dataset, noise, method, seed)
            for noise in self.noise_of(row.dataset)
            for method in self.methods_of(row.dataset)
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

    def train(self, trained: str, noise: str, method: str, seed: int) -> TrainSpec:
        """Options for one model of a dataset or a group."""
        row = self.members(trained)[0]
        needs_pair = self.config.methods[method].target == "pair"
        return TrainSpec(
            dataset=trained,
            noise=noise,
            seed=seed,
            ndim=row.ndim,
            pairing=row.pairing if needs_pair else "volume",
            photon_gain=row.photon_gain if needs_pair else 1.0,
            method=self.config.methods[method],
        )

    def denoise(self, dataset: str, method: str) -> DenoiseSpec:
        """Options for inference on a dataset."""
        row = self.datasets[dataset]
        # which method is chosen is not known before, nor whether it states an uncertainty
        uncertainty = not isinstance(self.config.methods[method], Auto)
        return DenoiseSpec(denoised_dtype=row.denoised_dtype, empty_below=row.empty_below, uncertainty=uncertainty)

    def score(self, dataset: str, noise: str, method: str, seed: int) -> ScoreSpec:
        """Options for the scores of one denoised volume."""
        scoring = self.config.scoring
        return ScoreSpec(
            dataset=dataset,
            situation=self.datasets[dataset].situation,
            noise=noise,
            method=method,
            seed=seed,
            data_range=self.datasets[dataset].data_range or scoring.data_range,
            reference_fit=self.datasets[dataset].reference_fit,
            ssim_window=scoring.ssim_window,
            ssim_ndim=scoring.ssim_ndim,
            repeats=self.datasets[dataset].pairing == "repeats",
        )

    def probe(self, dataset: str, noise: str, method: str, seed: int) -> ProbeSpec:
        """Options for the scores of one model without a reference."""
        return ProbeSpec(dataset=dataset, noise=noise, method=method, seed=seed)

    def choose(self, method: str) -> ChooseSpec:
        """Options for a choice among models."""
        auto = self.config.methods[method]
        assert isinstance(auto, Auto)
        return ChooseSpec(entry=method, criterion=auto.criterion)

    def compare(self) -> CompareSpec:
        """Options for the tables."""
        scoring = self.config.scoring
        return CompareSpec(
            run=self.config.run,
            expected=self.expected(),
            average=scoring.average,
            bootstrap_block=scoring.bootstrap_block,
            baseline=scoring.baseline,
            ssim_window=scoring.ssim_window,
            ssim_ndim=scoring.ssim_ndim,
            published=self.config.published,
        )

    def expected(self) -> tuple[Expected, ...]:
        """What a run makes; datasets that are alike share an entry, so that commands stay short."""
        alike: dict[Expected, list[str]] = {}
        for row in self.datasets.values():
            if not row.train_only:
                found = Expected(
                    datasets=(),
                    situation=row.situation,
                    noise=self.noise_of(row.dataset),
                    jobs=tuple(dict.fromkeys((method, seed) for *_, method, seed in self.jobs_of(row))),
                    reference_fit=row.reference_fit,
                )
                alike.setdefault(found, []).append(row.dataset)
        return tuple(one.model_copy(update={"datasets": tuple(names)}) for one, names in alike.items())

    def report(self, figures: Mapping[str, str], commands: Sequence[str]) -> ReportSpec:
        """Options for the page of the run."""
        trained = {row.dataset: row.model or row.trains or "" for row in self.datasets.values()}
        sources = {row.dataset: (row.clean, row.noisy, row.reference, row.pair) for row in self.datasets.values()}
        fetched = {
            dataset: tuple(dict.fromkeys(Path(path).name for path in paths if path in self.downloaded))
            for dataset, texts in sources.items()
            if (paths := [(text or "").partition("#")[0] for text in texts])
        }
        return ReportSpec(
            run=self.config.run,
            expected=self.expected(),
            trained={dataset: name for dataset, name in trained.items() if "/" not in name and name != dataset},
            downloads={dataset: names for dataset, names in fetched.items() if names},
            figures=tuple(figures.items()),
            commands=tuple(commands),
        )

    def code(self, stage: str, entry: str | None = None) -> str:
        """Hash of the code that a stage runs, for a method entry where there is one."""
        method = self.config.methods[entry] if entry else None
        if isinstance(method, Auto):
            return digest(*(self.code(stage, one) for one in method.among))
        key = stage, method.name if method else None
        if key not in self._codes:  # the rules ask once for each job, and ten thousand jobs run the same few
            self._codes[key] = code_hash(*key)
        return self._codes[key]
