"""A project's folder: complete, checked before anything is written, and never over what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ssdenoise import init as module
from ssdenoise.config.models import read_sheet
from ssdenoise.config.project import Project
from ssdenoise.errors import ConfigError, FormatError
from ssdenoise.init import init
from tests.conftest import ROOT


@pytest.fixture
def scan(tmp_path: Path) -> str:
    np.save(tmp_path / "my scan.npy", np.zeros((3, 8, 8), np.uint16))
    return str(tmp_path / "my scan.npy")


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *author, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address on GitHub that git looks up in a folder here: a repository of the rules, one profile more, and tag v1."""
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    shutil.copytree(folder / "workflow" / "profiles" / "default", folder / "workflow" / "profiles" / "only-at-v1")
    shutil.copy(ROOT / "Snakefile", folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "rules")
    git(folder, "tag", "v1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{folder}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/lab/ssdenoise")
    return "https://github.com/lab/ssdenoise"


def test_the_verb_makes_a_project_with_a_row_for_each_source(tmp_path: Path, scan: str) -> None:
    other = tmp_path / "other" / "my scan.npy"
    other.parent.mkdir()
    shutil.copy(scan, other)
    sources = ["my scan.npy", "other/my scan.npy"]
    done = subprocess.run(
        [sys.executable, "-m", "ssdenoise", "init", "new/study", *sources, "--axes", "ZYX"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "  cd new/study\n" in done.stdout
    assert "pip install" not in done.stdout
    study = tmp_path / "new" / "study"
    project = Project(yaml.safe_load((study / "config" / "config.yaml").read_text()), study)
    assert project.config.run == "study"
    assert {name: row.noisy for name, row in project.datasets.items()} == {"my-scan": scan, "my-scan-2": str(other)}
    assert {row.axes for row in project.datasets.values()} == {"ZYX"}
    for folder in (ROOT / "workflow" / "profiles").iterdir():
        copied = study / "workflow" / "profiles" / folder.name / "config.yaml"
        assert copied.read_text() == (folder / "config.yaml").read_text()
    assert (study / "config" / "schema.json").read_text() == (ROOT / "config" / "schema.json").read_text()
    assert f'"{ROOT}/Snakefile"' in (study / "Snakefile").read_text()


def test_entries_that_the_configuration_proposes_are_valid(tmp_path: Path, scan: str) -> None:
    init(tmp_path / "study", [scan], axes="ZYX")
    path = tmp_path / "study" / "config" / "config.yaml"
    text = path.read_text()
    config = yaml.safe_load(re.sub("^  # ", "  ", text, flags=re.MULTILINE))
    assert set(config["methods"]) == {"gaussian", "n2v", "hqssl", "structn2v", "sasl", "n2n", "best"}
    assert config["storage"].keys() == {"chunk", "shard", "root"}
    del config["methods"]["n2n"]  # needs pairs, as its line says
    Project(config, tmp_path / "study")


def test_a_pattern_is_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = tmp_path / "planes"
    planes.mkdir()
    for i in range(3):
        np.save(planes / f"{i}.npy", np.zeros((8, 8), np.uint16))
    monkeypatch.chdir(tmp_path)
    init(Path("study"), ["planes/*.npy#z=0:2"], axes="ZYX")
    (row,) = read_sheet(tmp_path / "study" / "config" / "datasets.tsv")
    assert (row.dataset, row.noisy) == ("planes", f"{planes}/*.npy#z=0:2")


def test_nothing_is_overwritten_and_a_bad_source_leaves_no_folder(tmp_path: Path, scan: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for there, what in ((full, "is not empty"), (full / "notes.txt", "is a file")):
        with pytest.raises(ConfigError, match=f"{there} {what}; a project starts in an empty folder"):
            init(there, [scan])
    assert [path.name for path in full.iterdir()] == ["notes.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FormatError, match="the axes 'YX' do not fit it"):
        init(empty, [scan], axes="YX")
    assert list(empty.iterdir()) == []
    init(empty)
    with pytest.raises(ConfigError, match="has no datasets"):
        read_sheet(empty / "config" / "datasets.tsv")
    with pytest.raises(ConfigError, match="is not empty"):
        init(empty)


def test_a_package_without_its_rules_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"has no Snakefile with workflow/profiles; name a checkout"):
        init(tmp_path / "study", workflow=str(tmp_path))
    assert f"pip install --editable {ROOT}\n" not in init(tmp_path / "mine", workflow=str(ROOT))
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "site-packages" / "ssdenoise")
    with pytest.raises(ConfigError, match=r"site-packages has .*; this package was installed without its rules"):
        init(tmp_path / "study")
    assert f"  pip install --editable {ROOT}  " in init(tmp_path / "study", workflow=str(ROOT))


def test_the_rules_of_a_repository_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosted = host(tmp_path / "work", monkeypatch)
    commit = git(tmp_path / "work", "rev-parse", "HEAD")
    for reference, pinned in (("v1", 'tag="v1"'), (commit, f'commit="{commit}"')):
        told = init(tmp_path / reference, workflow=f"{hosted}@{reference}")
        assert f"  pip install git+{hosted}@{reference}  " in told
        assert f"{hosted} at {reference}" in (tmp_path / reference / "config" / "datasets.tsv").read_text()
        text = (tmp_path / reference / "Snakefile").read_text()
        assert f'github("lab/ssdenoise", path="Snakefile", {pinned})\n' in text
        assert (tmp_path / reference / "workflow" / "profiles" / "only-at-v1" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "https://github.com/lab/ssdenoise@main",
            "no tag 'main' could be fetched from https://github.com/lab/ssdenoise: ",
        ),
        ("https://github.com/lab/ssdenoise", "needed is https://HOST/OWNER/NAME@TAG, or a whole commit"),
        ("https://example.org/lab/ssdenoise@v1", "of another host, clone the repository and give the clone's path"),
    ],
)
def test_a_branch_or_another_host_is_refused(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(tmp_path / "work", monkeypatch)
    with pytest.raises(ConfigError, match=message):
        init(tmp_path / "study", workflow=address)
    assert not (tmp_path / "study").exists()
