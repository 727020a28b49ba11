"""Init: a project's folder, whose Snakefile uses the rules of this repository as a module."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ssdenoise.config.models import schema
from ssdenoise.errors import ConfigError
from ssdenoise.ingest import tczyx
from ssdenoise.ingest.sources import read_source
from ssdenoise.inspect import COLUMNS, name_of
from ssdenoise.provenance import PACKAGE
from ssdenoise.remote import is_remote

#: Where the profiles lie, in a checkout and in a project.
PROFILES = Path("workflow") / "profiles"

SNAKEFILE = """\
# The rules are those of {origin}.
# What they read and write lies in this folder, and config/config.yaml says what they do.
if not workflow.configfiles:

    configfile: "config/config.yaml"


module ssdenoise:
    snakefile:
        {snakefile}
    config:
        config


use rule * from ssdenoise


onerror:
    ssdenoise.onerror()
"""

CONFIG = """\
# How this run denoises its datasets. Every key is explained in config/README.md of
# {origin}
# yaml-language-server: $schema=schema.json
run: {run}
datasets: config/datasets.tsv
# data: /mnt/archive  # relative paths in the sheet then start here

# Each entry denoises each dataset, unless the sheet's column `methods` says otherwise. Which one suits a dataset,
# `ssdenoise inspect FILE` and the dataset's calibration.json tell from its noise.
methods:
  gaussian: {{name: gaussian}}  # the classical filter to be better than
  n2v: {{name: n2v}}
  # hqssl: {{name: hqssl}}          # noise independent between pixels; states its uncertainty, too
  # structn2v: {{name: structn2v}}  # noise correlated along one axis
  # sasl: {{name: sasl}}            # noise correlated along both
  # n2n: {{name: n2n}}              # with pairs: the sheet's column `pair`
  # best: {{name: auto, among: [gaussian, n2v]}}  # takes one of them, dataset by dataset

# How volumes lie on disk, in voxels Z, Y, X; a shard is one file, and what a job that was killed loses.
storage:
  chunk: [4, 128, 128]
  shard: [16, 512, 512]
  # root: s3://bucket/project  # voxels then go to an object store
"""

SHEET = """\
# A dataset a row, cells separated by tabs. slabs: jobs that share a volume's inference; ndim: 3 for networks in 3-D.
# More columns: config/README.md of {origin}
"""


@dataclass(frozen=True)
class Workflow:
    """The rules that a project uses.

    Parameters
    ----------
    origin : str
        Checkout or address, for readers.
    snakefile : str
        What a Snakemake module's `snakefile` is, as source code.
    needed : str
        Command that installs the package that belongs to the rules; empty where it is the one that runs.
    """

    origin: str
    snakefile: str
    needed: str = ""


def init(folder: Path, sources: Sequence[str] = (), *, axes: str | None = None, workflow: str | None = None) -> str:
    """Make the folder of a project.

    Parameters
    ----------
    folder : Path
        It must be empty or not there; nothing is ever overwritten.
    sources : sequence of str
        Files, or patterns of planes, that become the rows of the sheet, as `ssdenoise.inspect.inspect` writes them;
        paths start from the current folder. Their heads are read.
    axes : str, optional
        Axes of the sources' arrays where the files do not say.
    workflow : str, optional
        A checkout's path, or `https://HOST/OWNER/NAME@REF` on GitHub or a GitLab, where REF is a tag or a whole commit.
        The default is the checkout that the package runs from.

    Returns
    -------
    str
        What was written, and the commands that come next.

    Raises
    ------
    ConfigError
        If the folder is not empty, or there are no rules or no profiles at `workflow`.
    SsdenoiseError
        If a source cannot be read, as `ssdenoise.ingest.ingest`; the folder is then left as it is.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "is not empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder} {found}; a project starts in an empty folder or one that is not there yet")
    lines = rows(sources, axes)
    with tempfile.TemporaryDirectory() as clone:
        rules, root = located(workflow, Path(clone))
        shutil.copytree(root / PROFILES, folder / PROFILES)
    texts = {
        "Snakefile": SNAKEFILE.format(origin=rules.origin, snakefile=rules.snakefile),
        "config/config.yaml": CONFIG.format(origin=rules.origin, run=name_of(str(folder.resolve()))),
        "config/datasets.tsv": "\n".join([SHEET.format(origin=rules.origin) + f"{COLUMNS}\tndim\tslabs", *lines, ""]),
        "config/schema.json": schema(),
    }
    (folder / "config").mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    profiles = sorted(path.name for path in (folder / PROFILES).iterdir())
    return _told(folder, [*texts, *(f"{PROFILES}/{name}" for name in profiles)], len(lines), rules.needed)


def rows(sources: Sequence[str], axes: str | None) -> list[str]:
    """The sheet's row of each source, once its head has been read; names that are taken get a number."""
    taken: list[str] = []
    lines = []
    for source in sources:
        with closing(read_source(source, Path(), axes)) as found:
            tczyx(found, source)  # refuses axes that the sheet would have to name
        path, mark, selection = source.partition("#")
        where = source if is_remote(source) else os.path.abspath(path) + mark + selection
        name, number = name_of(where), 1
        while name in taken:
            number += 1
            name = f"{name_of(where)}-{number}"
        taken.append(name)
        lines.append(f"{name}\t{where}\t{axes or ''}")
    return lines


def located(workflow: str | None, clone: Path) -> tuple[Workflow, Path]:
    """The rules, and a folder with their files: a checkout, or the given empty folder, to which they are fetched."""
    if workflow and is_remote(workflow):
        return _fetched(workflow, clone), clone
    root = Path(workflow).resolve() if workflow else PACKAGE.parent
    if not _has_rules(root):
        without = "" if workflow else "this package was installed without its rules; "
        raise ConfigError(
            f"{root} has no Snakefile with {PROFILES}; {without}name a checkout of the repository with --workflow, by "
            "its path or as https://github.com/OWNER/NAME@TAG"
        )
    needed = "" if root == PACKAGE.parent.resolve() else f"pip install --editable {shlex.quote(str(root))}"
    return Workflow(str(root), json.dumps(str(root / "Snakefile"), ensure_ascii=False), needed), root


def _has_rules(root: Path) -> bool:
    return (root / "Snakefile").is_file() and (root / PROFILES).is_dir()


def _fetched(address: str, clone: Path) -> Workflow:
    """Fetch a tag or a commit into an empty folder; a branch is refused, as it is another thing tomorrow."""
    match = re.fullmatch(r"https://([\w.-]+)/([\w./-]+?)(?:\.git)?@([\w./+-]+)", address)
    host, repository, reference = match.groups() if match else ("", "", "")
    if not (host == "github.com" or "gitlab" in host):
        raise ConfigError(
            f"--workflow {address}: needed is https://HOST/OWNER/NAME@TAG, or a whole commit in place of the tag, on "
            "GitHub or a GitLab; of another host, clone the repository and give the clone's path"
        )
    if shutil.which("git") is None:
        raise ConfigError(f"--workflow {address}: git fetches it, and is not installed here; install it")
    kind = "commit" if re.fullmatch("[0-9a-f]{40}", reference) else "tag"
    url = f"https://{host}/{repository}"
    wanted = reference if kind == "commit" else f"refs/tags/{reference}"
    for command in (["init"], ["fetch", "--depth", "1", url, wanted], ["checkout", "FETCH_HEAD"]):
        done = subprocess.run(
            ["git", "-C", str(clone), *command, "--quiet"],
            capture_output=True,
            text=True,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},  # a name that is wrong would ask for a password
        )
        if done.returncode:
            why = " ".join(done.stderr.split())
            raise ConfigError(f"--workflow {address}: no {kind} {reference!r} could be fetched from {url}: {why}")
    if not _has_rules(clone):
        raise ConfigError(f"--workflow {address}: that {kind} has no Snakefile with {PROFILES}; name another")
    function, at = ("github", "") if host == "github.com" else ("gitlab", f', host="{host}"')
    return Workflow(
        f"{url} at {reference}",
        f'{function}("{repository}", path="Snakefile", {kind}="{reference}"{at})',
        f"pip install git+{url}@{reference}",
    )


def _told(folder: Path, written: Sequence[str], datasets: int, needed: str) -> str:
    """What was written, and the commands that come next."""
    commands = {
        f"cd {shlex.quote(str(folder))}": "",
        needed: "the package that belongs to these rules, on every machine of the run",
        "ssdenoise inspect FILE": "what a file holds, its noise, and its line for config/datasets.tsv",
        "ssdenoise plan": "checks all; jobs, hours and storage",
        f"snakemake --profile {PROFILES}/default": "the run; with --dry-run, what it would do",
    }
    lines = [f"wrote {folder}, {datasets or 'no'} dataset{'s' if datasets != 1 else ''} in its sheet:"]
    lines += [f"  {name}" for name in written]
    lines += ["next:", *(f"  {command:47}{why and '  # '}{why}" for command, why in commands.items() if command)]
    return "".join(f"{line.rstrip()}\n" for line in lines)
