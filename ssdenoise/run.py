"""A run's folder: where it lies, what its logs say, and who wrote them."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from ssdenoise.errors import MissingInputError

#: Bytes at the end of a log that are searched for its error, and at its beginning for who wrote it.
TAIL, HEAD = 65536, 1024

#: Last line of the log of a job that ended well.
DONE = "done"

#: What begins the line of an error that ssdenoise raised on purpose.
PREFIX = "ssdenoise: "


def folder_of(run: str) -> Path:
    """The folder of a run, from its name or itself."""
    named = Path("results") / run
    found = next((folder for folder in (named, Path(run)) if folder.is_dir()), None)
    if found is None:
        raise MissingInputError(f"there is no folder {named}, nor {run}; give a run's name, or the path of its folder")
    return found


def told_by(log: Path) -> tuple[str | None, str]:
    """The error that ended a job, None if its log tells of none, and the last line of its log."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if told := [line for line in lines if line.startswith(PREFIX)]:
        return told[-1].removeprefix(PREFIX), last
    return (last if any(line.startswith("Traceback ") for line in lines) else None), last


@dataclass(frozen=True)
class Worker:
    """Who does a job: a process on a machine; it stands in the first line of a log, and in what the job has claimed."""

    process: int
    host: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @classmethod
    def here(cls) -> Worker:
        """The process that asks."""
        return cls(os.getpid(), platform.node())

    @classmethod
    def named_in(cls, file: Path) -> Worker | None:
        """Who stands at the beginning of a file; None if nobody does, or there is no file."""
        try:
            with open(file, "rb") as opened:
                text = opened.read(HEAD).decode(errors="replace")
        except FileNotFoundError:
            return None
        found = re.search(r"^(?:\S+ \S+ )?process (\d+) on (\S+)$", text, re.MULTILINE)  # after a log's date and time
        return cls(int(found[1]), found[2]) if found else None

    @property
    def alive(self) -> bool | None:
        """Whether the process is there; None if it is another machine's, whose processes cannot be seen from here."""
        if self.host != platform.node():
            return None
        if Path("/proc/self/cmdline").exists():
            try:  # another program may have got the number since
                return b"ssdenoise" in Path(f"/proc/{self.process}/cmdline").read_bytes()
            except OSError:
                return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
