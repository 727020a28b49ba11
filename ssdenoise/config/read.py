"""Reading a project's configuration without Snakemake, as Snakemake does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ssdenoise.config.project import Project
from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.run import folder_of


def read_project(configfile: Path, changes: Sequence[str], root: Path) -> Project:
    """The project of a configuration's file.

    Parameters
    ----------
    configfile : Path
        YAML file.
    changes : sequence of str
        `key=value`, as for Snakemake's `--config`: what takes the place of keys of it.
    root : Path
        Folder of the project.

    Raises
    ------
    SsdenoiseError
        If the file is not there, or the configuration or its sheet are wrong.
    """
    if not configfile.is_file():
        raise MissingInputError(f"no file {configfile}; name the configuration with --configfile")
    changed = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in changes)}
    return Project(_merged(yaml.safe_load(configfile.read_text()), changed), root)


def project_of(run: str, configfile: Path, changes: Sequence[str]) -> Project:
    """The project of a run, begun or not.

    Parameters
    ----------
    run : str
        A run's name, whose folder is `results/{run}`, or a run's folder.
    configfile, changes
        As for `read_project`.

    Raises
    ------
    SsdenoiseError
        If the configuration is wrong, or another run's.
    """
    try:
        folder = folder_of(run).absolute()
    except MissingInputError:
        if "/" in run:
            raise
        folder = Path("results") / run
    project = read_project(configfile, changes, folder.parent.parent)
    if project.config.run != folder.name:
        raise ConfigError(
            f"{configfile} is the configuration of the run {project.config.run!r}, not of {folder.name!r}; name its "
            "own with --configfile"
        )
    return project


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with changes, key by key, as Snakemake merges them."""
    inner = {key: _merged(config.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)}
    return config | changes | inner
