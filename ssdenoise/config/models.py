"""The configuration file and the sheet of datasets: what a project can ask for."""

from __future__ import annotations

import csv
import json
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from ssdenoise.config.specs import (
    Criterion,
    DenoisedDtype,
    Download,
    Name,
    Published,
    ReferenceFit,
    Situation,
    SsimWindow,
    Storage,
    Strict,
    VoxelSize,
    validated,
)
from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.methods import METHODS, Method
from ssdenoise.noise import Noise
from ssdenoise.provenance import listed


class Auto(Method):
    """Not a method: the best of other entries, chosen for each dataset and noise level without a reference."""

    trainable: ClassVar[bool] = True  # as some of the others may be

    name: Literal["auto"]
    among: tuple[Name, ...] = Field(min_length=1, description="Method entries to choose from; all of them are trained.")
    criterion: Criterion = Field(
        "risk",
        description="What they are chosen by: `risk`, an unbiased estimate of the squared error, which trusts the "
        "calibrated noise; `blind_error`, the error at hidden voxels; `thinned_error`, of photon counts, the error "
        "against some of them that are held back.",
    )


if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, [*METHODS.values(), Auto]), Field(discriminator="name")]

T = TypeVar("T")

#: Stands in paths and tables for noise that was measured, not synthesized.
MEASURED = "measured"

#: Stands in tables for the noisy input among the method entries.
NOISY = "noisy"


#: Where pairs come from: a second volume, or the noisy volume itself, by thinning its photons or from its time points.
Pairing = Literal["volume", "thinning", "repeats", "interleaved"]


class TrainSpec(Strict):
    """Options of `train`."""

    dataset: str
    noise: str
    seed: int = 0
    ndim: Literal[2, 3] = 2
    pairing: Pairing = "volume"
    photon_gain: Annotated[float, Field(gt=0)] | Literal["calibrated"] = 1.0
    method: AnyMethod


class Scoring(Strict):
    """How estimates are compared with the clean volume or the reference."""

    data_range: Annotated[float, Field(gt=0)] | Literal["reference"] = Field(
        "reference",
        description="Intensity range of PSNR and SSIM: a number, or `reference`: maximum minus minimum of the clean "
        "volume or the reference. Stated in the tables.",
    )
    average: Literal["error", "psnr"] = Field(
        "error",
        description="What is averaged over planes: `error`, so that PSNR is that of the whole volume, or `psnr`, as is "
        "done with collections of pictures.",
    )
    bootstrap_block: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Planes per run in the block bootstrap of the intervals; `auto`: as many as their correlation asks "
        "for.",
    )
    baseline: Name | None = Field(
        None,
        description="Method entry that the others are compared with, plane by plane; empty: the best of each dataset "
        "and noise level.",
    )
    ssim_window: SsimWindow = Field(
        "uniform",
        description="Window of SSIM: `uniform`, 7 voxels a side, sample covariance; `gaussian`, standard deviation "
        "1.5, 11 voxels a side, as in the paper.",
    )
    ssim_ndim: Literal[2, 3] = Field(2, description="2: SSIM of planes; 3: of volumes, with a window in Z too.")


class Dataset(Strict):
    """One row of the sheet."""

    dataset: Name = Field(description="Name; letters, digits, `_`, `-` and single dots.")
    clean: str | None = Field(None, description="Source of the clean volume (benchmark).")
    noisy: str | None = Field(None, description="Source of the noisy volume (reference, archive).")
    reference: str | None = Field(None, description="Source of the reference: averaged or repeated frames.")
    reference_fit: ReferenceFit = Field(
        "none",
        description="`affine`: the reference has other units, or was stretched plane by plane; a denoised plane is "
        "mapped to it by the gain and offset of least squares before it is scored.",
    )
    pair: str | None = Field(
        None,
        description="Where the second realization comes from: a source; `thinning` of photon counts (`thinning=2.5`, "
        "`thinning=calibrated` where a photon is not one unit); `repeats`: the time points are the same scene; "
        "`interleaved`: neighbouring time points nearly are.",
    )
    group: Name | None = Field(
        None,
        description="Datasets of one group share their models, each trained on all of them: for acquisitions that are "
        "alike, of as many channels and with the same noise.",
    )
    model: str | None = Field(
        None,
        description="What denoises this dataset, for which none is trained: a dataset or group, whose models are taken "
        "by noise level, method entry and seed; or the folder of a model, a path with a `/`, in which `{noise}`, "
        "`{method}` and `{seed}` stand for these.",
    )
    train_only: bool = Field(
        False, description="`true`: models are trained for other datasets, but this one is neither denoised nor scored."
    )
    axes: str | None = Field(None, description="Axes of the sources' arrays, where the files do not say: e.g. `ZYX`.")
    ndim: Literal[2, 3] = Field(2, description="2: planes are denoised one by one; 3: volumes.")
    slabs: int = Field(1, ge=1, description="Jobs that one volume's inference is spread over.")
    methods: tuple[Name, ...] | None = Field(None, description="Method entries, comma-separated; empty: all.")
    noise: tuple[Name, ...] | None = Field(None, description="Noise levels, comma-separated; empty: all (benchmark).")
    denoised_dtype: DenoisedDtype = Field(
        "same",
        description="`same`: the denoised volume keeps the noisy volume's dtype; integers are rounded and clipped.",
    )
    empty_below: float | None = Field(
        None,
        description="Shards whose voxels are all below this intensity, in all channels, are copied, not denoised: the "
        "empty corners of stitched or embedded samples. Their number of voxels is in the commit record.",
    )
    data_range: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Of PSNR and SSIM, for this dataset instead of `scoring.data_range`."
    )
    voxel_size_um: VoxelSize | None = Field(None, description="Z,Y,X in micrometres, where the file does not say.")

    @field_validator("methods", "noise", "voxel_size_um", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("methods", "noise")
    @classmethod
    def _once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _unique(names) if names else names

    @field_validator("empty_below", "data_range", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value

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
        if self.reference is None and self.reference_fit != "none":
            raise ValueError("`reference_fit` is for datasets with a reference; this one has none")
        if self.group is not None and self.model is not None:
            raise ValueError("`group` shares the training of models, `model` takes finished ones; one of the two")
        if self.clean is None and self.noise is not None:
            raise ValueError("`noise` is for datasets with a clean volume; this one has its own")
        return self

    @property
    def situation(self) -> Situation:
        """What the dataset has, hence how it is scored."""
        if self.clean is not None:
            return "benchmark"
        return "reference" if self.reference is not None else "archive"

    @model_validator(mode="after")
    def _pair_is_clear(self) -> Dataset:
        _, equals, gain = (self.pair or "").partition("=")
        if self.pairing in ("repeats", "interleaved") and equals:
            raise ValueError(f"`pair` is {self.pair!r}; nothing comes after `{self.pairing}`")
        try:
            usable = gain == "calibrated" or 0 < float(gain) < float("inf")
        except ValueError:
            usable = False
        if self.pairing == "thinning" and equals and not usable:
            raise ValueError(f"`pair` is {self.pair!r}; after `thinning=` comes a gain above 0, or `calibrated`")
        return self

    @property
    def trains(self) -> str | None:
        """Name of the models that are trained on this dataset; None if it takes others."""
        return None if self.model else self.group or self.dataset

    @property
    def pairing(self) -> Pairing:
        """What `pair` asks for."""
        kind = (self.pair or "").partition("=")[0]
        return kind if kind in ("thinning", "repeats", "interleaved") else "volume"  # type: ignore[return-value]

    @property
    def photon_gain(self) -> float | Literal["calibrated"]:
        """Intensity units per photon, for thinning."""
        gain = (self.pair or "").partition("=")[2] if self.pairing == "thinning" else ""
        return "calibrated" if gain == "calibrated" else float(gain or 1)

    @property
    def has_pair(self) -> bool:
        """Whether a second realization can be had."""
        return self.clean is not None or self.pair is not None


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    if twice := {value for value in values if values.count(value) > 1}:
        raise ValueError(f"{listed(map(str, twice))} stands there more than once")
    return values


class Config(Strict):
    """A project: `config/config.yaml`."""

    run: Name = Field(description="Name of the run; products go to `results/{run}`.")
    datasets: str = Field("config/datasets.tsv", description="Path of the sheet.")
    data: str = Field("", description="Folder that relative paths of sources start from; empty: the project's.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1, description="One model per seed.")
    noise_seed: int = Field(0, ge=0, description="Seed of the synthesized noise.")
    downloads: dict[Name, Download] = Field({}, description="Files to fetch before anything else.")
    noise: dict[Name, Noise] = Field({}, description="Noise levels for datasets with a clean volume.")
    methods: dict[Name, AnyMethod] = Field(min_length=1, description="Method entries: a method with its options.")
    storage: Storage = Storage()
    scoring: Scoring = Scoring()
    published: tuple[Published, ...] = Field((), description="Figures of papers, which the tables show beside ours.")

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _unique(seeds)

    @model_validator(mode="after")
    def _names_are_free(self) -> Config:
        for reserved, names, what in ((MEASURED, self.noise, "noise level"), (NOISY, self.methods, "method entry")):
            if reserved in names:
                raise ValueError(f"{reserved!r} is no name for a {what}: paths and tables use it themselves")
        _unique(tuple(Path(member).name for download in self.downloads.values() for member in download.members))
        return self


def read_sheet(path: Path) -> list[Dataset]:
    """Rows of a tab-separated sheet; empty cells are absent, lines that begin with # are comments."""
    if not path.is_file():
        raise MissingInputError(f"no sheet {path}; the key `datasets` of the config names it")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark before the first column's name
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not in UTF-8 ({error}); save it as such") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and "\t" not in lines[0]:
        raise ConfigError(f"{path}: the header has a single column, {lines[0].strip()!r}; separate cells by tabs")
    rows = []
    for number, cells in enumerate(csv.DictReader(lines, delimiter="\t"), 1):
        if "\t" not in lines[number]:
            raise ConfigError(f"{path}: row {number} has a single cell, {lines[number]!r}; separate cells by tabs")
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
