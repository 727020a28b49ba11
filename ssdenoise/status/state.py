"""What the files of a job tell of it."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssdenoise.run import DONE, Worker, told_by
from ssdenoise.status.jobs import Job
from ssdenoise.store import records_of

State = Literal["done", "running", "silent", "failed", "left"]

#: Seconds without a sign of life after which a job on another machine may as well have been killed.
PATIENCE = 1800.0


@dataclass(frozen=True)
class Found:
    """State of a job; of one that was begun and is not done, what there is to say of it."""

    job: Job
    state: State
    says: str = ""


def state_of(job: Job, root: Path) -> Found:
    """The state of one job, by its product, its log, its claim and its shards; nothing is written or locked.

    Parameters
    ----------
    job : Job
    root : Path
        Folder of the project.
    """
    if _is_there(root / job.product):
        return Found(job, "done")
    log, claim = root / job.log, root / job.claim if job.claim else None
    begun = log.is_file()
    worker = (Worker.named_in(log) if begun else None) or (Worker.named_in(claim) if claim else None)
    error, last = told_by(log) if begun else (None, "")
    alive, ended = worker.alive if worker else None, last.endswith(f" {DONE}")
    if not begun and not alive:
        return Found(job, "left")  # also what a job by hand, which has no log, has left
    if (ended or not alive) and _is_there(root / job.product):
        return Found(job, "done")  # meanwhile
    if ended:
        return Found(job, "left")  # its product has been removed since
    if error is not None and not alive:
        return Found(job, "failed", error)
    if alive is False:
        return Found(
            job, "failed", f"killed: {worker} is gone" + (f"; the last line of its log: {last}" if last else "")
        )
    silence = _silence(job, log, root)
    who = str(worker) if worker else "who does it is not told"
    says = f"{_progress(job, last, worker, root)}; {_ago(silence)}; {who}"
    if alive or silence < PATIENCE:
        return Found(job, "running", says)
    return Found(job, "silent", says)


def _is_there(product: Path) -> bool:
    """Whether a product is there; what is dated 1970 is of a run that failed, and made anew."""
    try:
        return os.stat(product).st_mtime > 0
    except OSError:
        return False


def _silence(job: Job, log: Path, root: Path) -> float:
    """Seconds since a job wrote to its log, or finished a shard."""
    signs = [log] + ([records_of(root / job.store) / "0"] if job.store else [])
    return max(0.0, time.time() - max((sign.stat().st_mtime for sign in signs if sign.exists()), default=0.0))


def _progress(job: Job, last: str, worker: Worker | None, root: Path) -> str:
    """Shards that are recorded, of how many where that is known; else the last line of the log, without its time."""
    if job.store and (folder := records_of(root / job.store) / "0").is_dir():
        done = sum(name.endswith(".json") and name[0] != "." for name in os.listdir(folder))
        metadata = root / job.store / "0" / "zarr.json"  # elsewhere if the voxels go to an object store
        whole = f" of {_shards(json.loads(metadata.read_text()))}" if metadata.is_file() else ""
        return f"{done}{whole} shards" + (" of the volume" if job.stage == "denoise" else "")
    words = re.sub(r"^[\d-]+ [\d:,]+ ", "", last)
    return "begun" if words in ("", str(worker)) else words


def _shards(metadata: dict[str, object]) -> int:
    grid: dict[str, dict[str, list[int]]] = metadata["chunk_grid"]  # type: ignore[assignment]
    shape: list[int] = metadata["shape"]  # type: ignore[assignment]
    return math.prod(-(-n // s) for n, s in zip(shape, grid["configuration"]["chunk_shape"], strict=True))


def _ago(seconds: float) -> str:
    for unit, length in (("days", 172800), ("h", 7200), ("min", 120)):
        if seconds >= length:
            return f"{seconds / (length / 2):.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
