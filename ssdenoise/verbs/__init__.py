"""Verbs of the command line, and what their options share; a stage, its verb and its rule carry the same word."""

from __future__ import annotations

import functools
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.errors import ConfigError, SsdenoiseError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ssdenoise {version('ssdenoise')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Denoise microscopy volumes without clean training data. Snakemake runs its stages; each also runs alone."""


STAGES = "Stages of a run, in their order"
stage = functools.partial(app.command, rich_help_panel=STAGES)
tool = functools.partial(app.command, rich_help_panel="Before and after a run")

# The modules of the stages are imported inside the verbs: `--help` must not wait for torch.


def told(error: SsdenoiseError) -> int:
    """Print an error as one line; its exit code."""
    print(f"ssdenoise: {error}", file=sys.stderr)
    return 1 if isinstance(error, RuntimeError) else 2


def folder_of(store: Path) -> Path:
    """A store's folder, from itself or its zarr.json."""
    return store.parent if store.name == "zarr.json" else store


def no_file(output: Path) -> Path:
    """Refuse to write a folder where a file is."""
    folder = folder_of(output)
    for path in (folder, *folder.parents):
        if path.is_file():
            raise ConfigError(f"--output {output}: {path} is a file; name a folder, or delete the file")
    return output


SPEC = "Options as JSON; `snakemake --dry-run --printshellcmds` shows those of a run, complete. "
Spec = Annotated[str, typer.Option(help=SPEC)]
OutputStore = Annotated[Path, typer.Option(help="Store to write, a folder NAME.ome.zarr.", callback=no_file)]
Store = Annotated[Path, typer.Option(help="Store of the noisy volume, a folder NAME.ome.zarr.")]
Model = Annotated[Path, typer.Option(help="Folder of the model, which `train` wrote.")]
Calibration = Annotated[Path, typer.Option(help="JSON file that `calibrate` wrote.")]
Truth = Annotated[
    Path | None,
    typer.Option(help="Store of the clean volume or the reference; without it, scores that need neither."),
]
Gpu = Annotated[int, typer.Option(min=0, help="GPUs to use, 0 or 1; 0: the CPU.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads to use.")]
ConfigFile = Annotated[Path, typer.Option(help="Configuration of the run, a YAML file.")]
CONFIG = Path("config/config.yaml")
Changes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Takes the place of a key of it, such as `data=FOLDER`; repeated, for several."
    ),
]
