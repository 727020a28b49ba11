"""Status: what of a run is done, running, failed and left, from its files alone, while it runs and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd

from ssdenoise.config.read import project_of
from ssdenoise.status.jobs import STAGES, jobs
from ssdenoise.status.state import Found, State, state_of

STATES: tuple[State, ...] = get_args(State)

#: Jobs of one state that are listed, one a line.
LISTED = 30

#: What the lists below the table are headed by.
HEADS: dict[State, str] = {
    "running": "running: how far, last sign of life, who",
    "silent": "silent for over half an hour, on machines whose processes cannot be seen from here; running, or killed",
    "failed": "failed: why, and the log",
}


@dataclass(frozen=True)
class Status:
    """All jobs of a run, with their states."""

    run: str
    found: Sequence[Found]

    def count(self, state: State) -> int:
        """Number of jobs in a state."""
        return sum(one.state == state for one in self.found)

    def __str__(self) -> str:
        """One sentence, a table by stage, and a line for each job that was begun and is not done."""
        others = [f"{self.count(state)} {state}" for state in STATES[1:] if self.count(state)]
        sentence = f"{self.run}: " + ", ".join([f"{self.count('done')} of {len(self.found)} jobs are done", *others])
        counts = Counter((one.job.stage, one.state) for one in self.found)
        table = pd.DataFrame(
            [{"stage": stage} | {state: counts[stage, state] for state in STATES} for stage in STAGES]
        ).set_index("stage")
        table = table[table.sum(axis=1) > 0].replace(0, "")
        return "\n\n".join([sentence, table.to_markdown(), *self._lists()]) + "\n"

    def _lists(self) -> list[str]:
        lists = []
        for state, head in HEADS.items():
            if found := [one for one in self.found if one.state == state]:
                lines = [self._line(one) for one in found[:LISTED]]
                more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
                lists.append("\n".join([head, *lines, *more]))
        return lists

    def _line(self, one: Found) -> str:
        what = one.job.product.removeprefix(f"results/{self.run}/").removesuffix("/zarr.json")
        where = f" ({one.job.log})" if one.state == "failed" else ""
        return f"  {one.job.stage} {what}: {one.says}{where}"


def status(run: str, configfile: Path, config: Sequence[str] = ()) -> Status:
    """Look at all jobs of a run.

    Parameters
    ----------
    run : str
        A run's name, whose folder is `results/{run}`, or a run's folder.
    configfile : Path
        The configuration of the run.
    config : sequence of str
        `key=value`, as for Snakemake's `--config`: what takes the place of keys of the configuration.

    Raises
    ------
    SsdenoiseError
        If the configuration is wrong, or another run's.

    Notes
    -----
    Nothing is written or locked, and no Snakemake is asked. What is known, and from what:

    - *done*: the product is there. Whether options, inputs or code have changed since only `snakemake --dry-run` tells.
    - *failed*: there is no product, and the log ends in an error, or its process, on this machine, is gone. It stays
      so until the job is begun again: that a scheduler has it in its queue for another attempt cannot be seen.
    - *running*: there is a log or a claim, and its process is there, or is on another machine and wrote to its log or
      finished a shard within half an hour. *silent*: on another machine, and did not. A job that Slurm has killed is
      one of these, as is a long one that has nothing to say.
    - *left*: nothing of it is there, or the log of one that was done and whose product has been removed.

    Shards are those of the whole volume, whichever slabs they are of; after a change of options, those of before count
    until they are written anew.
    """
    project = project_of(run, configfile, config)
    return Status(project.config.run, [state_of(job, project.root) for job in jobs(project)])
