"""A finished run as a crate: what its profiles demand is there, and says what the run's files are."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rocrate.rocrate import ROCrate

from ssdenoise.crate import contents as said_by
from ssdenoise.crate import crate
from ssdenoise.errors import ConfigError, MissingInputError
from ssdenoise.store import Volume
from tests.conftest import ROOT, make_run, scene

PROFILE = "https://w3id.org/ro/wfrun/workflow/0.5"
GIVEN = {"license": "CC-BY-4.0"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished run of one dataset and one method; its folder is the current one."""
    folder = tmp_path / "my project"
    run = folder / "results" / "r"
    (folder / "workflow").mkdir(parents=True)
    monkeypatch.chdir(folder)
    shutil.copy(ROOT / "Snakefile", folder)
    shutil.copytree(ROOT / "workflow" / "rules", folder / "workflow" / "rules")
    (folder / "sheet.tsv").write_text("dataset\tnoisy\na\ta.npy\n")
    (folder / "config.yaml").write_text("run: r\ndatasets: sheet.tsv\nmethods:\n  gaussian: {name: gaussian}\n")
    voxels = scene((4, 40, 40)).astype(np.uint16)
    np.save(folder / "a.npy", voxels)
    make_run(run, "a", "measured", {"noisy": voxels, "gaussian/denoised": voxels})
    model = "a/measured/gaussian/seed-0"
    for file in (
        *("comparison.csv", "report.html", "scores.parquet", ".hidden", "logs/compare.log"),
        *("a/measured/calibration.json", "a/measured/noisy-scores.parquet", "a/measured/images.png"),
        *(f"{model}/{name}" for name in ("model.json", "probe.parquet", "slabs/0-of-1.json", "scores.parquet")),
    ):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text(file)
    return folder


def graph_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Entities of a crate, by their identifiers, each there once."""
    entities = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    assert len({one["@id"] for one in entities}) == len(entities)
    return {one["@id"]: one for one in entities}


def references(value: object) -> list[str]:
    """Identifiers that a property refers to."""
    values = value if isinstance(value, list) else [value]
    return [one["@id"] for one in values if isinstance(one, dict)]


def check_profiles(folder: Path) -> dict[str, dict[str, Any]]:
    """What RO-Crate 1.1, Workflow RO-Crate 1.0, Process and Workflow Run Crate 0.5 say a crate MUST have."""
    metadata = json.loads((folder / "ro-crate-metadata.json").read_text())
    assert metadata["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    graph = graph_of(folder)
    about = graph["ro-crate-metadata.json"]
    assert about["@type"] == "CreativeWork"
    assert references(about["about"]) == ["./"]
    assert "https://w3id.org/ro/crate/1.1" in references(about["conformsTo"])
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert all(root[key] for key in ("name", "description", "datePublished", "license"))
    for profile in references(root["conformsTo"]):
        assert graph[profile]["@type"] == "CreativeWork"
        assert graph[profile]["version"] == profile.rpartition("/")[2]
    assert {PROFILE, "https://w3id.org/ro/wfrun/process/0.5"} < set(references(root["conformsTo"]))
    (main,) = references(root["mainEntity"])
    assert graph[main]["@type"] == ["File", "SoftwareSourceCode", "ComputationalWorkflow"]
    (language,) = references(graph[main]["programmingLanguage"])
    assert graph[language]["@type"] == "ComputerLanguage"
    for parameter in references(graph[main]["input"]):
        assert graph[parameter]["@type"] == "FormalParameter"
        assert graph[parameter]["additionalType"] in ("File", "Text")
    actions = [one for one in graph.values() if one["@type"] == "CreateAction"]
    assert [references(one["instrument"]) for one in actions] == [[main]]
    assert references(root["mentions"]) == [actions[0]["@id"]]
    parts = references(root["hasPart"])
    for identifier, one in graph.items():
        for key, value in one.items():
            if identifier not in ("ro-crate-metadata.json", language):  # which name pages on the web
                assert set(references(value)) <= graph.keys(), f"{identifier}: {key} refers to what is not there"
        if "File" in one["@type"]:
            assert identifier in parts
    return graph


def test_a_crate_has_what_its_profiles_demand(project: Path) -> None:
    output = crate("r", Path("config.yaml"), Path("out/crate"), config=["noise_seed=3"], **GIVEN)
    graph = check_profiles(output)
    action = graph["#run-r"]
    assert action["startTime"] <= action["endTime"]
    assert "agent" not in action
    assert references(action["object"])[:3] == ["config.yaml", "sheet.tsv", "#value-noise_seed"]
    assert graph["config.yaml"]["exampleOfWork"] == {"@id": "#parameter-configfile"}
    assert graph["sheet.tsv"]["exampleOfWork"] == {"@id": "#parameter-datasets"}
    assert graph["#value-noise_seed"]["value"] == "3"
    assert graph["https://spdx.org/licenses/CC-BY-4.0"]["identifier"] == "CC-BY-4.0"
    assert graph["https://w3id.org/workflowhub/workflow-ro-crate#snakemake"]["version"] == version("snakemake")
    page = f"https://pypi.org/project/numpy/{version('numpy')}/"
    assert graph[page]["softwareVersion"] == version("numpy")
    assert {"@id": page} in graph["Snakefile"]["softwareRequirements"]
    assert "--configfile config.yaml --config noise_seed=3" in (output / "README.md").read_text()


def test_a_project_that_uses_the_rules_of_a_checkout_brings_them(project: Path) -> None:
    shutil.rmtree(project / "workflow" / "rules")
    output = crate("r", Path("config.yaml"), Path("crate"), **GIVEN)
    parts = references(check_profiles(output)["Snakefile"]["hasPart"])
    assert "workflow/ssdenoise/Snakefile" in parts
    assert "workflow/ssdenoise/workflow/rules/train.smk" in parts
    assert all((output / part).is_file() for part in parts)


def test_files_are_copied_and_volumes_are_named_by_path_digest_and_size(project: Path) -> None:
    output = crate("r", Path("config.yaml"), Path("crate"), **GIVEN)
    graph, run = graph_of(output), Path("results/r")
    results = references(graph["#run-r"]["result"])
    for name in ("comparison.csv", "report.html", "scores.parquet"):
        assert (output / run / name).read_text() == name
        entity = graph[str(run / name)]
        assert entity["sha256"] == hashlib.sha256(name.encode()).hexdigest()
        assert entity["contentSize"] == str(len(name))
        assert str(run / name) in results
    assert not list(output.rglob("*.zarr*"))
    assert not list(output.rglob(".hidden"))
    for store in ("a/measured/noisy-0.ome.zarr", "a/measured/gaussian/seed-0/denoised.ome.zarr"):
        entity = graph[f"#{run / store}"]
        assert entity["identifier"] == f"sha256:{Volume(run / store).digest}"
        assert entity["alternateName"] == str(run / store)
        assert int(entity["contentSize"]) == sum(f.stat().st_size for f in (run / store).rglob("*") if f.is_file())
        assert f"#{run / store}" in results
    (source,) = [one for one in graph.values() if one.get("name") == "noisy-0.npy"]
    assert source["contentSize"] == str(Path(source["alternateName"]).stat().st_size)


def test_a_crate_is_read_back_from_a_zip_with_who_ran_it(project: Path) -> None:
    ada = "https://orcid.org/0000-0001-2345-6789"
    output = crate("r", Path("config.yaml"), Path("r.crate.zip"), authors=[f"Ada L. <{ada}>", "B. C."], **GIVEN)
    with zipfile.ZipFile(output) as file:
        assert "ro-crate-metadata.json" in file.namelist()
        file.extractall("unpacked")
    check_profiles(Path("unpacked"))
    found = ROCrate("unpacked")
    assert [one["name"] for one in found.get("#run-r")["agent"]] == ["Ada L.", "B. C."]
    assert found.get(ada).type == "Person"
    assert found.mainEntity["programmingLanguage"]["name"] == "Snakemake"
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".crate-")) == []


def test_a_volume_in_an_object_store_is_named_by_its_address(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("results/r/a/measured/gaussian/seed-0/denoised.ome.zarr/zarr.json")
    record = json.loads(file.read_text())
    record["attributes"]["ssdenoise"] |= {"stored_under": "s3://b/p", "stored_at": f"s3://b/p/{file.parent}"}
    file.write_text(json.dumps(record))
    monkeypatch.setattr(said_by, "Bucket", lambda url: type("Bucket", (), {"sizes": lambda self: {"a": 3, "b": 4}})())
    graph = check_profiles(crate("r", Path("config.yaml"), Path("crate"), **GIVEN))
    assert graph[f"s3://b/p/{file.parent}"]["contentSize"] == "7"
    assert f"s3://b/p/{file.parent}" in references(graph["./"]["hasPart"])


def test_what_cannot_become_a_crate_is_refused(project: Path) -> None:
    Path("there").mkdir()
    with pytest.raises(ConfigError, match="there exists already"):
        crate("r", Path("config.yaml"), Path("there"), **GIVEN)
    Path("Snakefile").rename("elsewhere")
    with pytest.raises(MissingInputError, match="Snakefile; the run's folder must lie in its project's"):
        crate("r", Path("config.yaml"), Path("out"), **GIVEN)
    Path("results/r/a/measured/images.png").unlink()
    with pytest.raises(ConfigError, match="r is not finished: 1 of its 11 jobs are not done, as `ssdenoise status r`"):
        crate("r", Path("config.yaml"), Path("out"), **GIVEN)
    command = [sys.executable, "-m", "ssdenoise", "crate", "r", "--configfile", "config.yaml", "--output", "out"]
    done = subprocess.run([*command, "--license", "CC0-1.0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not Path("out").exists()
