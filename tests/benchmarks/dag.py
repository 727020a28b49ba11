"""`make bench-dag`: seconds and memory of Snakemake's dry runs by the number of jobs, in a table; asserts nothing.

Projects are of benchmarks with three seeds of six trained methods each, on sources of a few voxels; one is also looked
at when all and when half of it is done, by files that stand for products. Its seconds are those of a machine that is
idle. `JOBS` in the environment says up to how many jobs, roughly, projects are tried.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ssdenoise.config.read import read_project
from ssdenoise.config.specs import Storage
from ssdenoise.status.jobs import jobs
from ssdenoise.store import Layout
from tests.conftest import ROOT

#: Jobs, roughly, and the datasets and noise levels that make them.
SIZES = {100: (1, 1), 1_000: (3, 4), 10_000: (26, 4), 40_000: (100, 4)}

#: The size that is also looked at when it is done.
DONE = 1_000

METHODS = ("n2n", "n2v", "n2v2", "structn2v", "neighbor2neighbor", "hqssl")

SHAPE = (1, 1, 2, 64, 64)


def make(folder: Path, datasets: int, levels: int) -> None:
    """Write the configuration, the sheet and the source of all its datasets."""
    folder.mkdir()
    np.save(folder / "clean.npy", np.zeros(SHAPE, np.uint16))
    rows = [f"d{k}\tclean.npy" for k in range(datasets)]
    (folder / "datasets.tsv").write_text("\n".join(["dataset\tclean", *rows]) + "\n")
    config = {
        "run": "many",
        "datasets": "datasets.tsv",
        "seeds": [0, 1, 2],
        "noise": {f"sigma-{k}": {"kind": "gaussian", "sigma": 10 * k} for k in range(1, levels + 1)},
        "methods": {name: {"name": name} for name in METHODS},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    profile = ROOT / "workflow" / "profiles" / "default"
    files = ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(profile), "--configfile", "config.yaml"]
    return [sys.executable, "-m", "snakemake", *files, *arguments]


def measured(folder: Path, *arguments: str) -> dict[str, float]:
    """Wall seconds, processor seconds and peak memory in MB of Snakemake."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command(*arguments))} ended with {process.returncode} in {folder}")
    seconds = time.perf_counter() - start
    return {"s": seconds, "CPU s": used.ru_utime + used.ru_stime, "MB": used.ru_maxrss * 1024 / 1e6}


def stat_calls(folder: Path, *arguments: str) -> float:
    """How often Snakemake asks the file system about a file; NaN where there is no `strace`."""
    if not shutil.which("strace"):
        return float("nan")
    counts = folder / "strace.txt"
    trace = ["strace", "--follow-forks", "--summary-only", "--trace=%%stat", f"--output={counts}"]
    subprocess.run([*trace, *command(*arguments)], cwd=folder, env=environment(), check=True, capture_output=True)
    total = next(line for line in counts.read_text().splitlines() if line.endswith("total"))
    return float(total.split()[3])


def finish(folder: Path) -> None:
    """Files that stand for the products, and Snakemake's records of them."""
    layout = Layout.fit(SHAPE, "uint16", Storage().chunk, Storage().shard)
    store = json.dumps({"attributes": {"ssdenoise": {"layout": asdict(layout)}}})
    done = subprocess.run(command("-n"), cwd=folder, env=environment(), check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        key, _, paths = line.strip().partition(": ")
        for path in paths.split(", ") if key == "output" else ():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(store)
    measured(folder, "--touch", "--forceall")  # only what is forced is recorded


def rows(folder: Path, size: int) -> list[dict[str, object]]:
    """Of one project."""
    datasets, levels = SIZES[size]
    make(folder, datasets, levels)
    number = len(jobs(read_project(folder / "config.yaml", (), folder))) + 1  # `all`
    project = {"datasets": datasets, "jobs": number}
    parsing = {f"{key}, parsing": value for key, value in measured(folder, "--list").items()}

    def dry(done: str) -> dict[str, object]:
        used = measured(folder, "-n", "--quiet")
        calls = stat_calls(folder, "-n", "--quiet") - stat_calls(folder, "--list")
        return project | {"done": done} | used | parsing | {"stat calls after parsing": calls}

    found = [dry("nothing")]
    if size == DONE:
        finish(folder)
        found.append(dry("all"))
        for k in range(0, datasets, 2):
            shutil.rmtree(folder / "results" / "many" / f"d{k}")
        found.append(dry("every other dataset"))
    return found


def main() -> None:
    """Print the table."""
    most = int(os.environ.get("JOBS", max(SIZES)))
    with tempfile.TemporaryDirectory() as folder:
        found = [row for size in SIZES if size <= most for row in rows(Path(folder) / str(size), size)]
    table = pd.DataFrame(found).dropna(axis="columns", how="all")
    print(table.to_markdown(index=False, floatfmt=".3g", intfmt=","))


if __name__ == "__main__":
    main()
