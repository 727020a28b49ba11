"""What jobs ask their scheduler for, against what those of a finished run took."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

#: What is read of a job in the text of a dry run; one that asks for no memory runs beside Snakemake.
JOB = re.compile(r"^(?:rule|checkpoint) (\w+):$.*?^    benchmark: (\S+)$.*?runtime=(\d+).*?mem_mb=(\d+)", re.M | re.S)


def resources(project: Path) -> pd.DataFrame:
    """Memory and minutes asked for and measured, by rule: medians, and the smallest and largest ratio of any job.

    The measured memory is Snakemake's, of a job's process and its children (`benchmark:`), which looks every few
    seconds and tells nothing of shorter jobs. The project is a folder whose run is finished, and not changed since.
    """
    options = ["--dry-run", "--forceall", "--quiet", "host", "--profile", "workflow/profiles/default"]
    command = [sys.executable, "-m", "snakemake", *options]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True, env=environment)
    rows = []
    for block in re.split(r"^(?=(?:local)?rule )", done.stdout, flags=re.MULTILINE):
        if (job := JOB.match(block)) and (project / job[2]).exists():
            measured = pd.read_csv(project / job[2], sep="\t").iloc[-1]
            took = {"asked MB": float(job[4]), "peak MB": measured["max_rss"]}
            took |= {"asked min": float(job[3]), "took min": measured["s"] / 60}
            rows.append({"rule": job[1]} | took)
    jobs = pd.DataFrame(rows).astype({"peak MB": float})
    jobs["asked/peak"] = jobs["asked MB"] / jobs["peak MB"]
    jobs["took/asked min"] = jobs["took min"] / jobs["asked min"]
    by_rule = jobs.groupby("rule", sort=False)
    return pd.DataFrame(
        {
            "jobs": by_rule.size(),
            **{name: by_rule[name].median() for name in ("asked MB", "peak MB")},
            "asked/peak, least": by_rule["asked/peak"].min(),
            "asked/peak, most": by_rule["asked/peak"].max(),
            "took/asked time, most": by_rule["took/asked min"].max(),
        }
    ).reset_index()
