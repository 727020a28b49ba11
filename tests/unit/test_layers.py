"""Imports point down: the layers of the architecture, held by reading the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "ssdenoise"

L0, L1, L2, L3, L4, L5 = range(6)
LAYERS = {
    **dict.fromkeys(("errors", "grid", "intensity", "noise", "metrics"), L0),
    **dict.fromkeys(("energy", "interrupt", "provenance", "remote", "run", "store", "plotting"), L1),
    **dict.fromkeys(("networks", "covariance", "jinvariance"), L1),
    **dict.fromkeys(("methods", "model", "device", "pieces"), L2),
    "config": L3,
    **dict.fromkeys(("fetch", "ingest", "synthesize", "calibrate", "train", "denoise", "commit"), L4),
    **dict.fromkeys(("score", "probe", "choose", "compare", "figures", "report", "export", "verify", "view"), L4),
    **dict.fromkeys(("crate", "init", "inspect", "needs", "plan", "status"), L5),
}
STORAGE = {"zarr", "dask", "xarray", "yaozarrs"}
#: What modules must not import, from outside or from the package.
FORBIDDEN = {
    **{key: {"torch", "pandas", "snakemake", *STORAGE} for key in [m for m, layer in LAYERS.items() if layer == L0]},
    **{
        key: {"torch", "snakemake", "ssdenoise.networks"}
        for key in ("energy", "interrupt", "provenance", "remote", "run", "store", "plotting")
    },
    **{
        key: {"snakemake", "ssdenoise.store", "ssdenoise.provenance", *STORAGE}
        for key in ("networks", "covariance", "jinvariance")
    },
    **{key: {"snakemake", "ssdenoise.store", *STORAGE} for key in ("methods", "model", "device", "pieces", "config")},
    **{key: {"snakemake"} for key in [m for m, layer in LAYERS.items() if layer >= L4]},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_down() -> None:
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module in ("__init__", "__main__", "verbs"):
            continue
        layer = LAYERS[module]
        for name in imports(path):
            top, _, rest = name.partition(".")
            banned = [other for other in FORBIDDEN[module] if f"{name}.".startswith(f"{other}.")]
            assert not banned, f"{path.relative_to(PACKAGE)} (layer {layer}) imports {name}"
            other = rest.partition(".")[0]
            if top == "ssdenoise" and other and other != module:
                assert LAYERS[other] <= layer, f"{path.name} (layer {layer}) imports {name} (layer {LAYERS[other]})"
                assert layer != L4 or LAYERS[other] != L4, f"{path.name} is a stage and imports the stage {other}"


def test_rules_import_only_the_configuration_and_the_errors() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        for line in path.read_text().splitlines():
            if "ssdenoise" in line and line.lstrip().startswith(("from ", "import ")):
                assert line.split()[1] in {
                    "ssdenoise.config.models",
                    "ssdenoise.config.project",
                    "ssdenoise.config.specs",
                    "ssdenoise.errors",
                    "ssdenoise.needs",
                }, line
