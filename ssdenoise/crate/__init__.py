"""Crate: a finished run as a Workflow Run RO-Crate, with tables and report inside and volumes by reference."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ssdenoise.config.read import project_of
from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.status.jobs import jobs
from ssdenoise.status.state import state_of


def crate(
    run: str,
    configfile: Path,
    output: Path,
    *,
    license: str,
    authors: Sequence[str] = (),
    config: Sequence[str] = (),
) -> Path:
    """Write a finished run as a Workflow Run RO-Crate.

    Parameters
    ----------
    run : str
        A run's name, whose folder is `results/{run}`, or a run's folder.
    configfile : Path
        The configuration of the run.
    output : Path
        A file that ends in `.zip`, or a folder; neither may exist.
    license : str
        SPDX identifier of the licence that the results are given under, e.g. ``CC-BY-4.0``.
    authors : sequence of str
        Who ran it: names, each with an ORCID where there is one, ``Ada Lovelace <https://orcid.org/...>``.
    config : sequence of str
        `key=value`, as for Snakemake's `--config`, with which it was run.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    ConfigError
        If the run is not finished, the output exists, or the package for it is not installed.
    MissingInputError
        If there is no Snakefile in the project's folder.

    Notes
    -----
    Profile: Workflow Run Crate 0.5, https://w3id.org/ro/wfrun/workflow/0.5. Software and its versions are those that
    the commit records of the volumes name, but for Snakemake's, which no record has: it is the one that is installed.
    The run began when the first volume was begun, and ended when the last product was written, by the times of the
    files. Sources are known by size and time of change, and the volumes read from them by their digests.
    """
    _require_package()
    from ssdenoise.crate.contents import Contents

    if output.exists():
        raise ConfigError(f"{output} exists already; remove it, or write to another place")
    project = project_of(run, configfile, config)
    found = [state_of(job, project.root) for job in jobs(project)]
    if left := sum(one.state != "done" for one in found):
        raise ConfigError(
            f"{run} is not finished: {left} of its {len(found)} jobs are not done, as `ssdenoise status {run}` tells; "
            "finish it first"
        )
    if not (project.root / "Snakefile").is_file():
        raise MissingInputError(f"no file {project.root / 'Snakefile'}; the run's folder must lie in its project's")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".crate-") as folder:
        written = Contents(project, configfile, config, license, authors).crate(Path(folder))
        if output.suffix == ".zip":
            os.replace(written.write_zip(Path(folder) / output.name), output)
        else:
            written.write(Path(folder) / "crate")
            shutil.move(Path(folder) / "crate", output)
    return output


def _require_package() -> None:
    """Say that the package for crates is not installed."""
    try:
        import_module("rocrate")
    except ImportError:
        raise ConfigError("crate needs rocrate; `pip install ssdenoise[crate]`") from None
