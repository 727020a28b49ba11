"""What a product was made of: hashes of code, inputs and options, and the record that each product carries."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ssdenoise.energy import Energy
from ssdenoise.errors import FormatError, MissingInputError

PACKAGE = Path(__file__).parent
LIBRARIES = ("torch", "numpy", "scipy", "zarr", "zarrs", "dask", "scikit-image")


def digest(*parts: bytes | memoryview | str) -> str:
    """SHA-256 of the parts, as hexadecimal digits; each part counts with its length."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    if not Path(path).is_file():
        raise MissingInputError(f"no file {path}; run the stage that writes it first")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> dict[str, int]:
    """What tells one version of a large file from another without reading it: its size and when it was changed.

    An archive's files are read once; to hash them beforehand would be a second time. A Zarr is known by its metadata.
    """
    path = Path(path)
    files = zarr_metadata(path) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise MissingInputError(f"no file {path}; correct the sheet, or fetch it")
    found = [file.stat() for file in files]
    return {"bytes": sum(one.st_size for one in found), "modified_ns": max(one.st_mtime_ns for one in found)}


#: Files of a Zarr's root that say what it is.
ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")


def zarr_metadata(path: Path) -> list[Path]:
    """Those of them that are there."""
    return [file for name in ZARR_METADATA if (file := path / name).is_file()]


def companions(path: Path) -> list[Path]:
    """Other files with planes of an OME-TIFF, whose name has to end in `.ome.tif`; none if it cannot be read."""
    if not re.search(r"\.ome\.(tiff?|btf)$", path.name.lower()):
        return []
    from tifffile import TiffFile  # a fifth of a second to import

    try:
        with TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    except Exception:  # ingest says what is wrong
        return []
    names = {
        node.get("FileName")
        for node in root.iter()
        if node.tag.endswith("UUID") and (node.text or "").strip() != root.get("UUID")
    }
    return [path.parent / name for name in sorted(filter(None, names)) if name.lower() != path.name.lower()]


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def read_json(path: str | Path) -> Any:
    """Content of a JSON file that another stage wrote."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise MissingInputError(f"no file {path}; run the stage that writes it first") from None
    except ValueError as error:  # also of bytes that are no text
        raise FormatError(f"{path} is no JSON ({error}); delete it and run the stage that writes it") from None


def write_json(path: str | Path, value: object) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def code_hash(stage: str, method: str | None = None) -> str:
    """Hash of the package's code that a stage, and within it a method, can run.

    Covers the syntax trees, without docstrings and comments, of the stage's module and of every module of the package
    that it imports, directly or not, and files of other kinds beside them, such as a page's style. Left out are
    `ssdenoise.config`, which only says which options there are, as their values are in the stage's spec; and modules
    named `figure`, whose pictures no later stage reads. Methods are found by folder scan, which imports do not show:
    the method's own module is added, the others are left out, so that editing one method concerns that method only.

    Parameters
    ----------
    stage : str
        Module of the stage, such as ``"train"``.
    method : str, optional
        Module in `ssdenoise.methods`.
    """
    todo = [f"ssdenoise.{stage}"] + ([f"ssdenoise.methods.{method}"] if method else [])
    trees: dict[str, str] = {}
    while todo:
        module = todo.pop()
        if module in trees or module.startswith("ssdenoise.config") or module.endswith(".figure"):
            continue
        if path := _source(module):
            trees[module], imported = _tree(path)
            todo.extend(imported)
            if path.name == "__init__.py":
                beside = [file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py"]
                trees |= {f"{module}/{file.name}": file_digest(file) for file in beside}
    return digest(*(part for module in sorted(trees) for part in (module, trees[module])))


def _source(module: str) -> Path | None:
    relative = Path(*module.split(".")[1:])
    candidates = (PACKAGE / relative.with_suffix(".py") if relative.parts else None, PACKAGE / relative / "__init__.py")
    return next((path for path in candidates if path is not None and path.is_file()), None)


@cache
def _tree(path: Path) -> tuple[str, tuple[str, ...]]:
    """Syntax tree without docstrings, as text, and the package's modules it imports."""
    tree = ast.parse(path.read_text())
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names if alias.name.startswith("ssdenoise.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ssdenoise":
            imported += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined,index]
    return ast.dump(tree), tuple(imported)


class Clock:
    """Wall time, and the machine's energy, since it was made."""

    def __init__(self) -> None:
        self.start, self.energy = time.perf_counter(), Energy()

    def seconds(self) -> float:
        """Seconds, to the millisecond."""
        return round(time.perf_counter() - self.start, 3)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    if (status := Path("/proc/self/status")).exists():
        # what `getrusage` says begins with the memory of the process that started this one
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return round(int(found[1]) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def record(
    stage: str,
    *,
    spec: Mapping[str, Any],
    inputs: Mapping[str, object],
    code: str,
    clock: Clock,
    **more: object,
) -> dict[str, Any]:
    """Provenance of one product, ready for JSON.

    Parameters
    ----------
    stage : str
        Name of the stage.
    spec : mapping
        The options it ran with.
    inputs : mapping
        Name of each input and its digest; of files that are read only once, their `fingerprint`.
    code : str
        See `code_hash`.
    clock : Clock
        Started with the stage.
    **more
        What else the stage has to say: seed, device, ...
    """
    return {
        "stage": stage,
        "spec": dict(spec),
        "inputs": dict(inputs),
        "code": code,
        "version": _version("ssdenoise"),
        "commit": _commit(),
        "libraries": _libraries(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "seconds": clock.seconds(),
        "joules": clock.energy.joules(),
        "peak_memory_mb": peak_memory_mb(),
        **more,
    }


@cache
def _commit() -> str | None:
    """Commit of the checkout that the package runs from, with `-dirty` where files differ; None outside a checkout."""
    git = ["git", "-C", str(PACKAGE.parent)]
    commands = (["rev-parse", "--show-toplevel"], ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
    try:
        top, commit = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return (
        commit if Path(top) == PACKAGE.parent.resolve() else None
    )  # a checkout around an installed package says nothing


@cache
def _libraries() -> dict[str, str]:
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout without installing
        return "not installed"


def inline(entry: Mapping[str, object]) -> str:
    """A method entry for a message, as it may stand in the configuration."""
    return "{" + ", ".join(f"{key}: {entry[key]}" for key in sorted(entry, key=lambda key: (key != "name", key))) + "}"


def listed(names: Iterable[str]) -> str:
    """Names for a message, sorted and comma-separated."""
    return ", ".join(sorted(names))
