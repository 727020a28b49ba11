"""The places that name versions agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
CONDA = yaml.safe_load((ROOT / "workflow" / "envs" / "ssdenoise.yaml").read_text())["dependencies"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return match[0].lower().replace(".", "-")  # as the lock spells `bioimageio.core`


def test_the_lock_pins_every_dependency() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    wanted += PROJECT["optional-dependencies"]["export"] + PROJECT["optional-dependencies"]["view"]
    assert {name_of(requirement) for requirement in wanted} <= {name.lower() for name in LOCK}


def test_the_conda_environment_has_the_lock_s_versions() -> None:
    pins = dict(pin.split("==") for pin in CONDA[-1]["pip"])
    assert pins == {name: LOCK[name] for name in map(name_of, PROJECT["dependencies"])}


@pytest.mark.parametrize(
    ("recipe", "base", "copies"),
    [("Dockerfile", "FROM", r"^COPY (.*) \S+$"), ("ssdenoise.def", "From:", r"^    (\S+) /opt/ssdenoise/$")],
)
def test_a_container_has_what_make_installs(recipe: str, base: str, copies: str, tmp_path: Path) -> None:
    text = (ROOT / "workflow" / "envs" / recipe).read_text()
    (python,) = re.findall(f"^{base} python:(.*)$", text, re.MULTILINE)
    assert f"python={python}" in CONDA
    assert f"Python {python}\n" in (ROOT / "requirements.lock").read_text()
    assert "==" not in text  # what versions there are, the lock alone says
    for name in " ".join(re.findall(copies, text, re.MULTILINE)).split():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    needed = [PROJECT["readme"], *PROJECT["license-files"], "ssdenoise", "Snakefile", "workflow"]
    assert all((tmp_path / name).exists() for name in needed)

    (command,) = re.findall("PIP_NO_CACHE_DIR=1 (make .*)$", text, re.MULTILINE)
    done = subprocess.run([*command.split(), "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True)
    torch, lock, package = [line for line in done.stdout.splitlines() if "pip install" in line]
    (pin,) = re.findall(r"\$\((grep .*)\)$", torch)
    found = subprocess.run(pin, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == f"torch=={LOCK['torch']}\n"
    assert lock.endswith("--requirement requirements.lock")
    assert package.endswith("--no-deps --editable .")


def test_the_pods_on_kubernetes_share_a_folder_and_a_scheduler() -> None:
    items = yaml.safe_load((ROOT / "workflow" / "envs" / "kubernetes.yaml").read_text())["items"]
    (service,) = [item for item in items if item["kind"] == "Service"]
    pods = {item["kind"] + item["metadata"]["name"]: item["spec"]["template"] for item in items if item is not service}
    assert len(pods) == 3
    containers = {name: pod["spec"]["containers"][0] for name, pod in pods.items()}
    for shared in ("image", "workingDir", "volumeMounts"):
        assert len({str(container[shared]) for container in containers.values()}) == 1
    assert len({str(pod["spec"]["volumes"]) for pod in pods.values()}) == 1

    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    scheduler = pods["Deploymentssdenoise-scheduler"]
    assert scheduler["metadata"]["labels"] == service["spec"]["selector"]
    assert address in containers["Deploymentssdenoise-worker"]["command"]
    job = containers["Jobssdenoise"]
    assert job["env"] == [{"name": "DASK_SCHEDULER_ADDRESS", "value": address}]
    assert (ROOT / job["command"][job["command"].index("--profile") + 1] / "config.yaml").is_file()


def test_every_direct_dependency_is_justified() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("## Dependencies") : text.index("## Never run")]
    assert {name for name in map(name_of, PROJECT["dependencies"]) if name not in table} == set()
