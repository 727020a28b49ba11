"""Verbs of the stages that score and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.verbs import SPEC, Calibration, Gpu, Model, Store, Threads, Truth, no_file, stage


@stage()
def score(
    spec: Annotated[
        str,
        typer.Option(
            help=SPEC + 'At least: {"dataset": "v", "situation": "archive", "noise": "measured", "method": "n2v", '
            '"seed": 0, "data_range": "reference"}; `situation`: benchmark, reference or archive.'
        ),
    ],
    noisy: Store,
    denoised: Annotated[Path, typer.Option(help="Store of the denoised volume.")],
    calibration: Calibration,
    output: Annotated[Path, typer.Option(help="Parquet file to write, a row for each plane.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the model, for what it cost to train.")] = None,
    truth: Truth = None,
    pair: Annotated[
        Path | None,
        typer.Option(help="Store of a second realization, on which the denoised volume does not depend."),
    ] = None,
    uncertainty: Annotated[Path | None, typer.Option(help="Store of the denoised volume's standard deviation.")] = None,
    sibling: Annotated[
        Path | None, typer.Option(help="Store of the volume as another seed's model denoises it.")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Score a denoised volume, plane by plane."""
    from ssdenoise.config.specs import ScoreSpec, parse_spec
    from ssdenoise.score import score

    options = parse_spec(ScoreSpec, spec)
    others = {"pair": pair, "uncertainty": uncertainty, "sibling": sibling}
    score(options, noisy, denoised, calibration, model, truth, output, threads, **others)


@stage()
def probe(
    spec: Annotated[
        str, typer.Option(help=SPEC + 'At least: {"dataset": "v", "noise": "measured", "method": "n2v", "seed": 0}')
    ],
    noisy: Store,
    calibration: Calibration,
    model: Model,
    output: Annotated[Path, typer.Option(help="Parquet file to write, a row for each part of the sample.")],
    repeat: Annotated[
        Path | None, typer.Option(help="Store of another realization, for the variance over repeats of the noise.")
    ] = None,
    gpu: Gpu = 0,
    threads: Threads = 1,
) -> None:
    """Score a model without a reference, by what it makes of altered samples of its input."""
    from ssdenoise.config.specs import ProbeSpec, parse_spec
    from ssdenoise.device import Device
    from ssdenoise.probe import probe

    device = Device.granted(gpu, threads)
    probe(parse_spec(ProbeSpec, spec), noisy, calibration, model, output, device, repeat=repeat)


@stage()
def compare(
    spec: Annotated[str, typer.Option(help=SPEC + 'At least: {"run": "demo", "average": "error"}')],
    output: Annotated[Path, typer.Option(help="Folder to write comparison.csv and so on to.", callback=no_file)],
    scores: Annotated[
        list[Path] | None,
        typer.Argument(help="Parquet files that `score` wrote; without any, those in the folder that `spec` expects."),
    ] = None,
    probe: Annotated[list[Path] | None, typer.Option(help="Parquet file that `probe` wrote; any number.")] = None,
) -> None:
    """Gather the scores of a run into its tables."""
    from ssdenoise.compare import compare, files_of
    from ssdenoise.config.specs import CompareSpec, parse_spec

    options = parse_spec(CompareSpec, spec)
    if scores:
        compare(options, scores, output, probes=probe or ())
    else:
        compare(options, *files_of(options, output))
