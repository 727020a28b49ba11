"""One writer at a time."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ssdenoise.errors import ConfigError, InUseError
from ssdenoise.store.shards import records_of


def lock_of(store: Path) -> Path:
    """The file that stands for a whole store."""
    return records_of(store) / "lock"


#: Seconds that jobs which may share something wait for the one that is just entering its name.
PATIENCE = 10.0


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Be the only job that writes something, until the block or the process ends, however it ends.

    Parameters
    ----------
    path : Path
        A small file that stands for what is written; it stays, empty or with the name of who has it.

    Raises
    ------
    InUseError
        If another job has it, alone or shared.
    ConfigError
        If the file system locks no files.

    Notes
    -----
    The file is locked by the operating system, also between the machines of a cluster where its file system does that
    (NFS; Lustre with the option `flock`). The lock of a job that is killed is gone with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        if not _locked(file, fcntl.LOCK_EX):
            raise _in_use(path, file)
        _enter(file, f"process {os.getpid()} on {platform.node()}")
        yield
        file.truncate(0)


@contextmanager
def share(path: Path, work: str) -> Iterator[None]:
    """Be one of the jobs that write parts of the same, by the same plan.

    Parameters
    ----------
    path : Path
        As for `claim`.
    work : str
        What is done, and how it is parted: jobs of the same work may share it, and no others.

    Raises
    ------
    InUseError
        If another job has claimed it, or jobs of other work share it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        patient = time.monotonic() + PATIENCE
        while True:
            if _locked(file, fcntl.LOCK_EX):  # nobody else: enter the work
                _enter(file, work)
            if _locked(file, fcntl.LOCK_SH):
                file.seek(0)
                if file.read() == work:
                    break
                raise _in_use(path, file)
            if time.monotonic() > patient:
                raise _in_use(path, file)
            time.sleep(0.05)
        yield


def _locked(file: IO[str], kind: int) -> bool:
    """Lock a file, if nobody is in the way."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{file.name} cannot be locked ({error.strerror}); the file system of the results must lock files for all "
            "machines (`flock`: NFS 4 does, Lustre with that option)"
        ) from None
    return True


def _enter(file: IO[str], what: str) -> None:
    file.truncate(0)
    file.write(what)
    file.flush()


def _in_use(path: Path, file: IO[str]) -> InUseError:
    file.seek(0)
    return InUseError(
        f"{path.parent} is being written by {file.read() or 'another job'}; wait until it is done, or stop it"
    )
