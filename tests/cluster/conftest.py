"""A Slurm for the tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster.sandbox import Slurm, missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running cluster of two nodes with processors and one with two pretend GPUs."""
    if lacks := missing():
        pytest.skip(
            f"no {', '.join(lacks)}: apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"
        )
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: pip install -e '.[slurm]'")
    # a short path: that of a socket has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
