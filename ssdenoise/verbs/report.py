"""Verbs of the stages that show what a run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.verbs import SPEC, Calibration, Store, no_file, stage


@stage()
def figures(
    title: Annotated[str, typer.Option(help="DATASET/NOISE, as they stand in the comparison.")],
    noisy: Store,
    calibration: Calibration,
    output: Annotated[Path, typer.Option(help="Folder to write images.png and so on to.", callback=no_file)],
    entries: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FOLDER of each method entry, the folder that `denoise` and `score` wrote; NAME=FOLDER=MODEL "
            "where the model's folder is another."
        ),
    ],
    truth: Annotated[
        Path | None, typer.Option(help="Store of the clean volume or the reference, to show it, too.")
    ] = None,
    fitted: Annotated[
        bool, typer.Option("--fitted", help="The reference is in other units: draw nothing on one axis with it.")
    ] = False,
) -> None:
    """Draw the figures of one dataset at one noise level."""
    from ssdenoise.figures import figures

    folders, models = {}, {}
    for entry in entries:
        name, *paths = entry.split("=")
        if len(paths) not in (1, 2):
            raise typer.BadParameter(f"{entry!r} is neither NAME=FOLDER nor NAME=FOLDER=MODEL")
        folders[name], models[name] = Path(paths[0]), Path(paths[-1])
    figures(title, noisy, calibration, folders, truth, output, models=models, fitted=fitted)


@stage()
def report(
    spec: Annotated[
        str,
        typer.Option(
            help=SPEC + 'At least: {"run": "demo", "expected": [{"datasets": ["v"], "situation": "archive", "noise": '
            '["measured"], "jobs": [["n2v", 0]]}]}; `jobs` are a method entry and a seed each.'
        ),
    ],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    output: Annotated[Path, typer.Option(help="HTML file to write.")],
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="The run did not complete, which products of an earlier one may hide.")
    ] = False,
) -> None:
    """Write a page of all that a run found, and of why the rest is missing."""
    from ssdenoise.config.specs import ReportSpec, parse_spec
    from ssdenoise.report import report

    report(parse_spec(ReportSpec, spec), run, output, unfinished=unfinished)
