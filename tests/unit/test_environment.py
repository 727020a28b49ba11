"""The places that name versions agree."""

from __future__ import annotations

import re
import tomllib

import yaml

from tests.conftest import ROOT

LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
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
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / "ssdenoise.yaml").read_text())
    pins = dict(pin.split("==") for pin in environment["dependencies"][-1]["pip"])
    assert pins == {name: LOCK[name] for name in map(name_of, PROJECT["dependencies"])}


def test_every_direct_dependency_is_justified() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("## Dependencies") : text.index("## Never run")]
    assert {name for name in map(name_of, PROJECT["dependencies"]) if name not in table} == set()
