"""What a crate says of a run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssdenoise.config.project import Project
from ssdenoise.crate.entities import Entities, iso, said
from ssdenoise.provenance import file_digest, read_json
from ssdenoise.remote import Bucket, is_remote
from ssdenoise.status.jobs import jobs

#: Identifier, name and version of each profile that the crate conforms to.
PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)

#: Terms of these profiles that RO-Crate itself lacks, such as `sha256`.
TERMS = "https://w3id.org/ro/terms/workflow-run/context"

#: Where rules lie in a checkout, and the checkout that the package runs from, if it is one.
RULES, CHECKOUT = Path("workflow", "rules"), Path(__file__).parents[2]

#: Licence of the workflow.
OURS = "BSD-3-Clause"

README = """\
# Run {run} of ssdenoise

A Workflow Run RO-Crate: `ro-crate-metadata.json` says what was run, on what, when, by which versions, and what came of
it. Tables and report are in `results/{run}/`. The volumes are not in here: their paths, sizes and digests are those of
the project's folder, where `ssdenoise verify STORE` compares a volume with its digest. To run it again there:

    snakemake --profile workflow/profiles/default --configfile {configfile}{changes}
"""


class Contents:
    """What a crate says of a run."""

    def __init__(
        self, project: Project, configfile: Path, config: Sequence[str], license: str, authors: Sequence[str]
    ) -> None:
        self.project, self.root, self.run = project, project.root, project.config.run
        self.entities = Entities(self.root, TERMS)
        self.configfile, self.config, self.license, self.authors = configfile, config, license, authors
        self.changes = [(key, value) for key, _, value in (one.partition("=") for one in config)]
        self.ended = {job.product: (self.root / job.product).stat().st_mtime for job in jobs(project)}
        self.records = {
            Path(product).parent: read_json(self.root / product)["attributes"]["ssdenoise"]
            for product in self.ended
            if product.endswith(".ome.zarr/zarr.json")
        }

    def crate(self, folder: Path) -> Any:
        """All of it; `folder` is for a file that is not among the project's."""
        entities, root = self.entities, self.entities.crate.root_dataset
        people = entities.people(self.authors)
        about = "Self-supervised denoising of microscopy volumes: tables, report, and how they came about."
        said(
            root,
            {
                "name": f"Run {self.run} of ssdenoise",
                "description": about,
                "license": entities.licence(self.license),
                "conformsTo": [entities.add(one, "CreativeWork", name=name, version=n) for one, name, n in PROFILES],
                "mentions": self._action(self._workflow(), people),
            }
            | ({"author": people} if people else {}),
        )
        changes = f" --config {shlex.join(self.config)}" if self.config else ""
        configfile = entities.inside(self.configfile)
        (folder / "README.md").write_text(README.format(run=self.run, configfile=configfile, changes=changes))
        entities.file(folder / "README.md", "README.md", about=root)
        return entities.crate

    def _workflow(self) -> Any:
        """The Snakefile, with its rules, what it can be given, and the software that it ran."""
        entities, file, licence = self.entities, self.root / "Snakefile", self.entities.licence(OURS)
        workflow = entities.crate.add_workflow(
            file, file.name, main=True, lang="snakemake", lang_version=version("snakemake")
        )
        return said(
            workflow,
            {
                "name": "ssdenoise",
                "version": version("ssdenoise"),
                "license": licence,
                "encodingFormat": "text/plain",
                "sha256": file_digest(file),
                "hasPart": [entities.file(path, inside, license=licence) for path, inside in self._rules()],
                "softwareRequirements": list(self._software()),
                "input": [
                    entities.parameter("configfile", "File", "The configuration, a YAML file."),
                    entities.parameter("datasets", "File", "The sheet that the configuration names."),
                    *(entities.parameter(key, "Text", "A key of the configuration.") for key, _ in self.changes),
                ],
            },
        )

    def _rules(self) -> list[tuple[Path, str]]:
        """Files of the rules, and where they lie in the crate; where a checkout's are used as a module, these."""
        own = sorted((self.root / RULES).glob("*.smk"))
        if own:
            return [(rule, "") for rule in own]
        rules = [CHECKOUT / "Snakefile", *sorted((CHECKOUT / RULES).glob("*.smk"))]
        return [(path, f"workflow/ssdenoise/{path.relative_to(CHECKOUT)}") for path in rules if path.is_file()]

    def _action(self, workflow: Any, people: Sequence[Any]) -> Any:
        """The run itself: what it was given, what it made, and when."""
        entities = self.entities

        def slot(name: str) -> Any:
            return entities.crate.dereference(f"#parameter-{name}")

        given = [
            entities.file(self.configfile, exampleOfWork=slot("configfile")),
            entities.file(self.root / self.project.config.datasets, exampleOfWork=slot("datasets")),
            *(
                entities.add(f"#value-{key}", "PropertyValue", name=key, value=value, exampleOfWork=slot(key))
                for key, value in self.changes
            ),
            *self._sources(),
        ]
        folder = self.root / "results" / self.run
        tables = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
        seconds = {store: record["provenance"]["seconds"] for store, record in self.records.items()}
        return entities.add(
            f"#run-{self.run}",
            "CreateAction",
            name=f"Run {self.run}",
            description=f"snakemake --configfile {entities.inside(self.configfile)}",
            instrument=workflow,
            startTime=iso(min(self.ended[f"{store}/zarr.json"] - each for store, each in seconds.items())),
            endTime=iso(max(self.ended.values())),
            actionStatus="http://schema.org/CompletedActionStatus",
            object=given,
            result=[entities.file(path) for path in tables] + [self._volume(store) for store in self.records],
            **({"agent": list(people)} if people else {}),
        )

    def _sources(self) -> Iterator[Any]:
        """Files that volumes were read from, each once."""
        inputs = [record["provenance"]["inputs"] for record in self.records.values()]
        # those of other stages are digests of volumes
        read = {path: known for one in inputs for path, known in one.items() if isinstance(known, dict)}
        for path, known in read.items():
            changed = {"dateModified": iso(known["modified_ns"] / 1e9)} if "modified_ns" in known else {}
            yield self.entities.add(
                path if is_remote(path) else f"#{path}",
                "CreativeWork",
                name=Path(path).name,
                alternateName=path,
                contentSize=str(known["bytes"]),
                **changed,
            )

    def _volume(self, store: Path) -> Any:
        """A store by reference; its digest is that of all voxels, however they are compressed."""
        record = self.records[store]
        away = record.get("stored_at")
        sizes = Bucket(away).sizes().values() if away else _sizes(self.root / store)
        volume = self.entities.add(
            away or f"#{store}",
            "Dataset",
            name=str(store.relative_to(f"results/{self.run}")),
            alternateName=str(store),
            description="OME-Zarr 0.5, not in this crate; `identifier` is the digest that `ssdenoise verify` compares.",
            identifier=f"sha256:{record['digest']}",
            contentSize=str(sum(sizes)),
            dateModified=iso(self.ended[f"{store}/zarr.json"]),
        )
        if away:  # what has an address is a part, as far as RO-Crate is concerned
            self.entities.crate.root_dataset.append_to("hasPart", volume)
        return volume

    def _software(self) -> Iterator[Any]:
        """What the records of all volumes name, in each version that occurs."""
        records = [record["provenance"] for record in self.records.values()]
        libraries = {pair for one in records for pair in one["libraries"].items()}
        found = [(name, number, f"https://pypi.org/project/{name}/") for name, number in sorted(libraries)]
        found += [
            ("Python", number, "https://www.python.org/") for number in sorted({one["python"] for one in records})
        ]
        for name, number, page in found:
            identifier = f"{page}{number}/" if "pypi" in page else f"{page}#{number}"
            yield self.entities.add(identifier, "SoftwareApplication", name=name, softwareVersion=number, url=page)
        for number, commit in sorted({(one["version"], one["commit"] or "") for one in records}):
            told = {"identifier": commit} if commit else {}
            identifier = f"#ssdenoise-{number}-{commit}".removesuffix("-")
            yield self.entities.add(identifier, "SoftwareApplication", name="ssdenoise", softwareVersion=number, **told)


def _sizes(folder: Path) -> Iterator[int]:
    return ((Path(where) / name).stat().st_size for where, _, names in os.walk(folder) for name in names)
