"""Configuration, wildcards, and every function that rules use."""

import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.io import report as reported

from ssdenoise.config.models import MEASURED, Auto
from ssdenoise.config.project import Project
from ssdenoise.config.specs import dump
from ssdenoise.errors import SsdenoiseError

try:
    PROJECT = Project(config, Path.cwd())
except SsdenoiseError as error:
    print(f"ssdenoise: {error}", file=sys.stderr)
    os._exit(2)  # an exception here would be printed with a page of traceback

RUN = PROJECT.config.run
JOBS = PROJECT.jobs()
MODEL = f"results/{RUN}/{{dataset}}/{{noise}}/{{entry}}/seed-{{seed}}"
TRAINED = f"results/{RUN}/{{trained}}/{{noise}}/{{entry}}/seed-{{seed}}"
FIGURES = [f"{dataset}/{noise}" for dataset, noise in PROJECT.scenes()]
PRODUCTS = [
    f"{dataset}/{noise}/{entry}/seed-{seed}/{product}.ome.zarr"
    for dataset, noise, entry, seed in JOBS
    for product in ("denoised", "uncertainty")
    if product == "denoised" or PROJECT.config.methods[entry].probabilistic
]
#: Datasets with a truth in the units of their noisy volumes, and a method whose stated uncertainty it tests: keys, as
#: each figure of each dataset is looked up.
UNCERTAIN = dict.fromkeys(
    name
    for name, row in PROJECT.datasets.items()
    if row.situation != "archive" and row.reference_fit == "none"
    if any(PROJECT.config.methods[m].probabilistic for m in PROJECT.methods_of(name))
)


#: Figures of the whole run.
OF_THE_RUN = ("levels", "cost", "ranks")

#: Figures of every scene.
ALWAYS = ("images", "worst", "profiles", "residuals", "training")

#: Method entries that are chosen among others, and those that are fitted or trained.
CHOSEN = [k for k, v in PROJECT.config.methods.items() if isinstance(v, Auto)]
FITTED = [k for k in PROJECT.config.methods if k not in CHOSEN]


def one_of(names):
    """Regular expression for any of some names, or for nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(PROJECT.datasets),
    trained=one_of(PROJECT.trained()),
    noise=one_of([*PROJECT.config.noise, MEASURED]),
    entry=one_of(PROJECT.config.methods),
    seed=r"\d+",
    realization=r"\d+",
    slab=r"\d+",
    slabs=r"\d+",
    role="clean|reference",
    product="denoised|uncertainty",


def code(stage):
    """Hash of the code that a job of this stage runs, so that editing it reruns the job."""
    return lambda wildcards: PROJECT.code(stage, wildcards.get("entry"))


def granted_gpus(wildcards, rulename):
    """GPUs that the profile grants a rule: as `gpu` or, where a Slurm wants that, as `gres`."""
    given = workflow.resource_settings.overwrite_resources.get(rulename, {})
    if "gpu" in given:
        return given["gpu"].value
    if "gres" not in given:
        return 0
    from ssdenoise.needs import gpus_of

    gres = given["gres"].raw.strip("'")
    found = gpus_of(gres)
    if "gpu" in gres and not found:
        raise WorkflowError(
            f"{rulename}: gres {gres!r} names no GPU in a way that is understood; needed is gpu, gpu:NUMBER or "
            "gpu:KIND:NUMBER"
        )
    return sum(number for _, number in found)


def train_needs(wildcards, input, threads, rulename):
    # here and below, where it is used: a dry run without it is a second faster and 60 MB smaller
    import ssdenoise.needs as needs

    noisy = [input.noisy] if isinstance(input.noisy, str) else input.noisy
    return needs.train(
        PROJECT.config.methods[wildcards.entry],
        PROJECT.members(wildcards.trained)[0].ndim,
        tuple(map(needs.layout_of, noisy)),
        paired=bool(input.target),
        threads=threads,
        gpu=granted_gpus(wildcards, rulename) > 0,
    )


def denoise_needs(wildcards, input, threads, rulename):
    import ssdenoise.needs as needs

    entries, entry = PROJECT.config.methods, wildcards.entry
    among = entries[entry].among if entry in CHOSEN else [entry]
    return needs.largest(
        needs.denoise(
            entries[one],
            PROJECT.datasets[wildcards.dataset].ndim,
            needs.layout_of(input.noisy),
            passes=2 if input.pair else 1,
            slabs=int(wildcards.slabs),
            threads=threads,
            gpu=granted_gpus(wildcards, rulename) > 0,
        )
        for one in among
    )


def probe_needs(wildcards, input, threads, rulename):
    import ssdenoise.needs as needs

    return needs.probe(
        PROJECT.config.methods[wildcards.entry],
        PROJECT.datasets[wildcards.dataset].ndim,
        needs.layout_of(input.noisy),
        threads=threads,
        gpu=granted_gpus(wildcards, rulename) > 0,
    )


def stage_needs(name):
    """Needs of a stage without a network, by the stores it reads or, of an ingest, its files."""

    def of(wildcards, input, threads, rulename):
        import ssdenoise.needs as needs

        if name == "ingest":
            return needs.ingest(
                [input.source] if isinstance(input.source, str) else input.source
            )
        stores = [path for path in input if path.endswith(".ome.zarr/zarr.json")]
        return needs.stage(
            name, sum(needs.size_of(needs.layout_of(path)) for path in stores)
        )

    return of


def asked(what, of):
    """A resource of a rule, more of it at each attempt; `what` is an attribute of its needs."""

    def amount(wildcards, input, threads, attempt, rulename):
        import ssdenoise.needs as needs

        own = attempt * math.ceil(
            getattr(of(wildcards, input, threads, rulename), what)
        )
        return own + needs.SNAKEMAKE_MB * (
            what == "memory_mb" and not workflow.local_exec
        )

    return amount


def fetch_spec(wildcards, output):
    return dump(PROJECT.downloaded[output[0]])


def column(wildcards):
    """Column of the sheet that a volume comes from."""
    realization = {"0": "noisy", "1": "pair"}
    return wildcards.get("role") or realization[wildcards.realization]


def source(wildcards):
    """The downloaded or local files that a volume is ingested from; none of a URL."""
    row = PROJECT.datasets[wildcards.dataset]
    path = PROJECT.located(getattr(row, column(wildcards))).partition("#")[0]
    return PROJECT.inputs(path)


def like(wildcards):
    """The noisy volume, whose shape a reference or a pair must have."""
    if column(wildcards) in ("reference", "pair"):
        return (
            f"results/{RUN}/{wildcards.dataset}/{MEASURED}/noisy-0.ome.zarr/zarr.json"
        )
    return []


def ingest_spec(wildcards):
    return dump(PROJECT.ingest(wildcards.dataset, column(wildcards)))


def synthesize_spec(wildcards):
    return dump(
        PROJECT.synthesize(
            wildcards.dataset, wildcards.noise, int(wildcards.realization)
        )
    )


def calibrate_spec(wildcards):
    return dump(PROJECT.calibrate(wildcards.dataset))


def train_spec(wildcards):
    return dump(
        PROJECT.train(
            wildcards.trained, wildcards.noise, wildcards.entry, int(wildcards.seed)
        )
    )


def choose_spec(wildcards):
    return dump(PROJECT.choose(wildcards.entry))


def candidates(wildcards):
    """Method entry, model folder and probe of each model that is chosen from."""
    return PROJECT.candidates(
        wildcards.dataset, wildcards.noise, wildcards.entry, int(wildcards.seed)
    )


def candidate_files(wildcards):
    return [
        file
        for _, model, probe in candidates(wildcards)
        for file in (f"{model}/model.safetensors", f"{model}/model.json", probe)
    ]


def candidate_names(wildcards):
    return ["=".join(one) for one in candidates(wildcards)]


def score_spec(wildcards):
    return dump(
        PROJECT.score(
            wildcards.dataset,
            wildcards.noise,
            wildcards.get("entry", "noisy"),
            int(wildcards.get("seed", 0)),
        )
    )


def probe_spec(wildcards):
    return dump(
        PROJECT.probe(
            wildcards.dataset, wildcards.noise, wildcards.entry, int(wildcards.seed)
        )
    )


def denoise_spec(wildcards):
    return dump(PROJECT.denoise(wildcards.dataset, wildcards.entry))


def members(product):
    """A product of the scene of each dataset that a model is trained on."""

    def paths(wildcards):
        return [
            f"results/{RUN}/{row.dataset}/{wildcards.noise}/{product}"
            for row in PROJECT.members(wildcards.trained)
        ]

    return paths


def targets(wildcards):
    """The clean volumes or the second realizations, for methods that need them as volumes."""
    kind = PROJECT.config.methods[wildcards.entry].target
    if kind == "clean":
        rows = PROJECT.members(wildcards.trained)
        return [f"results/{RUN}/{row.dataset}/clean.ome.zarr/zarr.json" for row in rows]
    if kind == "pair" and PROJECT.members(wildcards.trained)[0].pairing == "volume":
        return members("noisy-1.ome.zarr/zarr.json")(wildcards)
    return []


def pair(wildcards):
    """The second realization, for methods that denoise both."""
    if PROJECT.config.methods[wildcards.entry].averages_pair:
        return f"results/{RUN}/{wildcards.dataset}/{wildcards.noise}/noisy-1.ome.zarr/zarr.json"
    return []


def other(wildcards):
    """A realization to score with, which neither the denoised volume nor its model has seen."""
    unseen = PROJECT.unseen(wildcards.dataset, wildcards.get("entry"))
    scene = f"results/{RUN}/{wildcards.dataset}/{wildcards.noise}"
    return f"{scene}/noisy-{unseen}.ome.zarr/zarr.json" if unseen else []


def repeat(wildcards):
    """Another realization, for what the noise's draw does to an estimate; none where it is the mean of two."""
    averages = PROJECT.config.methods[wildcards.entry].averages_pair
    return [] if averages else other(wildcards)


def uncertainty(wildcards):
    """The standard deviation, from methods that state one."""
    if PROJECT.config.methods[wildcards.entry].probabilistic:
        return f"{folder(wildcards)}/uncertainty.ome.zarr/zarr.json"
    return []


def sibling(wildcards):
    """The denoised volume of the next seed; nothing where there is a single one."""
    seeds = PROJECT.config.seeds
    if len(seeds) < 2 or not PROJECT.config.methods[wildcards.entry].trainable:
        return []
    following = seeds[(seeds.index(int(wildcards.seed)) + 1) % len(seeds)]
    values = {"dataset": wildcards.dataset, "noise": wildcards.noise}
    folder = MODEL.format(**values, entry=wildcards.entry, seed=following)
    return f"{folder}/denoised.ome.zarr/zarr.json"


def truth(wildcards):
    """The clean volume or the reference; nothing for archives."""
    role = {"benchmark": "clean", "reference": "reference"}.get(
        PROJECT.datasets[wildcards.dataset].situation
    )
    return (
        f"results/{RUN}/{wildcards.dataset}/{role}.ome.zarr/zarr.json" if role else []
    )


def model_folder(wildcards):
    """Where the model lies that denoises a dataset: its own, its group's, another's, or a given one."""
    return PROJECT.model_folder(
        wildcards.dataset, wildcards.noise, wildcards.entry, int(wildcards.seed)
    )


def model(wildcards):
    return f"{model_folder(wildcards)}/model.safetensors"


def description(wildcards):
    return f"{model_folder(wildcards)}/model.json"


def folder(wildcards):
    """Where a model and its products lie."""
    return MODEL.format(**wildcards)


def parent(wildcards, output):
    """Where a rule's first product lies."""
    return os.path.dirname(output[0])


def slabs(wildcards):
    """Records of all slabs of a volume."""
    n = PROJECT.datasets[wildcards.dataset].slabs
    return [f"{folder(wildcards)}/slabs/{slab}-of-{n}.json" for slab in range(n)]


def scores(wildcards):
    """Scores of the noisy inputs and of all denoised volumes."""
    inputs = [f"results/{RUN}/{folder}/noisy-scores.parquet" for folder in FIGURES]
    return inputs + [
        f"results/{RUN}/{d}/{n}/{entry}/seed-{seed}/scores.parquet"
        for d, n, entry, seed in JOBS
    ]


def probes(wildcards):
    """Scores of all models that need no reference."""
    return [
        f"results/{RUN}/{d}/{n}/{entry}/seed-{seed}/probe.parquet"
        for d, n, entry, seed in JOBS
    ]


def shown(wildcards):
    """Folder of each method entry that the figures show: that of the first seed."""
    seed = PROJECT.config.seeds[0]
    return {
        entry: f"results/{RUN}/{wildcards.dataset}/{wildcards.noise}/{entry}/seed-{seed}"
        for entry in PROJECT.methods_of(wildcards.dataset)
    }


def shown_stores(wildcards):
    return [
        f"{folder}/{product}.ome.zarr/zarr.json"
        for entry, folder in shown(wildcards).items()
        for product in ("denoised", "uncertainty")
        if product == "denoised" or PROJECT.config.methods[entry].probabilistic
    ]


def shown_scores(wildcards):
    """Scores of the noisy volume and of what the figures show."""
    noisy = f"results/{RUN}/{wildcards.dataset}/{wildcards.noise}/noisy-scores.parquet"
    return [noisy, *(f"{path}/scores.parquet" for path in shown(wildcards).values())]


def shown_folders(wildcards):
    """Method entry and folder, and that of its model where it is another."""
    found, seed = [], PROJECT.config.seeds[0]
    for entry, folder in shown(wildcards).items():
        model = PROJECT.model_folder(wildcards.dataset, wildcards.noise, entry, seed)
        found.append(f"{entry}={folder}" + (f"={model}" if model != folder else ""))
    return found


def drawn(*names):
    """Figures of a scene, as PDF too but for images, and how Snakemake's report shows them."""
    folder = f"results/{RUN}/{{dataset}}/{{noise}}"
    categories = {
        "training": "Training",
        "uncertainty": "Uncertainty",
        "residuals": "Residuals",
    }
    pictures = [
        reported(
            f"{folder}/{name}.png",
            caption=f"../report/{name}.rst",
            category=categories.get(name, "Images"),
            labels={"dataset": "{dataset}", "noise": "{noise}"},
        )
        for name in names
    ]
    vector = [name for name in names if name not in ("images", "worst")]
    return pictures + [f"{folder}/{name}.pdf" for name in vector]


def fitted(wildcards):
    """Whether the reference is in other units than the noisy volume."""
    row = PROJECT.datasets[wildcards.dataset]
    return "" if row.reference_fit == "none" else "--fitted"


def figure_files(wildcards):
    """The figures that the report shows."""
    return [
        f"results/{RUN}/{path.format(dataset=dataset, noise=noise)}"
        for path in REPORTED
        for dataset, noise in (PROJECT.scenes() if "{" in path else [("", "")])
        if dataset in UNCERTAIN or Path(path).stem != "uncertainty"
    ]


def first_stores(wildcards):
    """The stores whose planes the report shows."""
    scenes = [SimpleNamespace(dataset=d, noise=n) for d, n in PROJECT.scenes()]
    return [path for scene in scenes for path in shown_stores(scene)]


def again():
    """What to type for this run, from the folder of the project."""
    files = [shlex.quote(os.path.relpath(path)) for path in workflow.configfiles]
    given = workflow.config_settings.config
    words = ["snakemake --profile workflow/profiles/default --configfile", *files]
    words += ["--config"] if given else []
    return " ".join([*words, *(shlex.quote(f"{k}={v}") for k, v in given.items())])


def report_spec(wildcards=None):
    return dump(PROJECT.report(REPORTED, [again()]))


def report_what_there_is():
    """The report of a run that failed: what is done, and why the rest is not."""
    files = ["--run", f"results/{RUN}", "--output", f"results/{RUN}/report.html"]
    command = [sys.executable, "-m", "ssdenoise", "report", "--spec", report_spec()]
    if subprocess.run([*command, *files, "--unfinished"]).returncode == 0:
        print(f"what there is, and why the rest is not: {files[-1]}", file=sys.stderr)


def option(name):
    """A command line's option, once for each file of an input; left out where there is none."""

    def text(wildcards, input):
        files = input.get(name) or []
        files = [files] if isinstance(files, str) else files
        return " ".join(f"--{name} {shlex.quote(file)}" for file in files)

    return text


#: Figures that the report shows: their paths in the run's folder, and their captions.
REPORTED = {
    # a file that Snakemake takes out of a repository lacks the last line's end
    path: Path(workflow.source_path(f"../report/{Path(path).stem}.rst"))
    .read_text()
    .rstrip()
    for path in [f"{name}.png" for name in OF_THE_RUN]
    + [
        f"{{dataset}}/{{noise}}/{name}.png"
        for name in (
            "images",
            "worst",
            "profiles",
            "residuals",
            "uncertainty",
            "training",
            "calibration",
        )
    ]
}
