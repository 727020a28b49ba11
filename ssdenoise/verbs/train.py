"""Verbs of the stages that make models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.errors import ConfigError
from ssdenoise.verbs import SPEC, Gpu, Threads, no_file, stage


@stage()
def train(
    spec: Annotated[
        str,
        typer.Option(help=SPEC + 'At least: {"dataset": "v", "noise": "measured", "method": {"name": "n2v"}}'),
    ],
    noisy: Annotated[list[Path], typer.Option(help="Store of a noisy volume; repeated, to train on several.")],
    calibration: Annotated[list[Path], typer.Option(help="JSON file of `calibrate`; one for each noisy volume.")],
    output: Annotated[
        Path,
        typer.Option(help="Folder to write model.json, model.safetensors and history.csv to.", callback=no_file),
    ],
    target: Annotated[
        list[Path] | None,
        typer.Option(
            help="For n2n, store of a second realization, for n2c, of the clean volume; one for each noisy volume."
        ),
    ] = None,
    gpu: Gpu = 0,
    threads: Threads = 1,
) -> None:
    """Train a model on a noisy volume, or on several that are alike."""
    from ssdenoise.config.models import TrainSpec
    from ssdenoise.config.specs import parse_spec
    from ssdenoise.device import Device
    from ssdenoise.train import Scene, train

    if {len(calibration), len(target or noisy)} != {len(noisy)}:
        raise ConfigError(
            f"{len(noisy)} noisy volumes, {len(calibration)} calibrations and {len(target or ())} targets; needed one "
            "calibration, and one target or none, for each noisy volume"
        )
    scenes = [Scene(*paths) for paths in zip(noisy, calibration, *([target] if target else []), strict=True)]
    train(parse_spec(TrainSpec, spec), scenes, output, Device.granted(gpu, threads))


@stage()
def choose(
    spec: Annotated[str, typer.Option(help=SPEC + 'At least: {"entry": "best"}')],
    output: Annotated[Path, typer.Option(help="Folder to write the model and the choice to.", callback=no_file)],
    candidates: Annotated[
        list[str],
        typer.Argument(help="ENTRY=FOLDER=PROBE of each candidate: folder of its model, file that `probe` wrote."),
    ],
) -> None:
    """Choose the model with the least error, as it is told without a reference."""
    from ssdenoise.choose import choose
    from ssdenoise.config.specs import ChooseSpec, parse_spec

    named = {}
    for candidate in candidates:
        parts = candidate.split("=")
        if len(parts) != 3:
            raise typer.BadParameter(f"{candidate!r} is not ENTRY=FOLDER=PROBE")
        named[parts[0]] = Path(parts[1]), Path(parts[2])
    choose(parse_spec(ChooseSpec, spec), named, output)
