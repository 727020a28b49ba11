"""One writer at a time."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdenoise.errors import InUseError
from ssdenoise.store.shards import records_of


def lock_of(store: Path) -> Path:
    """The file that stands for a whole store."""
    return records_of(store) / "lock"


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
        If another job has it.

    Notes
    -----
    The file is locked by the operating system, also between the machines of a cluster where its file system does that
    (NFS; Lustre with the option `flock`). The lock of a job that is killed is gone with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUseError(
                f"{path.parent} is being written by {file.read() or 'another job'}; wait until it is done, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
        file.truncate(0)
