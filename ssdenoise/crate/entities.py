"""Entities of a crate: files that are copied into it, and what is only described."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from ssdenoise.provenance import file_digest

#: MIME types that Python does not know, or takes for something else.
TYPES = {".parquet": "application/vnd.apache.parquet", ".yaml": "application/yaml", ".smk": "text/plain"}


class Entities:
    """Adds entities to a crate of RO-Crate 1.1.

    Parameters
    ----------
    root : Path
        Folder of the project, in which files lie as they do in the crate.
    terms : str
        Context of further terms, such as `sha256`.
    """

    def __init__(self, root: Path, terms: str) -> None:
        self.root = root
        self.crate: Any = ROCrate(version="1.1")
        self.crate.metadata.extra_contexts.append(terms)

    def file(self, path: Path, inside: str = "", **properties: Any) -> Any:
        """A file that is copied into the crate, with its digest."""
        known = {"name": path.name, "encodingFormat": _kind(path)}
        known |= {"sha256": file_digest(path), "contentSize": str(path.stat().st_size)}
        return said(self.crate.add_file(path, inside or self.inside(path)), known | properties)

    def inside(self, path: Path) -> str:
        """Where a file lies in the crate: where it lies in the project's folder, others at the top."""
        path, root = path.absolute(), self.root.absolute()
        return str(path.relative_to(root)) if path.is_relative_to(root) else path.name

    def add(self, identifier: str, kind: str, /, **properties: Any) -> Any:
        """An entity that is no file of the crate; its identifier begins with `#` unless it is an address."""
        entity = ContextEntity(self.crate, quote(identifier, safe="#/:@?=&%+"), properties={"@type": kind})
        return self.crate.add(said(entity, properties))

    def people(self, authors: Sequence[str]) -> list[Any]:
        """Persons by their names, each with an ORCID in `<>` where there is one."""
        found = []
        for author in authors:
            named = re.fullmatch(r"(.+?)\s*<(https://orcid\.org/[\dX-]+)>", author)
            name, identifier = (named[1], named[2]) if named else (author, "#" + re.sub(r"\W+", "-", author))
            found.append(self.add(identifier, "Person", name=name))
        return found

    def licence(self, identifier: str) -> Any:
        """A licence by its SPDX identifier."""
        return self.add(
            f"https://spdx.org/licenses/{identifier}", "CreativeWork", name=identifier, identifier=identifier
        )

    def parameter(self, name: str, kind: str, description: str) -> Any:
        """What a run can be given."""
        return self.add(
            f"#parameter-{name}", "FormalParameter", name=name, additionalType=kind, description=description
        )


def said(entity: Any, properties: Mapping[str, Any]) -> Any:
    """An entity with more properties; those that are entities become references."""
    for key, value in properties.items():
        entity[key] = value
    return entity


def iso(seconds: float) -> str:
    """A file's time, in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0).isoformat()


def _kind(path: Path) -> str:
    """MIME type of a file; what is not known is a text, such as rules."""
    return TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
