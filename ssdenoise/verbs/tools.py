"""Verbs for before and after a run."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.errors import ConfigError, SsdenoiseError
from ssdenoise.verbs import CONFIG, Changes, ConfigFile, Model, Threads, folder_of, told, tool


@tool()
def export(
    model: Model,
    noisy: Annotated[Path, typer.Option(help="Store of a volume to take the package's sample from.")],
    output: Annotated[Path, typer.Option(help="Package to write: a file that ends in .zip, or a folder.")],
    author: Annotated[list[str], typer.Option(help="Who made the model; repeated, for several.")],
    license: Annotated[str, typer.Option(help="Licence of the model, as SPDX identifier, such as CC-BY-4.0.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; the default says method and dataset.")] = None,
) -> None:
    """Write a model as a BioImage Model Zoo package with an ONNX network."""
    from ssdenoise.export import export

    export(model, noisy, output, authors=author, license=license, name=name)


@tool()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; an empty one may be there.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, or patterns in quotes for planes, each a dataset of the sheet; after `#` what to take of it."
        ),
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Axes of their arrays, such as ZYX, where the files do not say.")
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_URL",
            help="Checkout whose rules to use, or a tag or commit of a repository, such as "
            "https://github.com/OWNER/NAME@TAG. The default is the checkout that this command runs from.",
        ),
    ] = None,
) -> None:
    """Make a project's folder: a Snakefile that uses these rules, configuration, sheet and profiles."""
    from ssdenoise.init import init

    sys.stdout.write(init(folder, sources or (), axes=axes, workflow=workflow))


@tool()
def inspect(
    source: Annotated[
        list[str], typer.Argument(help="A file, or a pattern in quotes; after `#` what to take of it, as in the sheet.")
    ],
    axes: Annotated[
        str | None, typer.Option(help="Axes of its array, such as ZYX, where the file does not say.")
    ] = None,
) -> None:
    """Tell what a file holds, what its noise is like, and its line for the sheet."""
    from ssdenoise.inspect import inspect

    if len(source) > 1:
        pattern = f"{Path(source[0]).parent / '*'}{Path(source[0]).suffix}"
        raise ConfigError(
            f"found {len(source)} files, {source[0]} to {source[-1]}; inspect takes one, or a pattern in quotes, so "
            f"that the shell leaves it as it is: '{pattern}'"
        )
    logging.disable()  # what calibration logs is in the text
    sys.stdout.write(inspect(source[0], axes))


@tool()
def plan(
    configfile: ConfigFile = CONFIG,
    profile: Annotated[Path, typer.Option(help="Folder of the Snakemake profile.")] = Path("workflow/profiles/default"),
    config: Changes = None,
    rates: Annotated[
        Path | None,
        typer.Option(help="JSON file that rates are kept in, by device; those that it lacks are measured and added."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Device in --rates, or a part of its name, to plan for instead of this machine."
        ),
    ] = None,
    gpu: Annotated[
        int, typer.Option(min=0, max=1, help="1: measure the rates on this machine's GPU; 0: on its processors.")
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to measure with; the default is all.")] = None,
    simulate: Annotated[
        str | None,
        typer.Option(metavar="N_GPUS,...", help="Simulate the run on so many GPUs; several numbers with commas."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Finished run, a name or a folder, whose jobs tell how long these take."),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cores of all machines; on a cluster, of those for jobs without a GPU. The default is this machine's, "
            "or the profile's; on a cluster, as many as jobs ask for.",
        ),
    ] = None,
    overhead: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Seconds for which each job holds its cores and GPU before it works. The default is 0 on one machine, "
            "and 6 on a cluster, for two starts of Snakemake.",
        ),
    ] = None,
    failing: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=1, help="Share of the jobs that fail half-way, and are repeated."),
    ] = 0.0,
) -> None:
    """Tell what a run of this folder will take: jobs, hours, storage, memory, and what does not fit the profile.

    With a profile for Slurm, on a machine that submits, also which jobs no node of their partition could ever run. Exit
    code 1: something does not fit, or can never run.
    """
    from ssdenoise.device import Device
    from ssdenoise.plan import plan
    from ssdenoise.plan.schedule import Simulated

    if device and not rates:
        raise ConfigError(f"--device {device!r} names a device whose rates were kept; add the file with --rates")
    simulated = Simulated(_numbers(simulate), like, cores, overhead, failing) if simulate else None
    if not simulated and (like or cores or overhead is not None or failing):
        raise ConfigError("--like, --cores, --overhead and --failing are of a simulation; add --simulate N_GPUS")
    logging.disable()  # the device is in the text
    here = Device.granted(gpu, threads or len(os.sched_getaffinity(0)))
    found = plan(configfile, profile, here, config=config or (), rates=rates, elsewhere=device, simulated=simulated)
    sys.stdout.write(str(found))
    raise typer.Exit(0 if found.fits else 1)


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--simulate {text!r} is no number of GPUs, nor several such as 1,4,16") from None


@tool()
def status(
    run: Annotated[str, typer.Argument(help="Name of the run, whose folder is results/RUN, or a path of its folder.")],
    configfile: ConfigFile = CONFIG,
    config: Changes = None,
) -> None:
    """Tell what of a run is done, running, failed and left, from its files; exit code 1 if a job failed.

    Done is what has its product, whatever has changed since (`snakemake --dry-run` tells). Failed is what has none and
    a log that ends in an error, or whose process on this machine is gone, until it is begun again. Silent is what runs
    on another machine, or was killed there: half an hour without a line in its log, or a shard. `watch ssdenoise
    status RUN` looks again and again; nothing is written.
    """
    from ssdenoise.status import status

    found = status(run, configfile, config or ())
    sys.stdout.write(str(found))
    raise typer.Exit(1 if found.count("failed") else 0)


@tool()
def crate(
    run: Annotated[str, typer.Argument(help="Name of the run, whose folder is results/RUN, or a path of its folder.")],
    output: Annotated[Path, typer.Option(help="Crate to write: a file that ends in .zip, or a folder.")],
    license: Annotated[str, typer.Option(help="Licence of the results, as SPDX identifier, such as CC-BY-4.0.")],
    author: Annotated[
        list[str] | None,
        typer.Option(
            help="Who ran it, with an ORCID if there is one: 'Ada Lovelace <https://orcid.org/0000-0000-0000-0000>'; "
            "repeated, for several."
        ),
    ] = None,
    configfile: ConfigFile = CONFIG,
    config: Changes = None,
) -> None:
    """Write a finished run as a Workflow Run RO-Crate: tables and report inside, volumes by path, size and digest."""
    from ssdenoise.crate import crate

    crate(run, configfile, output, license=license, authors=author or (), config=config or ())


@tool()
def verify(
    stores: Annotated[list[Path], typer.Argument(help="Finished stores, or their zarr.json.")],
    threads: Threads = 1,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Unfinish damaged ones, so that the job that writes them mends them.")
    ] = False,
) -> None:
    """Check that the voxels of stores are those that were committed; exit code 1 if those of one are not."""
    from ssdenoise.verify import verify

    codes = {0}
    for store in stores:
        try:
            print(f"{verify(folder_of(store), threads, withdraw=withdraw)}  {folder_of(store)}", flush=True)
        except SsdenoiseError as error:
            codes.add(told(error))
    raise typer.Exit(1 if 1 in codes else max(codes))


@tool()
def view(
    run: Annotated[str, typer.Argument(help="Name of the run, whose folder is results/RUN, or a path of its folder.")],
    dataset: Annotated[
        str | None, typer.Argument(help="Dataset to show; without one, a page with a link to each.")
    ] = None,
    noise: Annotated[str | None, typer.Option(help="Noise level; `measured` where none was synthesized.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method entry; repeated, for several. The default is all, at most four.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the default is the lowest.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: any that is free.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or only print the address.")
    ] = True,
) -> None:
    """Show noisy, denoised and uncertainty side by side in Neuroglancer, at full resolution, until interrupted.

    From another machine: give a port and `--no-browser`, and forward it with `ssh -L PORT:127.0.0.1:PORT HOST`.
    """
    from ssdenoise.view import Choice, view

    view(run, Choice(dataset, noise, tuple(method or ()), seed), port=port, browser=browser)


@tool()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from ssdenoise.config.models import schema

    sys.stdout.write(schema())
